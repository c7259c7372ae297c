// The parts of the page's script that need no page.
import assert from "node:assert/strict";
import { test } from "node:test";

import { chanceOf, evened, roundsOf, scoreSaid } from "../../deconv_jax/page/js/abx.mjs";
import { boxFrom, boxOf, boxSaid, boxText } from "../../deconv_jax/page/js/box.mjs";
import { axesOf } from "../../deconv_jax/page/js/axes.mjs";
import { colourScale } from "../../deconv_jax/page/js/colour.mjs";
import { factsOf, nameOf, sizeOf, stemsOf } from "../../deconv_jax/page/js/feature.mjs";
import { actionOf, keyOf } from "../../deconv_jax/page/js/keys.mjs";
import { changed, shelf, tableOf } from "../../deconv_jax/page/js/marks.mjs";
import { clock, momentSaid, searchSaid } from "../../deconv_jax/page/js/moments.mjs";
import { alikeness, better, described, kindsOf, sorted, summaryOf } from "../../deconv_jax/page/js/order.mjs";
import { pathOf, saidOf, scalesOf } from "../../deconv_jax/page/js/curve.mjs";
import { samplesOf, unpacked } from "../../deconv_jax/page/js/link.mjs";
import { addTo, answerFor, answersOf, asLoudAs, leftOf, scalingOf, sidesOf } from "../../deconv_jax/page/js/sets.mjs";
import { placeAt, restOf } from "../../deconv_jax/page/js/sound.mjs";
import { likeliestOf, lineOf, outlineOf } from "../../deconv_jax/page/js/strip.mjs";
import { addressOf, viewOf } from "../../deconv_jax/page/js/view.mjs";
import { amountsOf, saysOf } from "../../deconv_jax/page/js/why.mjs";
import { csv, fixed, hertz, percent, signed, steps } from "../../deconv_jax/page/js/text.mjs";

const near = (found, wanted, within = 1e-9) => assert.ok(Math.abs(found - wanted) <= within, `${found}, not ${wanted}`);

test("numbers as people read them", () => {
  assert.deepEqual([0, 0.0004, 0.0123, 0.0994, 0.0996, 1].map(percent), ["0", "<0.1", "1.2", "9.9", "10", "100"].map((v) => `${v}\u202f%`));
  assert.deepEqual([null, -0.456, 2].map((v) => fixed(v)), ["–", "−0.46", "2.00"]);
  assert.deepEqual([1.5, -1.5, 0].map((v) => signed(v)), ["+1.50", "−1.50", "0.00"]);
  assert.deepEqual([999.6, 1234].map(hertz), ["1000\u00a0Hz", "1.23\u00a0kHz"]);
  assert.deepEqual(steps(4, 5), [0, 1, 2, 3, 4]);
  assert.deepEqual(steps(5512.5, 6), [0, 1000, 2000, 3000, 4000, 5000]);
  assert.equal(steps(0.3, 5).length, 4); // 0.3 / 0.1 is a little less than 3
});

test("CSV keeps quotes and line ends, and no cell is a formula", () => {
  assert.equal(csv([["=1+1", 'a "b"', -1, null], ["x\ny", "-2", 0, undefined]]), '\ufeff"\'=1+1","a ""b""","-1",""\r\n"x\ny","\'-2","0",""\r\n');
});

test("frequencies have one place, on either axis, for rows that are even or not", () => {
  const [even, mel] = [Array.from({ length: 257 }, (_, n) => 21.5 * n), [40, 100, 190, 330, 560, 900, 1500]];
  for (const [rows, flat] of [[even, true], [mel, false]]) {
    const { top, frequencyAt, heightOf, lineOf, marked } = axesOf(rows, flat);
    rows.forEach((f, n) => {
      near(heightOf(f, "linear"), (n + 0.5) / rows.length); // the middle of its row
      assert.equal(lineOf(f), rows.length - 1 - n); // pictures are drawn from above
    });
    near(heightOf(top, "linear"), 1);
    near(heightOf(top, "log"), 1);
    for (const axis of ["linear", "log"]) {
      for (const height of [0, 0.2, 0.77, 1]) near(heightOf(frequencyAt(height, axis), axis), height);
      const places = marked(axis).map((f) => heightOf(f, axis));
      assert.ok(places.length >= 3);
      places.slice(1).forEach((place, n) => assert.ok(place - places[n] > 0.06));
    }
    assert.deepEqual([lineOf(-50), lineOf(1e6)], [rows.length - 1, 0]);
  }
});

