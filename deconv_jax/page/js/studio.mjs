// The studio: what is chosen, what the server is asked about it, and what its answers change.
import { blindIn } from "./abx.mjs";
import { axesOf } from "./axes.mjs";
import { boxOf, boxSaid } from "./box.mjs";
import { colourFilters, colourScale } from "./colour.mjs";
import { $, make, say } from "./dom.mjs";
import { gridIn } from "./grid.mjs";
import { listen } from "./keys.mjs";
import { lineTo, samplesOf } from "./link.mjs";
import { momentsIn, searchSaid } from "./moments.mjs";
import { described } from "./order.mjs";
import { plot } from "./plot.mjs";
import { scalingOf } from "./sets.mjs";
import { player } from "./sound.mjs";
import { showOutline, showSaid } from "./strip.mjs";
import { percent } from "./text.mjs";
import { addressOf, viewOf } from "./view.mjs";

const SOURCES = ["song", "original", "left", "other"];
const state = {
  network: null, song: null, start: 0, seconds: null, layer: null, sort: "effect", asked: 0, feature: 0, source: "left", repeat: true, shared: true, box: null, versus: "",
  ...viewOf(location.hash), starred: false, group: false, open: new Set(),
};
let steps = []; // names of networks that are checkpoints of one run, in the order of training
let facts = null; // of the network, with what else was said of it
let song = null; // its seconds, samples and the points of its answer
let loop = null; // the stretch that was heard: where, its samples, prediction, and what is left of it
let rows = []; // of the layer
let other = null; // the network that is compared: its labels, rows, pictures, what it says, and its sound
let late = null; // the one before it, which stands there until it answers
let [plots, grid, pictures] = [null, null, []];
const turns = { network: 0, song: 0, loop: 0, box: 0, moments: 0, versus: 0, page: 0 };
const waits = new Map(); // what is being computed, and is said so

// Saying.
const wait = (what, text) => {
  if (text) waits.set(what, text);
  else waits.delete(what);
  $("waiting").textContent = [...waits.values()].join(" · ");
};
const complain = (text) => {
  Object.assign($("wrong"), { hidden: !text, textContent: text });
};
const keepAddress = () => {
  if (facts && loop) history.replaceState(null, "", `#${addressOf({ ...state, seconds: state.seconds ?? facts.clip })}`);
};

// Marks: favourites and notes, which the server keeps.
let marks = {};
const placeOf = (feature) => [facts.id, state.song, state.layer, feature];
const markOf = (feature) => marks[JSON.stringify(placeOf(feature))] ?? { favourite: false, note: "" };
const setMark = (change) => {
  if (!rows.length) return;
  const [place, mark] = [placeOf(state.feature), { ...markOf(state.feature), ...change }];
  marks[JSON.stringify(place)] = mark;
  ask("mark", { place, mark });
};
const showKept = ({ count, file, kept }) => {
  const where = !file ? "kept until the studio ends: begin it with --notes=FILE to keep them" : kept ? "kept in the file of notes" : "not all of it is in the file of notes";
  $("kept").textContent = `${count} marked; ${where}`;
};
const showMark = () => {
  const { favourite, note } = markOf(state.feature);
  $("favourite").ariaPressed = favourite;
  $("favourite").firstElementChild.textContent = favourite ? "★" : "☆";
  if ($("note").value !== note && document.activeElement !== $("note")) $("note").value = note;
};

