// Why the answer was given, in sound: what spoke for it, what keeps it, and what is left, each with the answer to it.
import { $, make } from "./dom.mjs";
import { percent } from "./text.mjs";

const SOUNDS = [
  ["attribution", "What spoke for it"], ["keeps", "Enough to keep the answer"], ["without", "What is left without that"],
  ["goes", "What has to go"], ["changed", "What is left then"],
];

// The answer to a sound, as text: the class's probability, and the likeliest class where that is another.
export const saysOf = (says, labels, name) => {
  const best = says.indexOf(Math.max(...says));
  return labels[best] === name ? percent(says[best]) : `${percent(says[labels.indexOf(name)])}; ${labels[best]} ${percent(says[best])}`;
};

export const heldOf = ({ cells, energy, seconds }) => `${percent(cells)} of the cells, ${percent(energy)} of the energy, in ${seconds.toFixed(1)} s`;

// The same in other orders of the cells.
const othersOf = (nulls) => Object.entries(nulls).map(([order, held]) =>
  `${order === "random weights" ? "the attribution of random weights" : order}, ${held.reached ? heldOf(held) : "never"}`).join("; ");

// What keeps the answer and what has to go, in sentences.
export const amountsOf = ({ kept, gone, share, kept_nulls: keptNulls, gone_nulls: goneNulls, class: name }) => [
  `${heldOf(kept)} keep ${percent(share)} of the probability of ${name}.`,
  gone.reached ? `Without ${heldOf(gone)}, the answer is another.` : "The answer never changes, however much goes.",
  `In other orders, as much is kept by: ${othersOf(keptNulls)}. It changes without: ${othersOf(goneNulls)}.`,
  ...(keptNulls["random order"].cells <= kept.cells ? ["No more cells are needed in random order, so what keeps the answer is no sign of what it hangs on."] : []),
];

// `labels`; `plots` [attribution, what is kept]; `address(name)`; `playing()`: the name of the sound that plays, or "";
// `hear(name)`: it is to be heard.
export const whyIn = (place, { labels, plots, address, playing, hear }) => {
  const buttons = SOUNDS.map(([name, title]) => make("button", { type: "button", className: "button", textContent: title, onclick: () => hear(name) }));
  const mark = () => SOUNDS.forEach(([name], n) => { buttons[n].ariaPressed = playing() === name; });
  const show = (why, length) => {
    place.hidden = !why;
    if (!why) return;
    const line = (title, says) => [title, make("progress", { value: says[labels.indexOf(why.class)], ariaHidden: "true" }), make("span", { className: "value", textContent: saysOf(says, labels, why.class) })];
    $("why-sounds").replaceChildren(
      make("li", { className: "own" }, ...line(make("span", { textContent: "The original" }), why.whole)),
      ...SOUNDS.map(([name], n) => make("li", {}, ...line(buttons[n], why.sounds[name]))));
    $("why-amounts").replaceChildren(...amountsOf(why).map((textContent) => make("p", { className: "small", textContent })));
    $("why-title").textContent = `What makes it say ${why.class}, in sound` + (why.start || length > why.length ? `: from ${why.start.toFixed(1)} s on` : "");
    ["attribution", "keeps"].forEach((name, n) => plots[n].show({
      address: address(name), title: ["What spoke for it", "What keeps the answer"][n], length: why.length, label: `Spectrogram of ${["what spoke for", "what keeps"][n]} ${why.class}`,
    }));
    mark();
  };
  return { show, mark };
};
