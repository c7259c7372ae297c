// What was written into the page, or lies in the folders beside it: the network, the clips, their pictures and sounds.
import { $, make } from "./dom.mjs";

export const stemOf = (layer, feature) => `layer${layer}/f${String(feature).padStart(3, "0")}`;

export const written = () => {
  const network = JSON.parse($("network").textContent);
  const addresses = JSON.parse($("addresses").textContent);
  const inside = new Map(Array.from(document.querySelectorAll("script[data-file]"), (e) => [e.dataset.file, e]));
  const clips = addresses.map((address) => JSON.parse(inside.get(`${address}/clip.json`).textContent));
  const picture = (clip, name) => {
    const place = `${addresses[clip]}/${name}.png`;
    const element = inside.get(place);
    return element ? `data:image/png;base64,${element.textContent}` : place;
  };
  // A page that was opened from a file may fetch nothing, but it may load scripts: each hands over one sound.
  const arriving = new Map();
  window.deconv = (name, text) => arriving.get(name)?.(text);
  const loaded = (name) => new Promise((resolve, reject) => {
    arriving.set(name, resolve);
    const script = make("script", { src: name.replace(/flac$/, "js"), async: true });
    script.onload = () => script.remove();
    script.onerror = () => reject(new Error("a sound is missing: the page has to stay beside its folders"));
    document.head.append(script);
  }).finally(() => arriving.delete(name));
  const sound = async (clip, name) => {
    const place = `${addresses[clip]}/${name}.flac`;
    const text = inside.get(place)?.textContent ?? await loaded(place);
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  };
  return { network, clips, picture, sound };
};
