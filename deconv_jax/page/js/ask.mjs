// The panel that can be asked: what features do for a class, and what the network says of any set of them.
import { figureOf } from "./curve.mjs";
import { $, make } from "./dom.mjs";
import { answerFor, answersOf, leftOf, sidesOf } from "./sets.mjs";
import { percent, signed } from "./text.mjs";

const SHOWN = 8; // rows of each side, until more are asked for

// `network`; `state`: class asked, layer, feature, and the sets `muted` and `alone`; `clip()`, `rows()`: what is shown;
// `select(feature)`, `askFor(class)`; `changed()`: another set is left; `hear()`: the set is to be heard.
export const askIn = (place, { network, state, clip, rows, select, askFor, changed, hear }) => {
  let [answers, all] = [null, false];
  const layer = () => clip().layers[state.layer];
  const named = (index) => network.labels[index];
  const toggle = (set, feature) => {
    if (!set.delete(feature)) set.add(feature);
    showSet();
    changed();
  };
  const button = (what, feature, set) => {
    const name = what === "M" ? "Mute" : "Solo";
    const onclick = () => toggle(set, feature);
    return Object.assign(make("button", { type: "button", className: "switch", textContent: what, ariaLabel: `${name} feature ${feature}`, title: `${name} feature ${feature}`, onclick }),
      { ariaPressed: set.has(feature) });
  };
  const line = (r, most) => {
    const effect = r.effects[state.asked];
    const bar = make("progress", { value: most ? Math.abs(effect) / most : 0, ariaHidden: "true" });
    const name = make("button", { type: "button", className: "name", textContent: r.feature, ariaLabel: `Feature ${r.feature}: ${signed(effect)} without it`, onclick: () => select(r.feature) });
    const item = make("li", { className: effect < 0 ? "own" : "" }, name, bar, make("span", { className: "value", textContent: signed(effect), ariaHidden: "true" }),
      button("M", r.feature, state.muted), button("S", r.feature, state.alone));
    item.dataset.feature = r.feature;
    return item;
  };
  const side = (title, members, most) => make("section", {}, make("h3", { textContent: title }),
    members.length ? make("ol", {}, ...(all ? members : members.slice(0, SHOWN)).map((r) => line(r, most))) : make("p", { className: "small muted", textContent: "None." }));
  const showSides = () => {
    const sides = sidesOf(rows(), state.asked);
    const most = Math.max(0, ...sides.flat().map((r) => Math.abs(r.effects[state.asked])));
    $("ask-sides").replaceChildren(...["Speak for it", "Speak against it"].map((title, n) => side(title, sides[n], most)));
    const hidden = sides.reduce((sum, some) => sum + Math.max(0, some.length - SHOWN), 0);
    Object.assign($("ask-more"), { hidden: !hidden, textContent: all ? "Show fewer" : `Show ${hidden} more`, ariaExpanded: all });
  };
  const showSet = () => {
    for (const item of place.querySelectorAll("li[data-feature]")) {
      const feature = Number(item.dataset.feature);
      [state.muted, state.alone].forEach((set, n) => { item.querySelectorAll(".switch")[n].ariaPressed = set.has(feature); });
    }
    const sets = leftOf(rows(), state.muted, state.alone);
    const [left, out] = sets;
    const found = answerFor(answers, sets, rows().length === network.layers[state.layer].maps, state.alone.size > 0);
    const { before } = layer().asked;
    $("ask-set").textContent = !out.length ? `All ${left.length} active features.` : `${left.length} of ${left.length + out.length} active features are left.`;
    const likely = [...network.labels.keys()].sort((a, b) => before[b] - before[a]).slice(0, 5);
    if (!likely.includes(state.asked)) likely.push(state.asked);
    $("ask-says").replaceChildren(...(found
      ? likely.map((k) => make("div", { className: `bar${k === state.asked ? " own" : ""}` }, make("span", { className: "name", textContent: named(k) }),
        make("progress", { value: found[k], ariaHidden: "true" }), make("span", { className: "value", textContent: percent(found[k]) })))
      : [make("p", { className: "small muted", textContent: "For this set the answer was not computed. Computed were every feature muted, every feature alone, and the first few of the orders." })]));
    $("ask-few").value = state.taken;
    $("ask-taken").textContent = state.taken ? `${layer().asked.counts[state.taken - 1]}` : "none";
    $("ask-reset").disabled = !out.length;
    $("ask-hear").disabled = !left.length;
  };
  // The first features of the class's order, taken out (muted) or alone.
  const take = (which) => {
    const { counts } = layer().asked;
    const count = state.taken ? counts[state.taken - 1] : 0;
    const order = [...rows()].sort((a, b) => a.effects[state.asked] - b.effects[state.asked] || a.feature - b.feature).slice(0, count).map((r) => r.feature);
    state.muted.clear();
    state.alone.clear();
    for (const feature of order) state[which].add(feature);
    showSet();
    changed();
  };
  const show = () => {
    const { asked } = layer();
    place.hidden = !asked;
    if (!asked) return;
    answers = answersOf(asked, rows());
    state.taken = 0;
    $("ask-class").value = state.asked;
    $("ask-title").textContent = `Why ${named(state.asked)}? Layer ${state.layer}`;
    $("ask-few").max = asked.counts.length;
    showSides();
    showSet();
    const { curve, twin, parts } = asked;
    $("ask-curves").replaceChildren(figureOf(curve, "This network.", named(curve.class)),
      ...(twin ? [figureOf(twin, "With random weights, its own order.", named(twin.class))] : []));
    $("ask-parts").textContent = parts > 1 ? `Sets and curves: the mean of ${parts} clip lengths, spread over the sound.` : "";
  };
  $("ask-class").replaceChildren(...network.labels.map((label, value) => make("option", { value, textContent: label })));
  $("ask-class").addEventListener("change", () => askFor(Number($("ask-class").value)));
  $("ask-more").addEventListener("click", () => { all = !all; showSides(); });
  $("ask-few").addEventListener("input", () => { state.taken = Number($("ask-few").value); take(state.which); });
  for (const input of document.getElementsByName("ask-which")) input.addEventListener("change", () => { state.which = input.value; take(state.which); });
  $("ask-reset").addEventListener("click", () => { state.taken = 0; take("muted"); });
  $("ask-hear").addEventListener("click", hear);
  return { show };
};
