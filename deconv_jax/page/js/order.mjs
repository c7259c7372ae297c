// Features in an order, in kinds, and what is said of them. A row is what was measured of one feature in one clip.
import { fixed, percent, signed } from "./text.mjs";

// `asked`: the class whose logit counts for the sort "effect": those first without which it falls most.
export const better = (sort, asked) => (a, b) => {
  if (sort === "effect") return a.effects[asked] - b.effects[asked] || a.feature - b.feature;
  return (sort === "feature" ? 0 : (b[sort] ?? -1) - (a[sort] ?? -1)) || a.feature - b.feature;
};

// Rows in the order of `sort`, the inactive ones apart: [active, inactive].
export const sorted = (rows, sort, asked) => [rows.filter((r) => !r.inactive).sort(better(sort, asked)), rows.filter((r) => r.inactive)];

// Sorted rows by kind, the kinds in the order of their best.
export const kindsOf = (rows) => {
  const kinds = new Map();
  for (const r of rows) kinds.set(r.kind, [...(kinds.get(r.kind) ?? []), r]);
  return kinds;
};

export const alikeness = (members) => {
  const r = members.map((m) => m.kind_r).filter((v) => v !== null);
  return r.length ? `look alike, mean r ${fixed(r.reduce((a, b) => a + b, 0) / r.length)}` : "";
};

// `asked` and `label`: a class and its name.
export const described = (r, favourite, asked, label) => {
  const mark = favourite ? ", favourite" : "";
  if (r.inactive) return `Feature ${r.feature}, inactive${mark}`;
  const twin = r.difference === undefined ? "" : `difference from untrained ${fixed(r.difference)}, `; // where no twin was asked for
  return `Feature ${r.feature}: active in ${percent(r.active_fraction)} of its map, ${percent(r.energy_share)} of the layer's energy, ${twin}` +
    `without it the logit of ${label} changes by ${signed(r.effects[asked])}${mark}`;
};

// A layer in a few sentences: its rows, what a second untrained network reaches, how many features it has, and how many
// of them have a name, if it was dissected.
export const summaryOf = (rows, chance, maps, dissected) => {
  const acting = rows.filter((r) => !r.inactive);
  if (!acting.length) return "No feature of this layer is active in this clip.";
  const middle = acting.map((r) => r.difference).sort((a, b) => a - b)[acting.length >> 1];
  const kinds = new Set(acting.map((r) => r.kind)).size;
  const of = rows.length < maps ? `the ${rows.length} features chosen` : `${rows.length} features`;
  return `${acting.length} of ${of} ${acting.length === 1 ? "is" : "are"} active, of ${kinds} ${kinds === 1 ? "kind" : "kinds"}. ` +
    (dissected ? `Dissected over ${dissected.songs} songs, ${dissected.named || "none"} of the ${dissected.features} of the layer ${dissected.named === 1 ? "has" : "have"} a name; ` +
      `of a control, by the same rule, ${fixed(dissected.false, 1)}. ` : "") +
    `Difference from untrained: median ${fixed(middle)}; that network's: ${fixed(chance.difference)}.`;
};