test("colours lie between their neighbours and end at the first and last", () => {
  const at = colourScale(["#000000", "#204060", "#ffffff"]);
  assert.deepEqual(at(0.5), [16, 32, 48]);
  assert.deepEqual([at(-3), at(9)], [[0, 0, 0], [255, 255, 255]]);
});

const row = (feature, kind, energy_share, more = {}) =>
  ({ feature, kind, energy_share, effects: [feature - 2, 2 - feature], active_fraction: 0.5, difference: energy_share, kind_r: null, inactive: 0, ...more });
const rows = [row(0, 2, 0.1), row(1, 1, 0.2), row(2, -1, 0, { inactive: 1, difference: null }), row(3, 1, 0.6), row(4, 2, 0.1)];

test("features stand in the order asked for, equal ones by number, inactive ones apart", () => {
  const order = (sort, asked) => sorted(rows, sort, asked).map((some) => some.map((r) => r.feature));
  assert.deepEqual(order("energy_share"), [[3, 1, 0, 4], [2]]);
  assert.deepEqual(order("feature"), [[0, 1, 3, 4], [2]]);
  assert.deepEqual(order("effect", 0), [[0, 1, 3, 4], [2]]); // the logit falls most without the first
  assert.deepEqual(order("effect", 1), [[4, 3, 1, 0], [2]]);
  assert.deepEqual([...rows].sort(better("difference")).map((r) => r.feature), [3, 1, 0, 4, 2]); // unknown ones last
  assert.deepEqual(rows.map((r) => r.feature), [0, 1, 2, 3, 4]); // the rows themselves stay
  assert.deepEqual(Array.from(kindsOf(sorted(rows, "energy_share")[0]), ([kind, some]) => [kind, some.map((r) => r.feature)]), [[1, [3, 1]], [2, [0, 4]]]);
  assert.equal(alikeness([{ kind_r: 0.8 }, { kind_r: null }, { kind_r: 0.9 }]), "look alike, mean r 0.85");
  assert.equal(alikeness([{ kind_r: null }]), "");
});

