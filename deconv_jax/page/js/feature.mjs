// One feature: its pictures, what was measured of it, and where else to listen.
import { stemOf } from "./data.mjs";
import { $, make } from "./dom.mjs";
import { cardFor } from "./grid.mjs";
import { better } from "./order.mjs";
import { fixed, hertz, percent, signed } from "./text.mjs";

// What a feature is, over many songs, as [in bold, and about it]; `dissected`: of its layer, null if it was not.
export const nameOf = (r, dissected) => {
  const here = r.inactive ? " Inactive: no part of this clip activates it." : "";
  if (!dissected) return ["No name", `: this network was not dissected.${here}`];
  if (!r.evidence) return ["No name", `: no stem that was tried passes beside every control, as with most features.${here}`];
  const { concept, auroc, control, fall, control_fall: most, songs_falling: falling, songs, without } = r.evidence;
  const silent = without === "" ? " That stem is silent in this clip." : "";
  return [`${concept}: ${fixed(auroc)}`, `, best of ${dissected.controls} controls ${fixed(control)}; ` +
    `falls ${fixed(fall, 1)} without ${concept} (a control at most ${fixed(most, 1)}), in ${falling} of ${songs} songs. Its image need not sound like the name.${silent}${here}`];
};

// Seconds × Hz, or rows of the input where a row is no fixed number of Hz.
export const sizeOf = ([width, height, cells], unit) =>
  `${width < 1 ? `${Math.round(1000 * width)}\u00a0ms` : `${width.toFixed(2)}\u00a0s`} × ${height === null ? `${cells}\u00a0${unit}` : `${Math.round(height)}\u00a0Hz`}`;

// The numbers of a feature as [term, value, what it is]. `layer`: the network's; `chance`: a second untrained network's;
// `asked` and `label`: the class asked for.
export const factsOf = (r, layer, chance, reading, unit, asked, label) => [
  ["Effect", signed(r.effects[asked]), `on the logit of ${label}, when its map is silenced`],
  ["Activity", percent(r.active_fraction), "of its map is above zero"],
  ["Share of energy", percent(r.energy_share),
    `of the layer's images; ${["bass", "mid", "treble"].map((band) => `${band} ${Math.round(100 * r[`${band}_share`])}`).join(", ")}\u00a0%`],
  ["Difference", fixed(r.difference), `from untrained; by chance ${fixed(chance.difference)}. With sign ${fixed(r.difference_signed)}; by chance ${fixed(chance.difference_signed)}`],
  ...(layer.printed ? [["Effective size", sizeOf(layer.printed, unit), "the paper's rule"]] : []),
  ["Receptive field", sizeOf(layer.true, unit), "all that one activation can see"],
  ["The rest", r.inactive ? "the original" : `${percent(r.explained)} less energy`, "than the original: a projection"],
  ["Negative values", percent(r.negative_share), reading === "phase" ? "of its energy: phase turned by π" : "of its energy"],
  ["Centroid", r.centroid_hz === null ? "–" : hertz(r.centroid_hz), "mean frequency of its energy"],
];

const kernelTable = (kernel, feature) => {
  const most = Math.max(...kernel.flat().map(Math.abs)) || 1;
  const table = make("table", { ariaLabel: `Kernel of feature ${feature}` }, ...[...kernel].reverse().map((line) => make("tr", {}, ...line.map((value) => {
    const cell = make("td", { textContent: fixed(value) });
    const share = Math.abs(value) / most;
    cell.style.background = `color-mix(in oklab, ${value < 0 ? "#2a78c8" : "#d9593f"} ${Math.round(85 * share)}%, var(--soft))`;
    cell.style.color = share > 0.6 ? "#fff" : "";
    return cell;
  }))));
  return [table, make("p", { className: "muted", textContent: "Its kernel: time to the right, frequency upwards. Red adds, blue takes away." })];
};

// A line of buttons, [text, name, what it does] each; empty without any.
const fill = (id, label, buttons) => $(id).replaceChildren(...(buttons.length ? [make("span", { className: "label", textContent: label })] : []),
  ...buttons.map(([textContent, ariaLabel, onclick]) => make("button", { type: "button", textContent, ariaLabel, onclick })));

