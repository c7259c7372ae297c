// Sets of features: which are left, what the network says without the others, and what is heard.

// Rows, of which some are muted and, if any is alone, only those are left: [left, out], numbers in rising order.
export const leftOf = (rows, muted, alone) => {
  const numbers = rows.filter((r) => !r.inactive).map((r) => r.feature).sort((a, b) => a - b);
  const stays = (f) => !muted.has(f) && (!alone.size || alone.has(f));
  return [numbers.filter(stays), numbers.filter((f) => !stays(f))];
};

// What each of so many maps is multiplied by: its fader's place (1 where none was moved), 0 if it is out.
export const scalingOf = (count, muted, alone, faders) => Array.from({ length: count }, (_, f) =>
  (muted.has(f) || (alone.size && !alone.has(f)) ? 0 : faders.get(f) ?? 1));

// All that was computed, as "out 3,5" or "left 7" → [probabilities, how it is called]. Inactive features change nothing.
export const answersOf = (asked, rows) => {
  const acting = rows.filter((r) => !r.inactive).map((r) => r.feature);
  const key = (what, some) => `${what} ${some.filter((f) => acting.includes(f)).sort((a, b) => a - b).join()}`;
  const found = new Map();
  for (const { class: target, features, out, left } of asked.orders.toReversed()) {
    asked.counts.forEach((count, n) => {
      found.set(key("out", features.slice(0, count)), [out[n], target]);
      found.set(key("left", features.slice(0, count)), [left[n], target]);
    });
  }
  rows.forEach((r, n) => {
    if (r.inactive) return;
    found.set(key("out", [r.feature]), [asked.muted[n], null]);
    found.set(key("left", [r.feature]), [asked.alone[n], null]);
  });
  return found.set("out ", [asked.before, null]);
};

// Probabilities where they were computed, else null. `whole`: the rows are all features of the layer.
export const answerFor = (answers, [left, out], whole, alone) => {
  const keys = [`out ${out.join()}`, `left ${left.join()}`];
  const asked = whole || !out.length ? keys : [alone ? keys[1] : keys[0]];
  return asked.map((key) => answers.get(key)).find((found) => found)?.[0] ?? null;
};

// Rows that speak for and against a class, each in the order of how much: [for, against].
export const sidesOf = (rows, asked) => {
  const by = [...rows].sort((a, b) => a.effects[asked] - b.effects[asked] || a.feature - b.feature);
  return [by.filter((r) => r.effects[asked] < 0), by.filter((r) => r.effects[asked] > 0).reverse()];
};

// Adds so much of a sound to a mix, both Float32Array.
export const addTo = (mix, sound, weight) => {
  const length = Math.min(mix.length, sound.length);
  for (let n = 0; n < length; n++) mix[n] += weight * sound[n];
  return mix;
};

// A mix as loud as the original, but with no higher peak.
export const asLoudAs = (mix, original) => {
  const [power, peak] = [(x) => x.reduce((sum, v) => sum + v * v, 0), (x) => x.reduce((most, v) => Math.max(most, Math.abs(v)), 0)];
  const top = peak(mix);
  if (!top) return mix;
  const factor = Math.min(peak(original) / top, Math.sqrt(power(original) / power(mix)));
  return mix.map((v) => factor * v);
};
