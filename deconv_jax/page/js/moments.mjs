// When a feature responds most: what is said of the search, and the list of moments, each of which leads there.
import { make } from "./dom.mjs";
import { fixed, percent } from "./text.mjs";

export const clock = (second) => `${Math.floor(second / 60)}:${(second % 60).toFixed(1).padStart(4, "0")}`;

// What the server says of the search → a sentence.
export const searchSaid = (m) => {
  const songs = m.of === 1 ? "this song" : `${m.of} songs`;
  const missing = m.skipped ? ` ${m.skipped} could not be read.` : "";
  if (m.done < m.of) return `${m.of === 1 ? "Hearing this song" : `Hearing song ${m.done + 1} of ${m.of}`}: ${Math.round(100 * m.share)} % …${missing}`;
  return `Feature ${m.feature} of layer ${m.layer} in ${songs}, strongest first.${missing}`;
};

// What stands beside a moment: its activation as a share of the strongest, and how loud the song is there.
export const momentSaid = (moment, most) => `${fixed(moment.value / most)} of the strongest; louder than ${percent(moment.louder)} of the song`;

// `here()`: the key of the song that is chosen; `jump(key, second)`: goes there.
export const momentsIn = (place, { here, jump }) => {
  const show = (found) => {
    const most = found[0]?.value;
    place.replaceChildren(...found.map((moment) => make("li", {},
      make("button", { type: "button", onclick: () => jump(moment.key, moment.second), textContent: clock(moment.second) }),
      make("span", {}, ...(moment.key === here() ? [] : [make("strong", { textContent: moment.name }), " "]), make("small", { textContent: momentSaid(moment, most) })))));
    if (!found.length) place.replaceChildren(make("li", { textContent: "It is nowhere active." }));
  };
  return { show, clear: () => place.replaceChildren() };
};