// The mix with and without the stem that the feature is named after, where this clip's stems are known: [text, name, source].
export const stemsOf = (evidence) => (evidence?.without
  ? [["With", "stems/mix"], ["Without", evidence.without]].map(([word, source]) => [`${word} ${evidence.concept}`, `Play the mix ${word.toLowerCase()} ${evidence.concept}`, source]) : []);

// `page`: network, clips, state, `rowsOf(clip, layer)`, `markOf(feature)`, `address(clip, name)` and `thumb(clip, row)`
// of pictures, `drop(level)`, `plots` [own, twin's], `top` in Hz; and what buttons do: `seek`, `select`, `choose`, `play`.
export const showFeature = ({ network, clips, state, rowsOf, markOf, address, thumb, drop, plots, top, seek, select, choose, play }) => {
  const { layer, feature } = state;
  const { seconds, layers, reading } = clips[state.clip];
  const [rows, mark, stem] = [rowsOf(state.clip, layer), markOf(feature), stemOf(layer, feature)];
  const r = rows.find((o) => o.feature === feature);
  $("detail-title").textContent = `Feature ${feature}, layer ${layer}`;
  $("favourite").ariaPressed = mark.favourite;
  $("favourite").firstElementChild.textContent = mark.favourite ? "★" : "☆";
  $("note").value = mark.note;
  const [bold, about] = nameOf(r, layers[layer].dissected);
  $("measured").replaceChildren(make("strong", { textContent: bold }), make("span", { className: "muted", textContent: about }));
  const mixes = stemsOf(r.evidence);
  fill("stems", "The mix of this clip", mixes.map(([text, name, source]) => [text, name, () => play(source)]));
  $("stems").querySelectorAll("button").forEach((button, n) => { button.dataset.source = mixes[n][2]; });
  plots[0].show({
    address: address(state.clip, stem), title: "What made it respond", length: seconds, down: drop(r.level), moments: r.moments,
    label: `Spectrogram of feature ${feature}, 0 to ${hertz(top)}, ${seconds.toFixed(1)} seconds`,
    nothing: r.inactive ? "inactive: no part of this clip activates it"
      : r.energy ? "" : "active by a constant alone: nothing of this clip leads to it",
  });
  plots[1].show({
    address: address(state.clip, `${stem}.untrained`), title: `Untrained twin's ${feature}`, length: seconds, down: drop(r.untrained_level),
    label: `Spectrogram of feature ${feature} of the untrained twin`, nothing: r.untrained_inactive ? "inactive" : "",
  });
  $("facts").replaceChildren(...factsOf(r, network.layers[layer], layers[layer].chance, reading, network.rows, state.asked, network.labels[state.asked]).map(([term, value, small]) =>
    make("div", {}, make("dt", { textContent: term }), make("dd", {}, value, make("small", { textContent: small })))));
  const kernel = layer === 1 ? network.kernels[feature] : null;
  $("kernel").hidden = !kernel;
  if (kernel) $("kernel").replaceChildren(...kernelTable(kernel, feature));
  const moments = [...r.moments].sort((a, b) => a - b);
  fill("moments", "Strongest moments", moments.map((t) => [`${t.toFixed(2)} s`, `Go to ${t.toFixed(2)} seconds`, () => seek(t)]));
  const alike = rows.filter((o) => o.kind === r.kind && o !== r && !r.inactive).sort(better(state.sort, state.asked));
  fill("alike", `Look-alikes (mean r ${fixed(r.kind_r)})`, alike.map((o) => [o.feature, `Feature ${o.feature}`, () => select(o.feature)]));
  const others = clips.flatMap((c, index) => (index === state.clip ? [] : rowsOf(index, layer).filter((o) => o.feature === feature).map((o) => [index, o])));
  $("elsewhere").replaceChildren(...(others.length ? [make("h3", { textContent: `Feature ${feature} in the other clips` }), make("div", { className: "row" }, ...others.map(([index, o]) => {
    const card = cardFor(o, state, o.inactive ? null : thumb(index, o), () => choose(index));
    card.firstElementChild.after(make("span", { className: "clip-title", textContent: clips[index].name }));
    return card;
  }))] : []));
};