test("what is said of features and layers", () => {
  assert.equal(described(rows[2], true, 0, "rock"), "Feature 2, inactive, favourite");
  assert.match(described(rows[3], false, 1, "rock"), /^Feature 3: active in 50\u202f% of its map, 60\u202f% of the layer's energy, difference from untrained 0.60, without it the logit of rock changes by −1.00$/);
  const chance = { active: 5, difference: 0.3 };
  const dissected = { songs: 60, features: 64, named: 3, false: 0.25 };
  assert.equal(summaryOf(rows, chance, 5, dissected), "4 of 5 features are active, of 2 kinds. Dissected over 60 songs, 3 of the 64 of the layer have a name; " +
    "of a control, by the same rule, 0.3. Difference from untrained: median 0.20; that network's: 0.30.");
  assert.equal(summaryOf(rows, chance, 5, null), "4 of 5 features are active, of 2 kinds. Difference from untrained: median 0.20; that network's: 0.30.");
  assert.match(summaryOf(rows.slice(2, 4), chance, 5), /^1 of the 2 features chosen is active, of 1 kind\./);
  assert.equal(summaryOf([rows[2]], chance, 5), "No feature of this layer is active in this clip.");
});

test("what is measured of one feature", () => {
  const r = { ...rows[3], evidence: null, bass_share: 0.25, mid_share: 0.5, treble_share: 0.25,
    difference_signed: 0.5, explained: 0.1, negative_share: 0.2, centroid_hz: null };
  const evidence = { concept: "pad", auroc: 0.79, control: 0.67, fall: 1.44, control_fall: 0.86, songs_falling: 12, songs: 13 };
  assert.deepEqual(nameOf({ ...r, evidence }, { controls: 13 }), ["pad: 0.79", ", best of 13 controls 0.67; falls 1.4 without pad (a control at most 0.9), in 12 of 13 songs. " +
    "Its image need not sound like the name."]);
  assert.match(nameOf({ ...r, evidence: { ...evidence, without: "" } }, { controls: 13 })[1], /like the name\. That stem is silent in this clip\.$/);
  assert.deepEqual([undefined, null, evidence, { ...evidence, without: "" }].map(stemsOf), [[], [], [], []]);
  assert.deepEqual(stemsOf({ ...evidence, without: "stems/0" }), [["With pad", "Play the mix with pad", "stems/mix"], ["Without pad", "Play the mix without pad", "stems/0"]]);
  assert.match(nameOf(r, { controls: 13 }).join(""), /^No name: no stem that was tried passes .* features\.$/);
  assert.equal(nameOf({ inactive: 1 }, null).join(""), "No name: this network was not dissected. Inactive: no part of this clip activates it.");
  assert.deepEqual([sizeOf([0.093, 86.1, 4], "bins"), sizeOf([1.5, null, 5], "mel bands")], ["93\u00a0ms × 86\u00a0Hz", "1.50\u00a0s × 5\u00a0mel bands"]);
  const facts = (printed) => factsOf(r, { printed, true: [1, 100, 5] }, { difference: 0.3, difference_signed: 0.4 }, "phase", "bins", 0, "rock");
  assert.deepEqual(facts([1, 50, 3]).map(([term]) => term), ["Effect", "Activity", "Share of energy", "Difference", "Effective size", "Receptive field", "The rest", "Negative values", "Centroid"]);
  assert.equal(facts(null).length, 8);
  assert.ok(facts(null).flat().every((text) => typeof text === "string" && !/undefined|NaN/.test(text)));
});

const set = (...numbers) => new Set(numbers);

test("what is left: without the muted, or the lone ones only; inactive features are none", () => {
  assert.deepEqual(leftOf(rows, set(), set()), [[0, 1, 3, 4], []]);
  assert.deepEqual(leftOf(rows, set(1, 2), set()), [[0, 3, 4], [1]]);
  assert.deepEqual(leftOf(rows, set(1), set(1, 4)), [[4], [0, 1, 3]]);
});

test("an answer is given for the sets that were computed, and for no other", () => {
  const one = (name) => [name];
  const asked = {
    counts: [1, 2, 5], before: one("all"), muted: rows.map((r) => one(`without ${r.feature}`)), alone: rows.map((r) => one(`only ${r.feature}`)),
    orders: [{ class: 0, features: [3, 0, 2, 4, 1], out: [1, 2, 5].map((n) => one(`first ${n} out`)), left: [1, 2, 5].map((n) => one(`first ${n} left`)) }],
  };
  const answers = answersOf(asked, rows);
  const found = (muted, alone, whole = true) => answerFor(answers, leftOf(rows, set(...muted), set(...alone)), whole, alone.length > 0);
  assert.deepEqual(found([], []), ["all"]);
  assert.deepEqual(found([4], []), ["without 4"]);
  assert.deepEqual(found([], [4]), ["only 4"]);
  assert.deepEqual(found([0, 3], []), ["first 2 out"]);
  assert.deepEqual(found([], [0, 3]), ["first 2 left"]);
  assert.deepEqual(found([0, 1, 3], []), ["only 4"]); // the same set, otherwise said
  assert.deepEqual(found([0, 1, 3], [], false), null); // there are features that are not shown, and these stay
  assert.deepEqual(found([2], []), ["all"]); // it is inactive
  assert.deepEqual(found([1, 4], []), ["first 2 left"]);
  assert.equal(found([0, 1], []), null);
});

test("features stand on the side for which they speak, the strongest first", () => {
  assert.deepEqual(sidesOf(rows, 0).map((some) => some.map((r) => r.feature)), [[0, 1], [4, 3]]);
  assert.deepEqual(sidesOf(rows, 1).map((some) => some.map((r) => r.feature)), [[4, 3], [0, 1]]);
});

test("a mix adds up and is as loud as the original at most", () => {
  const mix = addTo(addTo(new Float32Array(3), Float32Array.of(1, 2, 3), 0.5), Float32Array.of(1, 1), -1);
  assert.deepEqual(mix, Float32Array.of(-0.5, 0, 1.5));
  const loud = asLoudAs(Float32Array.of(3, -4, 0), Float32Array.of(1, 1, 1));
  near(Math.max(...loud.map(Math.abs)), 1, 1e-6); // the peak binds
  near(loud[0] / loud[1], -0.75, 1e-6);
  near(asLoudAs(Float32Array.of(1, 1), Float32Array.of(0, 2))[0], Math.SQRT2, 1e-6); // the power binds
  assert.deepEqual(asLoudAs(new Float32Array(2), Float32Array.of(1, 1)), new Float32Array(2));
});

test("curves: few features are far apart, and what is said is where the order says most", () => {
  const curve = { counts: [0, 1, 2, 4, 8], effect: [2, 1, 0, -1, -1], energy: [2, 2, 1.5, 1, -1], mean: [2, 1.9, 1.5, 0, -1], low: [2, 1.5, 1, -0.5, -1], high: [2, 2, 1.75, 0.5, -1] };
  const scales = scalesOf(curve.counts, [...curve.effect, ...curve.high]);
  assert.deepEqual([scales.low, scales.high], [-1, 2]);
  assert.ok(scales.x(1) - scales.x(0) > scales.x(8) - scales.x(4) - 1e-9);
  assert.ok(scales.y(2) < scales.y(-1));
  assert.match(pathOf(curve.counts, curve.effect, scales), /^M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){4}$/);
  assert.equal(saidOf(curve, "rock"), "Logit of rock: +2.00 with all features. 2 taken out: 0.00 by effect, +1.50 by energy, +1.50 at random (lowest +1.00).");
  assert.doesNotMatch(saidOf({ ...curve, energy: undefined }, "rock"), /energy/);
  const flat = { counts: [0, 1], effect: [1, 1], mean: [1, 1], low: [1, 1], high: [1, 1] };
  assert.doesNotMatch(pathOf(flat.counts, flat.effect, scalesOf(flat.counts, flat.effect)) + saidOf(flat, "x"), /NaN|undefined/);
});