// Asking.
let [setting, again, asked] = ["", false, 0];
const askLoop = () => {
  if (!facts || !song) return;
  alone();
  [setting, again] = ["", false];
  wait("loop", "Hearing the loop …");
  turns.loop = ask("loop", { start: state.start, seconds: state.seconds, layer: state.layer, scales: scales() });
};
// The same by another network: "twin", or "=" and its name.
const askVersus = () => {
  alone(true);
  if (!rows.length) return;
  const name = state.versus.startsWith("=") ? state.versus.slice(1) : null;
  wait("versus", state.versus && "Asking the other network …");
  turns.versus = ask("versus", { name, twin: state.versus === "twin" });
};
// Nothing stands beside this network, until it is there again.
const alone = (heard = false) => {
  blind.changed();
  late = heard && state.versus ? other ?? late : null;
  [other, turns.versus] = [null, 0];
  wait("versus");
  if (state.source === "other" && !(heard && state.versus)) hear("left");
  showVersus();
  showBeside();
};
const askSong = (key) => {
  Object.assign(state, { song: key });
  if ($("song-choice").value !== key) $("song-choice").value = key;
  [song, loop, rows] = [null, null, []];
  alone();
  sounds.stop(0);
  wait("loop");
  wait("said");
  wait("song", "Reading the song …");
  if (search.everywhere === false) forget();
  turns.song = ask("song", { key });
};
const askNetwork = (name) => {
  for (const what of ["loop", "said", "song"]) wait(what);
  forget();
  wait("network", `Opening ${name} …`);
  Object.assign(state, { network: name });
  turns.network = ask("network", { name });
};
const scales = () => scalingOf(Math.max(facts.layers[state.layer].maps, other?.rows.length ?? 0), state.muted, state.alone, state.faders);
// What responded in the box, once the layer is there.
const askBox = () => {
  if (!state.box || !rows.length) return;
  turns.box = ask("box", state.box);
};
// When the chosen feature responds most: in this song, or everywhere.
const search = { everywhere: null, found: [] };
const askMoments = (everywhere) => {
  Object.assign(search, { everywhere, found: [], layer: state.layer });
  $("search-stop").hidden = false;
  moments.clear();
  turns.moments = ask("moments", { layer: state.layer, feature: state.feature, everywhere });
};
const endSearch = (text = "") => {
  $("search-stop").hidden = true;
  if (text !== null) $("moments-facts").textContent = text;
};
const forget = () => {
  if (search.everywhere !== null) ask("stop");
  Object.assign(search, { everywhere: null, found: [] });
  turns.moments = 0;
  moments.clear();
  plots?.whole.pin([]);
  endSearch();
};
// One question at a time: while one is under way, the last that was asked meanwhile waits.
const askSet = () => {
  keepAddress();
  blind.changed();
  if (!rows.length) return;
  if (setting) {
    again = true;
    return;
  }
  [setting, again, asked] = ["asked", false, performance.now()];
  ask("set", { scales: scales() });
};

// Sound.
// As much of a sound as is looped; silence where there is none yet.
const cut = (samples) => {
  const count = Math.max(1, Math.round(loopLength() * facts.rate));
  return samples ? samples.slice(0, count) : new Float32Array(count);
};
const loopLength = () => Math.min(state.seconds, loop?.seconds ?? state.seconds);
const sounds = player({
  duration: () => (state.source === "song" ? song?.seconds ?? 0.1 : loopLength() || 0.1),
  loop: () => state.repeat,
  gains: () => (state.source === "song" ? [1] : [state.source === "original" ? 1 : 0, ...blind.gains({ left: "a", other: "b" }[state.source] ?? state.source)]),
  load: async () => {
    if (state.source === "song") {
      if (!song?.samples) throw new Error("the song is not there yet");
      return [sounds.made(song.samples, facts.rate)];
    }
    if (!loop) throw new Error("the loop is not there yet");
    return [loop.samples, loop.left, ...(other ? [other.left] : [])].map((samples) => sounds.made(cut(samples), facts.rate));
  },
  changed: () => showPlaying(),
  failed: (error) => {
    say(`This cannot be played: ${error.message}`);
    $("time").textContent = "cannot be played";
  },
});
const songPosition = () => (state.source === "song" ? sounds.position() : (loop?.start ?? state.start) + sounds.position());
const seekTo = (second) => {
  if (state.source !== "song" && loop && second >= loop.start && second <= loop.start + loopLength()) sounds.seek(second - loop.start);
  else {
    hear("song", false);
    sounds.seek(second);
  }
  showTime();
};
const hear = (source, keep = true) => {
  if (source === state.source) return sounds.hear(); // in a blind test X may be another by now
  const [was, place] = [sounds.playing(), songPosition()];
  const other = (source === "song") !== (state.source === "song"); // another length, not only other gains
  if (other) sounds.stop(0);
  state.source = source;
  for (const input of document.getElementsByName("source")) input.checked = input.value === source;
  if (!other) sounds.hear();
  else {
    const from = source === "song" ? place : place - (loop?.start ?? 0);
    sounds.stop(keep && from >= 0 && (source === "song" || from < loopLength()) ? from : 0);
    if (was) sounds.start();
  }
  showPlaying();
  say({ song: "The whole song", original: "The loop as it is", left: "What is left", other: "What is left for the other network", a: "A", b: "B", x: "X" }[source]);
};

const parts = { start: "abx-start", count: "abx-count", box: "abx", where: "abx-where", score: "abx-score", a: "abx-a", b: "abx-b", x: "abx-x", isA: "abx-is-a", isB: "abx-is-b", end: "abx-end" };
const blind = blindIn(Object.fromEntries(Object.entries(parts).map(([name, id]) => [name, $(id)])), {
  sounds: () => (loop?.left && other?.left ? [cut(loop.left), cut(other.left)] : null),
  hear: (which) => {
    hear(which ?? "left");
    if (which && !sounds.playing()) sounds.start();
  },
  say,
});

