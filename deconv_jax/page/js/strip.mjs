// What runs along a song under its spectrogram: its outline, and what the network says of it.
import { make } from "./dom.mjs";
import { percent } from "./text.mjs";

const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [1000, 100];

// Peaks, shares of the loudest → a shape about its middle, in a box of 1000 by 100.
export const outlineOf = (peaks) => {
  const x = (n) => ((n + 0.5) / peaks.length) * WIDTH;
  const side = (sign, some) => some.map(([n, p]) => `${x(n).toFixed(1)} ${(HEIGHT / 2 - sign * p * HEIGHT * 0.48).toFixed(1)}`).join("L");
  const all = peaks.map((p, n) => [n, p]);
  return `M${side(1, all)}L${side(-1, all.toReversed())}Z`;
};

// Points [second, probabilities] in any order → for a class, a line, which goes on for `half` seconds at both ends.
export const lineOf = (points, which, seconds, half) => {
  const rising = [...points].sort((a, b) => a[0] - b[0]).map(([t, says]) => [t, says[which]]);
  const [first, last] = [rising[0], rising.at(-1)];
  return [[Math.max(0, first[0] - half), first[1]], ...rising, [Math.min(seconds, last[0] + half), last[1]]]
    .map(([t, p], n) => `${n ? "L" : "M"}${((t / seconds) * WIDTH).toFixed(1)} ${((1 - p) * HEIGHT).toFixed(1)}`).join("");
};

// The classes with the largest means along the song, most first.
export const likeliestOf = (points, count) => {
  if (!points.length) return [];
  const means = points[0][1].map((_, k) => points.reduce((sum, [, says]) => sum + says[k], 0) / points.length);
  return means.map((mean, k) => [k, mean]).sort((a, b) => b[1] - a[1]).slice(0, count);
};

const draw = (tag, attributes, ...children) => {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const box = (label, ...children) => draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...children);

export const showOutline = (place, peaks) => place.replaceChildren(box("Outline of the song", draw("path", { class: "outline", d: outlineOf(peaks) })));

// `labels`: of the classes; `half`: of a clip's length; up to five lines, with what they are.
export const showSaid = (place, legend, points, labels, seconds, half) => {
  const likeliest = likeliestOf(points, 5);
  const said = likeliest.map(([k, mean]) => `${labels[k]} ${percent(mean)}`).join(", ");
  place.replaceChildren(box(`What the network says along the song, means: ${said}`, draw("path", { class: "half", d: `M0 ${HEIGHT / 2}H${WIDTH}` }),
    ...likeliest.toReversed().map(([k], n) => draw("path", { class: `way way-${likeliest.length - 1 - n}`, d: lineOf(points, k, seconds, half) }))));
  legend.replaceChildren(...likeliest.map(([k, mean], n) => make("span", { className: `way-${n}`, textContent: `${labels[k]} (mean ${percent(mean)})` })));
};