test("why: answers to sounds, and how much keeps one", () => {
  assert.deepEqual([saysOf([0.25, 0.75], ["a", "b"], "b"), saysOf([0.75, 0.25], ["a", "b"], "b")], ["75\u202f%", "25\u202f%; a 75\u202f%"]);
  const held = (reached) => ({ cells: 0.125, energy: 0.5, seconds: 1, reached });
  const why = { class: "rock", share: 0.9, kept: held(true), gone: held(true), kept_nulls: { "random weights": held(true), "random order": { ...held(true), cells: 0.2 } }, gone_nulls: { "loudest first": held(false) } };
  assert.match(amountsOf(why).join(" "), /^13\u202f% of the cells, 50\u202f% of the energy, in 1.0 s keep 90\u202f% .* rock. Without 13.* answer is another. .*the attribution of random weights, 13.* changes without: loudest first, never/);
  assert.match(amountsOf({ ...why, gone: held(false) })[1], /never changes/);
  assert.equal(amountsOf(why).length, 3);
  assert.match(amountsOf({ ...why, kept_nulls: { "random order": held(true) } })[3], /no sign of what it hangs on/);
});

test("a sound repeats or ends, and the rest is what is left", () => {
  assert.deepEqual([placeAt(3, 1.5, 4, true), placeAt(3, 1.5, 4, false), placeAt(1, -0.1, 4, true)], [0.5, 4, 1]);
  assert.deepEqual(restOf(Float32Array.of(1, 2, 3), Float32Array.of(2, 2), [0.5, 0.25]), Float32Array.of(0, 0.25, 0.75));
});