// Showing.
const showTime = () => {
  const now = songPosition();
  $("seek").max = state.source === "song" ? song?.seconds ?? 1 : loopLength() || 1;
  $("seek").value = sounds.position();
  $("seek").setAttribute("aria-valuetext", `${now.toFixed(1)} seconds of the song`);
  $("time").textContent = `${now.toFixed(2)} s`;
  plots?.whole.follow(song ? Math.min(1, now / song.seconds) : 0);
  for (const each of plots ? [plots.loop, plots.feature] : []) each.follow(loop ? (now - loop.start) / loop.seconds : 0);
};
const tick = () => {
  showTime();
  if (sounds.playing()) requestAnimationFrame(tick);
};
const showPlaying = () => {
  Object.assign($("play"), { ariaPressed: sounds.playing(), ariaLabel: sounds.playing() ? "Pause" : "Play" });
  if (sounds.playing()) requestAnimationFrame(tick);
  else if (facts) showTime();
};
const showLoop = (from = state.start, seconds = state.seconds) => {
  $("loop-start").value = from.toFixed(2);
  $("loop-seconds").value = seconds.toFixed(2);
  plots.whole.choose([from], [from + seconds]);
  if (state.box) plots.loop.choose(...[0, 1].map((k) => [state.box.seconds[k], state.box.hertz[k]]));
  else plots.loop.choose(...(loop && loop.seconds - seconds > 0.01 ? [[loop.start], [loop.start + seconds]].map(([t]) => [t - loop.start]) : [null]));
  const heard = Math.min(facts.most, Math.max(1, Math.ceil(seconds / facts.clip - 1e-6))) * facts.clip;
  $("loop-facts").textContent = `The network hears ${+heard.toFixed(2)} s from there on.`;
};
const drop = (level) => (state.shared ? Math.min(facts.range, Math.round(-level)) : 0);
const showAnswer = (says, before) => {
  const likely = facts.labels.map((label, k) => [label, k]).sort((a, b) => before[b[1]] - before[a[1]]).slice(0, 12);
  const best = Math.max(...says);
  if (facts.labels.length <= 12) likely.sort((a, b) => a[1] - b[1]);
  $("answer").replaceChildren(...likely.map(([label, k]) => make("div", { className: `bar${says[k] === best ? " own" : ""}` },
    make("span", { className: "name", textContent: label }), make("progress", { value: says[k], ariaHidden: "true" }),
    make("span", { className: "value" }, percent(says[k]), make("small", { textContent: ` was ${percent(before[k])}` })))));
  const top = says.indexOf(best);
  $("mini").textContent = `${facts.labels[top]} ${percent(best)}`;
};
const whole = () => !state.muted.size && !state.alone.size && !state.faders.size;
const showMixed = () => {
  for (const card of $("grid").querySelectorAll(".card")) {
    const f = Number(card.dataset.feature);
    card.classList.toggle("out", state.muted.has(f) || (state.alone.size > 0 && !state.alone.has(f)));
    card.classList.toggle("alone", state.alone.has(f));
    const [solo, mute, fader] = card.parentElement.querySelectorAll(".mix > *");
    Object.assign(solo, { ariaPressed: state.alone.has(f) });
    Object.assign(mute, { ariaPressed: state.muted.has(f) });
    fader.value = 100 * (state.faders.get(f) ?? 1);
  }
  $("reset").disabled = whole();
};
const showGrid = () => {
  if (!grid) return;
  grid.show();
  showMixed();
};
const showFeature = () => {
  const r = rows.find((o) => o.feature === state.feature);
  if (!r) return;
  showMark();
  showOther();
  $("feature-title").textContent = `Feature ${r.feature} of layer ${state.layer}`;
  plots.feature.show({ address: pictures[r.feature], title: r.inactive ? "inactive" : "What it responded to", label: `Picture of feature ${r.feature}`,
    down: drop(r.level), length: loop.seconds, nothing: r.inactive ? "Inactive: no part of the loop activates it." : "" });
};
const pending = () => rows.some((r) => r.effects[0] === null); // effects that are not there yet
const showSummary = () => {
  const acting = rows.filter((r) => !r.inactive).length;
  $("summary").textContent = rows.length ? `${acting} of ${rows.length} features are active in the loop.${pending() ? " Their effects are being computed; until then by energy." : ""}` : "";
};
const named = () => (state.versus === "twin" ? `${state.network}, untrained` : state.versus.slice(1));
// Of one run a number is the same feature, whatever the step.
const kin = (name) => steps.includes(name) && steps.includes(state.network);
// The grid's picture of a feature and what is known of it: this network's, or that of another step of its training.
const pictured = (r) => {
  const there = other ?? late;
  return $("grid-other").checked && there?.kin ? [there.rows[r.feature], there.pictures[r.feature]] : [r, pictures[r.feature]];
};
const showBeside = () => {
  if ($("grid-other").checked && rows.length) showGrid();
};
// The notches of the training; before one is compared it stands at this network's own.
const showSteps = () => {
  const at = steps.indexOf(state.versus.slice(1));
  const text = steps[at] ?? "move it to compare";
  $("step").closest("p").hidden = steps.length < 2;
  Object.assign($("step"), { max: Math.max(0, steps.length - 1), value: at < 0 ? steps.indexOf(state.network) : at, ariaValueText: text });
  $("step-name").textContent = text;
};
const showVersus = () => {
  showSteps();
  $("versus").value = state.versus;
  for (const element of document.querySelectorAll(".compared")) {
    element.hidden = !other && !late;
    element.ariaBusy = !other;
  }
  const same = kin(state.versus.slice(1));
  $("grid-other").closest("p").hidden = !same;
  $("other-source").hidden = !state.versus;
  if (!other) return;
  $("versus-facts").textContent = `A is ${state.network}, B is ${named()}; both have the faders as they stand. ` +
    (same ? "Of one run, a number is the same feature at both steps." : "Features of the two do not correspond: the same number is another feature.");
  const said = other.says ?? other.before;
  const likely = said.map((p, k) => [p, k]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  $("other-answer").replaceChildren(...likely.map(([p, k], n) => make("div", { className: `bar${n ? "" : " own"}` },
    make("span", { className: "name", textContent: other.labels[k] }), make("progress", { value: p, ariaHidden: "true" }),
    make("span", { className: "value" }, percent(p), make("small", { textContent: ` was ${percent(other.before[k])}` })))));
  showOther();
};
const showOther = () => {
  const r = other?.rows[state.feature];
  if (!other) return;
  plots.other.show({ address: other.pictures[state.feature] ?? "data:,", title: `B: feature ${state.feature}`, label: `Picture of B's feature ${state.feature}`, down: drop(r?.level ?? 0), length: other.seconds,
    nothing: !r ? "B has no feature of this number." : r.inactive ? "Inactive: no part of the loop activates it." : "" });
};
const showChoices = (networks) => {
  const options = networks.filter((name) => name !== state.network || steps.includes(name)).map((name) => make("option", { value: `=${name}`, textContent: name }));
  $("versus").replaceChildren(make("option", { value: "", textContent: "nothing" }), make("option", { value: "twin", textContent: "its untrained twin" }), ...options);
  if (![...$("versus").options].some((option) => option.value === state.versus)) state.versus = "";
  $("step-marks").replaceChildren(...steps.map((_, n) => make("option", { value: n })));
  $("steps-kept").textContent = !steps.length ? "" : `Of this run ${steps.length === 1 ? "one checkpoint is" : `${steps.length} checkpoints are`} there` +
    (steps.length > 2 ? "." : `: ${steps.join("; ")}. bin/train keeps the best and the last; with --config.train.keep_all=True it keeps those of every validation.`);
  showVersus();
};
const showBox = () => {
  const { seconds, hertz } = state.box ?? { seconds: ["", ""], hertz: ["", ""] };
  [0, 1].forEach((k) => {
    $(`box-t${k}`).value = state.box ? seconds[k].toFixed(2) : "";
    $(`box-f${k}`).value = state.box ? hertz[k].toFixed(0) : "";
  });
  $("box-clear").disabled = !state.box;
  for (const option of $("sort").options) if (option.value === "ratio") option.disabled = !state.box;
  if (!state.box) $("box-facts").textContent = "Drag a box on the loop's spectrogram, or type one: the features that respond there come first.";
  $("sort").value = state.sort;
};
const showTabs = () => {
  $("tabs").replaceChildren(...Object.keys(facts.layers).map(Number).map((layer) => {
    const mine = layer === state.layer;
    const tab = make("button", { type: "button", role: "tab", textContent: `Layer ${layer}`, tabIndex: mine ? 0 : -1, ariaSelected: mine, onclick: () => chooseLayer(layer) });
    tab.setAttribute("aria-controls", "grid");
    return tab;
  }));
};
const showSongs = (songs) => {
  const groups = Map.groupBy ? Map.groupBy(songs, (s) => s.group) : songs.reduce((all, s) => all.set(s.group, [...(all.get(s.group) ?? []), s]), new Map());
  $("song-choice").replaceChildren(...Array.from(groups, ([group, some]) =>
    make("optgroup", { label: group }, ...some.map((s) => make("option", { value: s.key, textContent: s.name })))));
  if (state.song) $("song-choice").value = state.song;
};

// Choosing.
const chooseLoop = (start, seconds, done = true) => {
  const most = facts.most * facts.clip;
  state.seconds = Math.min(most, Math.max(0.2, seconds));
  state.start = Math.max(0, Math.min(start, (song?.seconds ?? 0) - 0.1));
  if (done) chooseBox(null, false);
  showLoop();
  if (!done) return;
  keepAddress();
  askLoop();
};
// A box on the loop, or none any more; `tell`: the server and the address are told.
const chooseBox = (box, tell = true) => {
  state.box = box;
  if (!box && state.sort === "ratio") state.sort = "effect";
  if (box && tell) state.sort = "ratio";
  turns.box = 0;
  showBox();
  if (facts && song) showLoop();
  if (!tell) return;
  keepAddress();
  if (box) askBox();
  else showGrid();
};
const jump = (key, second) => {
  complain("");
  const start = Math.max(0, second - state.seconds / 2);
  if (key === state.song) return chooseLoop(start, state.seconds);
  Object.assign(state, { start });
  chooseBox(null, false);
  askSong(key);
};
const chooseLayer = (layer) => {
  if (layer === state.layer) return;
  Object.assign(state, { layer, feature: 0 });
  reset(false);
  [rows, pictures] = [[], []];
  showTabs();
  showGrid();
  askLoop();
  say(`Layer ${layer}`);
};
const changed = () => {
  showMixed();
  askSet();
};
const reset = (tell = true) => {
  for (const some of [state.muted, state.alone, state.faders]) some.clear();
  if (tell) changed();
};
const turn = (set, feature) => {
  if (!set.delete(feature)) set.add(feature);
  changed();
  const word = set === state.muted ? "muted" : "alone";
  say(`Feature ${feature} ${set.has(feature) ? word : `not ${word} any more`}`);
};
const chosen = (feature, pressed, event) => {
  const other = feature !== state.feature;
  state.feature = feature;
  grid.mark();
  showFeature();
  if (other && search.everywhere !== null) askMoments(search.everywhere);
  if (pressed) turn(event?.shiftKey ? state.muted : state.alone, feature);
  else if (other) say(described(rows.find((r) => r.feature === feature), false, state.asked, facts.labels[state.asked]));
};
const mixer = (r) => {
  const knob = (letter, what, set) => make("button", { type: "button", className: "switch", textContent: letter, title: what, ariaLabel: `${what} feature ${r.feature}`, onclick: () => turn(set, r.feature) });
  const fader = make("input", { type: "range", min: 0, max: 100, step: 1, ariaLabel: `Level of feature ${r.feature}, percent` });
  fader.addEventListener("input", () => {
    if (Number(fader.value) === 100) state.faders.delete(r.feature);
    else state.faders.set(r.feature, Number(fader.value) / 100);
    $("reset").disabled = whole();
    askSet();
  });
  return make("div", { className: "mix" }, knob("S", "Solo", state.alone), knob("M", "Mute", state.muted), fader);
};

// What the server says.
const blobs = new Map(); // pictures by what they show; an earlier one is let go
const held = (what, bytes) => {
  if (blobs.has(what)) URL.revokeObjectURL(blobs.get(what));
  blobs.set(what, URL.createObjectURL(new Blob([bytes], { type: "image/png" })));
  return blobs.get(what);
};
const newNetwork = (m) => {
  facts = { ...m.facts, name: m.name, clip: m.clip, most: m.most };
  wait("network");
  const filter = colourFilters(colourScale(facts.colours), facts.level);
  const axes = axesOf(facts.frequencies, facts.rows === "bins");
  const how = { axes, axis: () => "linear", filter, step: facts.level, range: facts.range };
  for (const id of ["whole-plot", "loop-plot", "feature-plot", "other-plot"]) $(id).replaceChildren();
  plots = {
    whole: plot($("whole-plot"), { ...how, seek: seekTo, drag: ([a], [b], done) => chooseLoop(Math.min(a, b), Math.abs(b - a), done) }),
    loop: plot($("loop-plot"), { ...how, seek: (t) => loop && seekTo(loop.start + t), drag: (from, to, done) => {
      if (!loop) return;
      if (done) chooseBox(boxOf(from, to));
      else plots.loop.choose(from, to);
    } }),
    other: plot($("other-plot"), { ...how, seek: (t) => loop && seekTo(loop.start + t) }),
    feature: plot($("feature-plot"), { ...how, seek: (t) => loop && seekTo(loop.start + t) }),
  };
  state.seconds ??= facts.clip;
  if (!facts.layers[state.layer]) state.layer = Math.max(...Object.keys(facts.layers).map(Number));
  grid = gridIn($("grid"), {
    state: Object.create(state, { sort: { get: () => ((state.sort === "effect" && pending()) || (state.sort === "ratio" && rows[0]?.ratio === undefined) ? "energy_share" : state.sort) } }),
    labels: facts.labels, rows: () => rows, starred: (feature) => markOf(feature).favourite, chosen, under: mixer,
    picture: (r) => {
      const [shown, src] = pictured(r);
      if (shown.inactive) return null;
      const image = make("img", { alt: "", decoding: "async", src });
      image.style.filter = filter(drop(shown.level));
      return image;
    },
  });
  $("asked").replaceChildren(...facts.labels.map((label, k) => make("option", { value: k, textContent: label })));
  $("card").textContent = m.card.what ? `From its card: ${m.card.what}. ${m.card.not_for}` : m.about.map(([term, text]) => `${term}: ${text}`).join(". ");
  $("network-choice").value = m.name;
  showChoices([...$("network-choice").options].map((option) => option.value));
  showTabs();
  if (state.song) askSong(state.song);
};
const newSong = (m) => {
  if (m.turn !== turns.song) return;
  const first = !song;
  song = { seconds: m.seconds, samples: song?.samples ?? null, points: song?.points ?? [] };
  $("song-name").textContent = m.name;
  document.title = `${m.name}: studio`;
  $("song-facts").textContent = m.whole ? `${m.seconds.toFixed(1)} s, heard by ${state.network}` : "The beginning; the rest is being read.";
  showOutline($("outline").firstElementChild, m.peaks);
  if (m.whole) {
    wait("song");
    wait("said", "Hearing the whole song …");
  }
  if (!first) return showLoop();
  if (state.start + 0.2 > song.seconds) state.start = m.whole ? 0 : state.start;
  showLoop();
  if (state.start + state.seconds <= song.seconds || m.whole) askLoop(); // a loop further on waits for the rest
  else song = null;
};
const on = {
  choices: (m) => {
    complain("");
    wait("line");
    steps = m.steps;
    $("network-choice").replaceChildren(...m.networks.map((name) => make("option", { value: name, textContent: name })));
    showSongs(m.songs);
    marks = m.marks;
    showKept(m);
    state.song = m.songs.some((s) => s.key === state.song) ? state.song : m.songs[0]?.key ?? null;
    askNetwork(m.networks.includes(state.network) ? state.network : m.networks[0]);
  },
  songs: (m) => showSongs(m.songs),
  marked: showKept,
  // Another window marked a feature.
  mark: (m) => {
    marks[JSON.stringify(m.place)] = m.mark;
    showKept(m);
    if (!facts) return;
    showMark();
    showGrid();
  },
  page: (m) => {
    if (m.turn !== turns.page) return;
    wait("page", m.address ? "" : "Making a page of this …");
    if (!m.address) return;
    Object.assign($("page-link"), { hidden: false, href: m.address });
    $("page-facts").textContent = `It lies in ${m.folder}; of pages the newest 40 are kept.`;
    say("The page is made");
  },
  network: (m) => m.turn === turns.network && newNetwork(m),
  song: newSong,
  picture: (m, bytes) => {
    if (m.turn !== turns.song) return;
    plots.whole.show({ address: held("whole", bytes), title: "Spectrogram", label: "Spectrogram of the whole song", length: song.seconds,
      moments: search.found.filter((one) => one.key === state.song).map((one) => one.second) });
    showLoop();
  },
  sound: (m, bytes) => {
    if (m.turn === turns.song) song.samples = samplesOf(bytes);
  },
  said: (m) => {
    if (m.turn !== turns.song) return;
    if (m.says) song.points.push([m.second, m.says]);
    wait("said", m.share < 1 ? `Hearing the whole song: ${Math.round(100 * m.share)} %` : "");
    if (!m.says || song.points.length % 4 === 1) showSaid($("said").firstElementChild, $("said-legend"), song.points, facts.labels, song.seconds, facts.clip / 2);
  },
  stretch: (m, bytes) => {
    if (m.turn !== turns.loop) return;
    loop = { start: m.start, seconds: m.seconds, samples: samplesOf(bytes), left: loop?.left ?? null, before: facts.labels.map((label) => m.prediction[label]) };
    state.asked = m.target;
    $("asked").value = m.target;
    showLoop();
    showAnswer(loop.before, loop.before);
    $("answer-facts").textContent = "With all features.";
    wait("loop", "Explaining the layer …");
  },
  "stretch picture": (m, bytes) => {
    if (m.turn !== turns.loop) return;
    plots.loop.show({ address: held("loop", bytes), title: "Spectrogram", label: "Spectrogram of the loop", length: m.seconds });
    showLoop();
  },
  layer: (m, bytes) => {
    if (m.turn !== turns.loop) return;
    let at = 0;
    pictures = m.pictures.map((size, f) => held(`feature ${f}`, bytes.slice(at, at += size)));
    rows = m.features.map((r) => ({ ...r, effects: facts.labels.map(() => null) }));
    if (!rows[state.feature]) state.feature = 0;
    wait("loop", "Computing what each feature does for the answer …");
    showGrid();
    showFeature();
    showSummary();
    askBox();
    if (state.versus) askVersus();
    if (search.everywhere !== null && search.layer !== state.layer) askMoments(search.everywhere);
  },
  other: (m, bytes) => {
    if (m.turn !== turns.versus) return;
    let at = 0;
    other = { kin: kin(state.versus.slice(1)), labels: m.labels, rows: m.features, before: m.before, seconds: m.seconds, says: null, left: null,
      pictures: m.pictures.map((size, f) => held(`other ${f}`, bytes.slice(at, at += size))) };
    late = null;
    showVersus();
    showBeside();
    if (other.rows.length > rows.length && !whole()) askSet(); // its own number of faders
  },
  "other answer": (m) => {
    if (!other || m.turn < turns.versus) return;
    other.says = m.says;
    $("other-answer").dataset.says = JSON.stringify(m.says);
    showVersus();
  },
  "other left": (m, bytes) => {
    if (!other || m.turn < turns.versus) return;
    wait("versus");
    blind.changed();
    other.left = samplesOf(bytes);
    if (sounds.playing() && state.source !== "song") sounds.start();
  },
  box: (m) => {
    if (m.turn !== turns.box) return;
    m.ratios.forEach((ratio, f) => { rows[f].ratio = ratio; });
    $("box-facts").textContent = boxSaid(m, state.box).join(" ");
    showGrid();
  },
  moments: (m) => {
    if (m.turn !== turns.moments) return;
    $("moments-facts").textContent = searchSaid(m);
    if (m.found) {
      search.found = m.found;
      moments.show(m.found);
      plots.whole.pin(m.found.filter((one) => one.key === state.song).map((one) => one.second));
    }
    if (m.done === m.of) endSearch(null);
  },
  effects: (m) => {
    if (m.turn !== turns.loop) return;
    m.features.forEach((f, n) => { rows[f].effects = m.changes[n]; });
    if (pending()) return;
    wait("loop");
    showGrid();
    showSummary();
  },
  answer: (m) => {
    if (m.turn < turns.loop || !loop) return;
    if (setting) $("answer-facts").dataset.took = Math.round(performance.now() - asked);
    setting = "";
    showAnswer(m.says, loop.before);
    const taken = Number($("answer-facts").dataset.took ?? m.ms);
    $("answer-facts").textContent = whole() ? "With all features." : `With layer ${m.layer}'s maps scaled as the faders stand; answered in ${Math.round(taken)} ms.`;
    Object.assign($("answer-facts").dataset, { says: JSON.stringify(m.says), ms: m.ms });
    if (again) askSet();
  },
  left: (m, bytes) => {
    if (m.turn < turns.loop || !loop) return;
    loop.left = samplesOf(bytes);
    if (sounds.playing() && state.source !== "song") sounds.start();
    keepAddress();
  },
  wrong: (m) => {
    complain(m.text);
    [setting, again] = ["", false];
    const of = Object.keys(turns).find((what) => m.turn && turns[what] === m.turn);
    for (const what of m.turn ? [of ?? ""] : ["network", "song", "loop", "versus", "page"]) wait(what);
    if (of === "versus") {
      state.versus = "";
      alone();
    }
    if (of === "moments") forget();
    // A network that cannot be had: the one before it stays.
    if (of === "network" && facts && facts.name !== state.network) askNetwork(facts.name);
  },
};
const ask = lineTo(new URL("talk", location.href.replace(/^http/, "ws").replace(/#.*/, "")), {
  heard: (message, bytes) => on[message.kind]?.(message, bytes),
  opened: () => wait("line"),
  lost: () => {
    waits.clear();
    wait("line", "The studio does not answer: is bin/studio still running? It is tried again …");
  },
});

// Dropping a song.
const send = (file) => {
  const request = new XMLHttpRequest();
  request.open("POST", `drop?name=${encodeURIComponent(file.name)}`);
  request.upload.onprogress = (event) => wait("drop", `Sending ${file.name}: ${Math.round((100 * event.loaded) / event.total)} %`);
  request.onloadend = () => {
    wait("drop");
    let found = {};
    try {
      found = JSON.parse(request.responseText);
    } catch {
      found = { wrong: `${file.name}: could not be sent` };
    }
    if (found.wrong) return complain(found.wrong);
    complain("");
    Object.assign(state, { start: 0, seconds: facts?.clip ?? state.seconds });
    askSong(found.key);
  };
  wait("drop", `Sending ${file.name} …`);
  request.send(file);
};
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", name === "dragenter" || name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
}

// Controls.
const to = (id, name, then) => $(id).addEventListener(name, then);
to("file", "change", () => { if ($("file").files[0]) send($("file").files[0]); });
to("network-choice", "change", () => {
  if (!kin($("network-choice").value)) {
    reset(false);
    Object.assign(state, { layer: null, seconds: null, feature: 0 });
  }
  [loop, rows, pictures] = [null, [], []];
  sounds.stop(0);
  complain("");
  askNetwork($("network-choice").value);
});
to("song-choice", "change", () => {
  complain("");
  Object.assign(state, { start: 0, seconds: facts.clip });
  askSong($("song-choice").value);
});
for (const id of ["loop-start", "loop-seconds"]) to(id, "change", () => chooseLoop(Number($("loop-start").value), Number($("loop-seconds").value)));
$("sort").value = state.sort;
to("sort", "change", () => { state.sort = $("sort").value; keepAddress(); showGrid(); });
to("asked", "change", () => { state.asked = Number($("asked").value); showGrid(); });
to("shared", "change", () => { state.shared = $("shared").checked; showGrid(); showFeature(); });
to("reset", "click", () => reset());
for (const id of ["box-t0", "box-t1", "box-f0", "box-f1"]) {
  to(id, "change", () => {
    const [t0, t1, f0, f1] = ["t0", "t1", "f0", "f1"].map((part) => $(`box-${part}`)).map((input) => (input.value === "" ? NaN : Number(input.value)));
    if ([t0, t1, f0, f1].every((value) => value >= 0)) chooseBox(boxOf([t0, f0], [t1, f1]));
  });
}
to("box-clear", "click", () => chooseBox(null));
const versus = (value) => {
  state.versus = value;
  complain("");
  keepAddress();
  askVersus();
};
// What is left, as far as a page can hold it: features that are out are left out of it.
to("page-make", "click", () => {
  if (!rows.length) return;
  const left = scales().map((value, f) => [value, f]).filter(([value, f]) => value > 0 && f < rows.length).map(([, f]) => f);
  complain("");
  $("page-link").hidden = true;
  $("page-facts").textContent = "";
  if (!left.length) return complain("No feature is left to make a page of.");
  turns.page = ask("page", { features: left.length < rows.length ? left : null, why: $("page-why").checked });
});
to("versus", "change", () => versus($("versus").value));
to("step", "input", () => versus(`=${steps[Number($("step").value)]}`));
to("grid-other", "change", showGrid);
const moments = momentsIn($("moments"), { here: () => state.song, jump });
to("search-song", "click", () => rows.length && askMoments(false));
to("search-all", "click", () => rows.length && askMoments(true));
to("search-stop", "click", () => { ask("stop"); turns.moments = 0; search.everywhere = null; endSearch("Stopped."); });
showBox();
to("starred", "change", () => { state.starred = $("starred").checked; showGrid(); });
const favourite = () => {
  setMark({ favourite: !markOf(state.feature).favourite });
  showMark();
  showGrid();
  say(`Feature ${state.feature} is ${markOf(state.feature).favourite ? "" : "not "}a favourite`);
};
to("favourite", "click", favourite);
to("note", "input", () => setMark({ note: $("note").value }));
to("tabs", "keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const layers = Object.keys(facts.layers).map(Number);
  chooseLayer(layers.at((layers.indexOf(state.layer) + step) % layers.length));
  $("tabs").querySelector('[aria-selected="true"]').focus();
});
to("play", "click", sounds.toggle);
for (const input of document.getElementsByName("source")) input.addEventListener("change", () => { blind.changed(); hear(input.value); });
to("seek", "input", () => { sounds.seek(Number($("seek").value)); showTime(); });
const repeat = (go) => {
  sounds.repeat(go);
  state.repeat = go;
  $("loop").checked = go;
};
to("loop", "change", () => repeat($("loop").checked));
listen({
  toggle: sounds.toggle,
  move: (key) => grid?.move(key),
  hear: (number) => {
    if (SOURCES[number] === "other" && !other) return;
    if (SOURCES[number] === "left" || SOURCES[number] === "other") blind.changed();
    if (SOURCES[number]) hear(SOURCES[number]);
  },
  solo: () => rows.length && turn(state.alone, state.feature),
  mute: () => rows.length && turn(state.muted, state.feature),
  repeat: () => repeat(!state.repeat),
  favourite,
  note: () => { $("note").focus(); $("note").scrollIntoView({ block: "nearest" }); },
  a: () => blind.listen("a"),
  b: () => blind.listen("b"),
  x: () => blind.listen("x"),
  leave: () => grid?.focus(),
});
