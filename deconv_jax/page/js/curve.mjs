// Curves of logits against how many features were taken out, drawn as SVG.
import { make } from "./dom.mjs";
import { minus, signed } from "./text.mjs";

const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 150, 40, 8, 8, 24];

// Where a count and a logit stand: few features are far apart, many close together.
export const scalesOf = (counts, values) => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [last, span] = [Math.log2(1 + counts.at(-1)), high - low || 1];
  return {
    x: (count) => LEFT + (Math.log2(1 + count) / (last || 1)) * (WIDTH - LEFT - RIGHT),
    y: (value) => TOP + ((high - value) / span) * (HEIGHT - TOP - BOTTOM),
    low, high,
  };
};

export const pathOf = (counts, values, { x, y }) =>
  counts.map((count, n) => `${n ? "L" : "M"}${x(count).toFixed(1)} ${y(values[n]).toFixed(1)}`).join("");

// Where the order says most: the count, to a quarter of the features, at which it is farthest below the random ones.
export const saidOf = ({ counts, effect, energy, mean, low }, label) => {
  const few = counts.map((count, n) => n).filter((n) => counts[n] && 4 * counts[n] <= counts.at(-1));
  const n = (few.length ? few : [1]).reduce((best, k) => (effect[k] - mean[k] < effect[best] - mean[best] ? k : best));
  return `Logit of ${label}: ${signed(effect[0])} with all features. ${counts[n]} taken out: ${signed(effect[n])} by effect, ` +
    `${energy ? `${signed(energy[n])} by energy, ` : ""}${signed(mean[n])} at random (lowest ${signed(low[n])}).`;
};

const draw = (tag, attributes, ...children) => {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// A figure of one network's curve: the order of effects, that of energy where there is one, and the random ones' band.
export const figureOf = (curve, title, label) => {
  const { counts, effect, energy, mean, low, high } = curve;
  const scales = scalesOf(counts, [...effect, ...(energy ?? []), ...low, ...high]);
  const { x, y } = scales;
  const back = [...counts].reverse();
  const band = pathOf(counts, high, scales) + pathOf(back, [...low].reverse(), scales).replace("M", "L");
  const text = (x, y, anchor, content) => draw("text", { x, y, "text-anchor": anchor }, content);
  const marks = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].filter((n) => n < counts.at(-1) * 0.8).concat(counts.at(-1));
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": saidOf(curve, label) },
    draw("path", { class: "band", d: `${band}Z` }), draw("path", { class: "way random", d: pathOf(counts, mean, scales) }),
    ...(energy ? [draw("path", { class: "way energy", d: pathOf(counts, energy, scales) })] : []),
    draw("path", { class: "way effect", d: pathOf(counts, effect, scales) }),
    ...marks.map((n) => text(x(n), HEIGHT - 8, "middle", n)),
    ...[scales.high, scales.low].map((v) => text(LEFT - 6, y(v) + 4, "end", minus(v.toFixed(1)))));
  return make("figure", { className: "curve" }, make("figcaption", {}, make("strong", { textContent: title }), ` ${saidOf(curve, label)}`), svg);
};