test("marks: changed one by one, written as a table, other windows' kept", () => {
  const one = changed({}, "a", { favourite: true });
  const two = changed(one, "b", { note: "hi" });
  assert.deepEqual(two, { a: { favourite: true, note: "" }, b: { favourite: false, note: "hi" } });
  assert.deepEqual(changed(two, "a", { favourite: false }), { b: { favourite: false, note: "hi" } });
  assert.deepEqual(Object.keys(changed(two, "a", { note: "x" })), ["a", "b"]); // in the order in which they came
  assert.deepEqual(one, { a: { favourite: true, note: "" } });
  const table = tableOf({ '["bach",2,3]': { favourite: true, note: "=n" }, '["gone",1,0]': { favourite: false, note: "x" } }, [{ name: "bach", layers: { 2: { features: rows } } }]);
  assert.match(table.split("\r\n")[1], /^"bach","2","3","1","'=n","0.5","0.6"/);
  assert.match(table.split("\r\n")[2], /^"gone","1","0","0","x","",/);

  const held = new Map();
  globalThis.localStorage = { getItem: (name) => held.get(name) ?? null, setItem: (name, value) => held.set(name, value) };
  const said = [];
  const [mine, other] = [shelf("n", (text) => said.push(text)), shelf("n", () => {})];
  other.setMark(["c", 1, 2], { favourite: true });
  mine.setMark(["c", 1, 3], { note: "mine" });
  assert.deepEqual([mine.markOf("c", 1, 2).favourite, mine.markOf("c", 1, 3).note, said.at(-1).slice(0, 8)], [true, "mine", "2 marked"]);
  globalThis.localStorage.setItem = () => { throw new Error("denied"); };
  mine.setMark(["c", 1, 3], { favourite: true });
  assert.match(said.at(-1), /does not keep/);
  assert.ok(mine.markOf("c", 1, 3).favourite); // for this visit it holds
  delete globalThis.localStorage;
});

test("keys mean what the page says, and leave the browser its own", () => {
  const on = (...selectors) => ({ matches: (asked) => asked.split(", ").some((s) => selectors.includes(s)) });
  const body = on();
  const event = (key, more = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, defaultPrevented: false, ...more });
  assert.deepEqual([event("F"), event("ArrowUp"), event("f", { ctrlKey: true }), event("f", { defaultPrevented: true })].map(keyOf), ["f", "ArrowUp", null, null]);
  const means = { " ": ["toggle"], ArrowLeft: ["move", "ArrowLeft"], 1: ["hear", 0], 4: ["hear", 3], f: ["favourite"], n: ["note"], l: ["repeat"] };
  for (const [key, action] of Object.entries(means)) assert.deepEqual(actionOf(key, body), action);
  for (const key of ["0", "5", "y", "Enter", "constructor", null]) assert.equal(actionOf(key, body), null);
  for (const key of Object.keys(means)) {
    assert.equal(actionOf(key, on("textarea")), null);
    assert.equal(actionOf(key, on("select")), null);
  }
  assert.deepEqual(actionOf("Escape", on("textarea")), ["leave"]);
  assert.equal(actionOf(" ", on("button:focus-visible:not(.card)")), null);
  assert.equal(actionOf("ArrowLeft", on("[role=tab]")), null);
  assert.notEqual(actionOf(" ", body, true)[0], "toggle"); // held down: once
});

test("the studio's answers are frames of JSON and bytes, and sounds 16-bit samples", () => {
  const text = new TextEncoder().encode(JSON.stringify({ kind: "sound", name: "ä" }));
  const frame = new Uint8Array(4 + text.length + 4);
  new DataView(frame.buffer).setUint32(0, text.length, true);
  frame.set(text, 4);
  frame.set([255, 127, 1, 128], 4 + text.length);
  const [message, bytes] = unpacked(frame.buffer);
  assert.deepEqual(message, { kind: "sound", name: "ä" });
  assert.deepEqual(samplesOf(bytes), Float32Array.of(1, -1));
});

test("what maps are multiplied by: faders, but nothing of what is out", () => {
  const faders = new Map([[0, 0.5], [2, 0.25]]);
  assert.deepEqual(scalingOf(4, set(), set(), faders), [0.5, 1, 0.25, 1]);
  assert.deepEqual(scalingOf(4, set(2, 3), set(), faders), [0.5, 1, 0, 0]);
  assert.deepEqual(scalingOf(4, set(2), set(0, 2), faders), [0.5, 0, 0, 0]);
});

