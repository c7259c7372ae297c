// What is being looked at in the studio, as text for an address, and back.
import { boxFrom, boxText } from "./box.mjs";

const listed = (set) => [...set].sort((a, b) => a - b).join(".");
const numbers = (text) => new Set((text ?? "").split(".").filter((part) => /^\d+$/.test(part)).map(Number));

export const addressOf = ({ network, song, start, seconds, layer, sort, muted, alone, faders, box, versus }) => {
  const some = { network, song, start: start.toFixed(3), seconds: seconds.toFixed(3), layer, sort, muted: listed(muted), alone: listed(alone),
    faders: [...faders].sort((a, b) => a[0] - b[0]).map(([f, v]) => `${f}-${Math.round(100 * v)}`).join("."), box: box ? boxText(box) : "", versus };
  return new URLSearchParams(Object.entries(some).filter(([, value]) => value !== "" && value !== null && value !== undefined)).toString();
};

// What an address says; what it does not say, or says wrongly, is left out.
export const viewOf = (address) => {
  const said = new URLSearchParams(address.replace(/^#/, ""));
  const number = (name, low, high) => {
    const value = Number(said.get(name) ?? NaN);
    return value >= low && value <= high ? { [name]: value } : {};
  };
  const faders = new Map((said.get("faders") ?? "").split(".").map((part) => /^(\d+)-(\d+)$/.exec(part)).filter(Boolean)
    .map(([, f, v]) => [Number(f), Math.min(100, Number(v)) / 100]));
  return {
    ...(said.get("network") ? { network: said.get("network") } : {}), ...(said.get("song") ? { song: said.get("song") } : {}),
    ...number("start", 0, 1e6), ...number("seconds", 0.1, 1e4), ...number("layer", 1, 1000),
    ...(said.get("versus") ? { versus: said.get("versus") } : {}),
    ...(boxFrom(said.get("box")) ? { box: boxFrom(said.get("box")) } : {}),
    ...(["effect", "energy_share", "feature", "ratio"].includes(said.get("sort")) ? { sort: said.get("sort") } : {}),
    muted: numbers(said.get("muted")), alone: numbers(said.get("alone")), faders,
  };
};
