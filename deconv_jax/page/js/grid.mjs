// The grid: a card for each feature of a layer, look-alikes in one stack.
import { make } from "./dom.mjs";
import { alikeness, described, kindsOf, sorted } from "./order.mjs";
import { fixed, percent, signed } from "./text.mjs";

const three = (r, sort, asked) => [
  sort === "active_fraction" ? [sort, percent(r.active_fraction), "active"] : sort === "ratio" ? [sort, `${fixed(r.ratio ?? null, 1)}×`, "in the box"] : ["effect", signed(r.effects[asked]), "without"],
  ["energy_share", percent(r.energy_share), "energy"],
  ...(r.difference === undefined ? [] : [["difference", fixed(r.difference), "differs"]]),
].map(([key, value, label]) => make("span", { className: key === sort ? "sorted" : "" }, value, make("small", { textContent: label })));

// A button with the picture of a feature in a clip, what lies on it, and the numbers that it can be sorted by.
export const cardFor = (r, { sort, asked }, picture, onclick, ...over) =>
  make("button", { type: "button", className: `card${r.inactive ? " inactive" : ""}`, onclick },
    make("span", { className: "frame" }, picture, ...over),
    make("span", { className: "three" }, ...(r.inactive ? ["inactive"] : three(r, sort, asked))));

// `state`: what is chosen (layer, feature, sort, class asked, group, starred; `open` holds the stacks that are open);
// `labels`: of the classes; `rows()`: of the layer; `starred(feature)`: a favourite?; `picture(row)`: its element, null if there is nothing to see; `chosen(feature, pressed, event)`;
// `under(row)`: what stands under a card, if anything does.
export const gridIn = (place, { state, labels, rows, starred, picture, chosen, under }) => {
  const cards = () => Array.from(place.querySelectorAll(".card"));
  const cardOf = (feature) => cards().find((c) => Number(c.dataset.feature) === feature);
  const card = (r) => {
    const button = cardFor(r, state, picture(r), (event) => chosen(r.feature, true, event),
      make("span", { className: "number", textContent: r.feature }),
      starred(r.feature) ? make("span", { className: "star", textContent: "★" }) : null);
    button.dataset.feature = r.feature;
    return Object.assign(button, { ariaLabel: described(r, starred(r.feature), state.asked, labels[state.asked]), ariaCurrent: r.feature === state.feature });
  };
  const bundle = (name, members, about) => {
    if (members.length === 1) return make("div", { className: "stack" }, card(members[0]));
    const id = `${state.layer}/${name}`;
    const open = state.open.has(id);
    const more = make("button", { type: "button", className: "more", ariaExpanded: open });
    more.textContent = open ? `▾ ${members.length} ${name === "inactive" ? "inactive features" : "features"}: ${about}` :
      name === "inactive" ? `▸ ${members.length} inactive` : `▸ ${members.length - 1} more alike`;
    more.onclick = () => {
      if (!state.open.delete(id)) state.open.add(id);
      show();
      place.querySelector(`[data-bundle="${CSS.escape(id)}"] .more`)?.focus();
    };
    const face = members.find((m) => m.feature === state.feature) ?? members[0];
    const stack = open
      ? make("section", { className: "kind", ariaLabel: `${members.length} features that ${about}` }, more, make("div", { className: "members" }, ...members.map(card)))
      : make("div", { className: "stack many" }, card(face), more);
    stack.dataset.bundle = id;
    return stack;
  };
  const show = () => {
    const [active, inactive] = sorted(rows().filter((r) => !state.starred || starred(r.feature)), state.sort, state.asked);
    const focused = place.contains(document.activeElement) && document.activeElement.matches(".card");
    if (!active.length && !inactive.length) {
      place.replaceChildren(make("p", { className: "empty", textContent: "No favourites in this layer yet: press F on a feature." }));
    } else if (state.group) {
      const bundles = Array.from(kindsOf(active), ([kind, members]) => bundle(`kind ${kind}`, members, alikeness(members)));
      if (inactive.length) bundles.push(bundle("inactive", inactive, "no part of this clip activates them"));
      place.replaceChildren(...bundles);
    } else place.replaceChildren(...[...active, ...inactive].map((r) => (under ? make("div", { className: "stack" }, card(r), under(r)) : card(r))));
    if (focused) cardOf(state.feature)?.focus({ preventScroll: true });
  };
  // Marks the chosen card; a feature that is hidden within a kind becomes its face.
  const mark = () => {
    if (!cardOf(state.feature)) show();
    for (const c of cards()) c.ariaCurrent = Number(c.dataset.feature) === state.feature;
  };
  const move = (key, focus = true) => {
    const all = cards();
    const now = all.indexOf(cardOf(state.feature));
    let next = all[now + { ArrowLeft: -1, ArrowRight: 1 }[key]];
    if (now < 0) next = all[0];
    else if (key === "ArrowUp" || key === "ArrowDown") {
      const [mine, sign] = [all[now].getBoundingClientRect(), key === "ArrowDown" ? 1 : -1];
      const away = (c) => {
        const box = c.getBoundingClientRect();
        const down = sign * (box.top - mine.top);
        return down < mine.height / 2 ? Infinity : down * 4 + Math.abs(box.left - mine.left);
      };
      next = all.reduce((best, c) => (away(c) < away(best) ? c : best), all[now]);
    }
    if (!next) return;
    chosen(Number(next.dataset.feature));
    if (!focus) return;
    cardOf(state.feature)?.focus({ preventScroll: true });
    cardOf(state.feature)?.scrollIntoView({ block: "nearest" });
  };
  return { show, mark, move, focus: () => cardOf(state.feature)?.focus() };
};