test("a box has two corners in any order, and what responded in it is said beside its nulls", () => {
  const box = boxOf([0.5, 800], [0.25, 200]);
  assert.deepEqual(box, { seconds: [0.25, 0.5], hertz: [200, 800] });
  assert.deepEqual(boxFrom(boxText(box)), box);
  for (const wrong of [null, "", "1-2-3", "1-2-3-x", "1.2.3-1-1-1"]) assert.equal(boxFrom(wrong), null);
  const m = { layer: 5, cells: 2, of: 40, nearest: false, sound: 1.44, ratios: [3, null, 0.5], twin: [0.5, 1, 2] };
  assert.match(boxSaid(m, box)[0], /^2 of 40 cells of layer 5 have their middle in the box \(0\.25–0\.50 s, .*sound itself: 1\.4\.$/);
  assert.match(boxSaid(m, box)[1], /median 1\.0, at most 2\.0; 1 of this one's 3 is above/);
  assert.match(boxSaid({ ...m, twin: null, nearest: true }, box).join(), /No cell .* nearest .*being asked/);
  assert.match(boxSaid({ ...m, twin: [] }, box)[1], /No feature/);
});

test("a search says how far it is, and then what it found", () => {
  const m = { layer: 5, feature: 3, done: 1, of: 4, share: 0.504, skipped: 1 };
  assert.equal(searchSaid(m), "Hearing song 2 of 4: 50 % … 1 could not be read.");
  assert.equal(searchSaid({ ...m, done: 4, skipped: 0 }), "Feature 3 of layer 5 in 4 songs, strongest first.");
  assert.equal(clock(83.44), "1:23.4");
  assert.equal(momentSaid({ value: 1, louder: 0.5 }, 4), "0.25 of the strongest; louder than 50\u202f% of the song");
});

test("a blind test counts what was right, and how often guessing does as well", () => {
  near(chanceOf(0, 10), 1);
  near(chanceOf(10, 10), 1 / 1024);
  near(chanceOf(9, 10), 11 / 1024);
  near(chanceOf(50, 100), 0.5397946186935895, 1e-12);
  const coins = [true, false, true];
  const rounds = roundsOf(2, () => coins.shift());
  assert.equal(rounds.x(), "a");
  rounds.answer("a");
  assert.deepEqual([rounds.x(), rounds.round(), rounds.done()], ["b", 2, false]);
  rounds.answer("a");
  assert.deepEqual([rounds.right(), rounds.done()], [1, true]);
  assert.match(scoreSaid(9, 10), /^9 of 10 right.*p = 0\.0107.*told them apart/);
  assert.match(scoreSaid(7, 10), /p = 0\.1719.*does not show/);
  assert.match(scoreSaid(40, 40), /p = < 0\.0001/);
});

test("two sounds are made equally loud by the quieter", () => {
  const levels = evened([0.5, -0.5], [1, 1]);
  assert.deepEqual(levels, { a: 1, b: 0.5 });
  assert.equal(evened([0, 0], [1, 1]), null);
});

test("an address holds the view, and what is none of it is left out", () => {
  const view = { network: "real3", song: "dropped/ab&c=1", start: 12.5, seconds: 4, layer: 5, sort: "effect", muted: set(9, 3), alone: set(), faders: new Map([[7, 0.4], [2, 0]]), box: boxOf([0, 100], [1, 200]), versus: "=a b" };
  assert.deepEqual(viewOf(`#${addressOf(view)}`), view);
  const none = { muted: set(), alone: set(), faders: new Map() };
  for (const wrong of ["", "#", "#start=-1&seconds=x&layer=0&sort=up", "#faders=x.1-y&muted=a.-1&alone=%20"]) assert.deepEqual(viewOf(wrong), none);
  assert.deepEqual(viewOf("#faders=3-900").faders, new Map([[3, 1]]));
});

test("along a song: an outline about its middle, and a line for a class in the order of time", () => {
  assert.equal(outlineOf([0, 1]), "M250.0 50.0L750.0 2.0L750.0 98.0L250.0 50.0Z");
  const points = [[3, [1, 0]], [1, [0.25, 0.75]]];
  assert.equal(lineOf(points, 0, 4, 2), "M0.0 75.0L250.0 75.0L750.0 0.0L1000.0 0.0");
  assert.deepEqual(likeliestOf(points, 1), [[0, 0.625]]);
  assert.deepEqual(likeliestOf([], 3), []);
});
