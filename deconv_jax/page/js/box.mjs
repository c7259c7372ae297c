// A box on a spectrogram: its corners, and what is said of what responded in it.
import { fixed, hertz } from "./text.mjs";

// Two corners, [seconds, Hz] each → { seconds, hertz }, rising.
export const boxOf = (from, to) => {
  const [seconds, rows] = [[from[0], to[0]], [from[1], to[1]]].map((pair) => pair.sort((a, b) => a - b));
  return { seconds, hertz: rows };
};

// As text for an address, and back; null for what is no box.
export const boxText = ({ seconds, hertz: rows }) => [...seconds.map((t) => t.toFixed(3)), ...rows.map((f) => f.toFixed(0))].join("-");
export const boxFrom = (text) => {
  const found = /^([\d.]+)-([\d.]+)-([\d.]+)-([\d.]+)$/.exec(text ?? "")?.slice(1).map(Number);
  return found?.every(Number.isFinite) ? boxOf([found[0], found[2]], [found[1], found[3]]) : null;
};

// What the server measured (`deconv_jax.studio.responses.Box`, and the ratios of an untrained network's features, rising) → sentences.
export const boxSaid = (m, { seconds, hertz: rows }) => {
  const place = `${seconds.map((t) => t.toFixed(2)).join("–")} s, ${rows.map(hertz).join("–")}`;
  const cells = m.nearest ? `No cell of layer ${m.layer} has its middle in the box (${place}); the nearest stands for it`
    : `${m.cells} of ${m.of} cells of layer ${m.layer} have their middle in the box (${place})`;
  const lines = [`${cells}. A feature's number: its mean activation there, as a multiple of its mean in the loop. The sound itself: ${fixed(m.sound, 1)}.`];
  if (!m.twin) return [...lines, "An untrained network is being asked …"];
  if (!m.twin.length) return [...lines, "No feature of an untrained network is active in the loop."];
  const [middle, most] = [m.twin[m.twin.length >> 1], m.twin.at(-1)];
  const above = m.ratios.filter((ratio) => ratio > most).length;
  return [...lines, `An untrained network's features: median ${fixed(middle, 1)}, at most ${fixed(most, 1)}; ${above || "none"} of this one's ${m.ratios.length} ${above === 1 ? "is" : "are"} above all of those.`];
};
