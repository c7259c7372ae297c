// The listening page: what is chosen, and what each control does with it.
import { askIn } from "./ask.mjs";
import { axesOf } from "./axes.mjs";
import { colourFilters, colourScale } from "./colour.mjs";
import { stemOf, written } from "./data.mjs";
import { $, make, say } from "./dom.mjs";
import { showFeature } from "./feature.mjs";
import { gridIn } from "./grid.mjs";
import { listen } from "./keys.mjs";
import { shelf } from "./marks.mjs";
import { better, described, summaryOf } from "./order.mjs";
import { plot } from "./plot.mjs";
import { addTo, asLoudAs, leftOf } from "./sets.mjs";
import { player } from "./sound.mjs";
import { percent } from "./text.mjs";
import { whyIn } from "./why.mjs";

const SOURCES = ["original", "feature", "rest", "untrained"];
const { network, clips, picture, sound } = written();
const kept = shelf(`deconv_jax/${network.id}`, (text) => { $("kept").textContent = text; });

const byDefault = clips[0].by === "effect" ? "effect" : "energy_share";
// What is chosen: what the browser remembers, and what begins anew; a page made by another order begins in that.
const recalled = () => {
  const settings = kept.recall("settings", {});
  return settings.byDefault === byDefault ? settings : { ...settings, sort: byDefault, byDefault };
};
const state = {
  sort: byDefault, group: true, shared: true, axis: "linear", loop: true, byDefault, ...recalled(),
  clip: 0, asked: 0, muted: new Set(), alone: new Set(), taken: 0, which: "muted", feature: null, starred: false, source: "feature", open: new Set(),
};
const keepSettings = ({ layer, sort, byDefault: by, group, shared, axis, loop } = state) =>
  kept.keep("settings", { layer, sort, byDefault: by, group, shared, axis, loop });
const likeliest = (prediction) => network.labels.reduce((best, label, n) => (prediction[label] > prediction[network.labels[best]] ? n : best), 0);
const layersOf = (clip) => Object.keys(clip.layers).map(Number);
const clip = () => clips[state.clip];
const rowsOf = (index, layer) => clips[index].layers[layer]?.features ?? [];
const row = () => rowsOf(state.clip, state.layer).find((r) => r.feature === state.feature);
const markOf = (feature) => kept.markOf(clip().name, state.layer, feature);
const setMark = (change) => kept.setMark([clip().name, state.layer, state.feature], change);

// Pictures, sound and grid.
const filter = colourFilters(colourScale(network.colours), network.level);
const axes = axesOf(network.frequencies, network.rows === "bins");
const drop = (level) => (state.shared ? Math.min(network.range, Math.round(-level)) : 0);
const bar = $("scalebar").getContext("2d");
network.colours.forEach((colour, x) => { bar.fillStyle = colour; bar.fillRect(x, 0, 1, 1); });
const thumb = (index, r) => {
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", src: picture(index, stemOf(state.layer, r.feature)) });
  image.style.filter = filter(drop(r.level));
  return image;
};

// Whether what is to be heard is one sound by itself, and none of those that run together.
const alone = (source = state.source) => !SOURCES.includes(source);
const sounds = player({
  rate: network.rate,
  duration: () => clip().seconds,
  loop: () => state.loop,
  gains: () => (alone() ? [1] : SOURCES.map((source) => (source === state.source ? 1 : 0))),
  load: async () => {
    if (state.source === "left") return [await leftSound()];
    if (alone()) return [await sounds.decoded(`${state.clip}/${state.source}`, () => sound(state.clip, state.source))];
    const [index, stem, { rest }] = [state.clip, stemOf(state.layer, state.feature), row()];
    const [original, feature, untrained] = await Promise.all(["original", stem, `${stem}.untrained`].map((name) =>
      sounds.decoded(`${index}/${name}`, () => sound(index, name))));
    return [original, feature, sounds.mixed(original, feature, rest), untrained];
  },
  changed: () => showPlaying(),
  failed: (error) => {
    say(`This cannot be played: ${error.message}`);
    $("time").textContent = "cannot be played";
  },
});
// The sum of the images of what is left, in their own proportions, as loud as the original.
const leftSound = async () => {
  const [index, layer, rows] = [state.clip, state.layer, rowsOf(state.clip, state.layer)];
  const [left] = leftOf(rows, state.muted, state.alone);
  const had = (name) => sounds.decoded(`${index}/${name}`, () => sound(index, name));
  const original = await had("original");
  const mix = new Float32Array(original.length);
  for (const r of rows.filter((o) => left.includes(o.feature))) addTo(mix, (await had(stemOf(layer, r.feature))).getChannelData(0), r.weight);
  return sounds.made(asLoudAs(mix, original.getChannelData(0)), original.sampleRate);
};
const seek = (seconds) => {
  sounds.seek(seconds);
  showTime();
};
const [inputPlot, ...plots] = [["input-plot", () => "linear"], ["feature-plot", () => state.axis], ["twin-plot", () => state.axis]].map(([id, axis]) =>
  plot($(id), { axes, axis, filter, step: network.level, range: network.range, seek }));
const whyPlots = ["why-plot", "kept-plot"].map((id) => plot($(id), {
  axes, axis: () => "linear", filter, step: network.level, range: network.range, seek: (seconds) => seek(seconds + clip().why.start) }));
const whys = whyIn($("why"), {
  labels: network.labels, plots: whyPlots,
  address: (name) => picture(state.clip, `why/${name}`),
  playing: () => (sounds.playing() && state.source.startsWith("why/") ? state.source.slice(4) : ""),
  hear: (name) => {
    if (sounds.playing() && state.source === `why/${name}`) {
      sounds.toggle();
      return;
    }
    const { start, length } = clip().why;
    if (sounds.position() < start || sounds.position() > start + length - 0.1) sounds.stop(start);
    hear(`why/${name}`);
    if (!sounds.playing()) sounds.start();
    else showPlaying();
  },
});
const grid = gridIn($("grid"), {
  state,
  labels: network.labels,
  rows: () => rowsOf(state.clip, state.layer),
  starred: (feature) => markOf(feature).favourite,
  picture: (r) => (r.inactive ? null : thumb(state.clip, r)),
  chosen: (...how) => select(...how),
});

const ask = askIn($("ask"), {
  network, state, clip,
  rows: () => rowsOf(state.clip, state.layer),
  select: (feature) => select(feature, true),
  askFor: (asked) => {
    Object.assign(state, { asked });
    state.muted.clear();
    state.alone.clear();
    ask.show();
    showGrid();
    showChosen();
    if (sounds.playing() && state.source === "left") sounds.start();
    say(`Asked about ${network.labels[asked]}`);
  },
  changed: () => { if (sounds.playing() && state.source === "left") sounds.start(); },
  hear: () => {
    if (sounds.playing() && state.source === "left") sounds.toggle();
    else {
      hear("left");
      sounds.start();
    }
  },
});

// Showing.
const showTime = () => {
  const [now, end] = [sounds.position(), clip().seconds];
  $("seek").value = now;
  $("seek").setAttribute("aria-valuetext", `${now.toFixed(1)} of ${end.toFixed(1)} seconds`);
  $("time").textContent = `${now.toFixed(2)} / ${end.toFixed(2)} s`;
  for (const each of [inputPlot, ...plots]) each.follow(now / end);
  if (clip().why) for (const each of whyPlots) each.follow((now - clip().why.start) / clip().why.length);
};
const tick = () => {
  showTime();
  if (sounds.playing()) requestAnimationFrame(tick);
};
const markStems = () => {
  for (const button of $("stems").querySelectorAll("button")) button.ariaPressed = sounds.playing() && state.source === button.dataset.source;
};
const showPlaying = () => {
  Object.assign($("play"), { ariaPressed: sounds.playing(), ariaLabel: sounds.playing() ? "Pause" : "Play" });
  whys.mark();
  markStems();
  $("ask-hear").textContent = sounds.playing() && state.source === "left" ? "Pause" : "Hear what is left";
  $("input-play").textContent = sounds.playing() && state.source === "original" ? "Pause" : "Play the original";
  if (sounds.playing()) requestAnimationFrame(tick);
  else showTime();
};
const showGrid = () => {
  grid.show();
  $("summary").textContent = summaryOf(rowsOf(state.clip, state.layer), clip().layers[state.layer].chance, network.layers[state.layer].maps, clip().layers[state.layer].dissected);
};
const showScale = () => {
  $("scale-note").textContent = state.shared ? "0 dB: the loudest of each network's layer" : "0 dB: each picture's own loudest";
};
const showChosen = () => {
  showFeature({ network, clips, state, rowsOf, markOf, address: picture, thumb, drop, plots, top: axes.top, seek, select, choose, play });
  markStems();
  grid.mark();
  showScale();
  kept.show();
};
const showTabs = () => {
  $("tabs").replaceChildren(...layersOf(clip()).map((layer) => {
    const [mine, onclick] = [layer === state.layer, () => chooseLayer(layer)];
    const tab = make("button", { type: "button", role: "tab", textContent: `Layer ${layer}`, tabIndex: mine ? 0 : -1, ariaSelected: mine, onclick });
    tab.setAttribute("aria-controls", "detail");
    return tab;
  }));
};
const showPrediction = ({ prediction }) => {
  const best = Math.max(...Object.values(prediction));
  const likely = network.labels.length <= 12 ? network.labels : [...network.labels].sort((a, b) => prediction[b] - prediction[a]).slice(0, 10);
  $("prediction").replaceChildren(...likely.map((label) => make("div", { className: `bar${prediction[label] === best ? " own" : ""}` },
    make("span", { className: "name", textContent: label }), make("progress", { value: prediction[label], ariaHidden: "true" }),
    make("span", { className: "value", textContent: percent(prediction[label]) }))),
  ...(likely.length < network.labels.length ? [make("p", { className: "small muted", textContent: `The ${likely.length} likeliest of ${network.labels.length}.` })] : []));
};

// Choosing.
const select = (feature, pressed = false) => {
  if (feature === state.feature && !pressed) return;
  const changed = feature !== state.feature;
  if (changed) leaveStems();
  state.feature = feature;
  showChosen();
  say(described(row(), markOf(feature).favourite, state.asked, network.labels[state.asked]));
  if (changed && sounds.playing()) sounds.start();
  if (pressed && matchMedia("(max-width: 56rem)").matches) $("detail").scrollIntoView();
};
const firstOf = (layer) => {
  const rows = rowsOf(state.clip, layer);
  return (rows.filter((r) => !r.inactive).sort(better(state.sort, state.asked))[0] ?? rows[0]).feature;
};
const newSets = () => {
  state.muted.clear();
  state.alone.clear();
  ask.show();
};
const choose = (index) => {
  const [was, where] = [sounds.playing(), sounds.position()];
  const { name, seconds, read, offset, layers } = clips[index];
  sounds.stop(where < seconds ? where : 0);
  state.clip = index;
  state.asked = likeliest(clip().prediction);
  const [first, last] = [layersOf(clip())[0], layersOf(clip()).at(-1)];
  if (!layers[state.layer]) state.layer = last;
  if (!row()) state.feature = firstOf(state.layer);
  $("clip-name").textContent = name;
  $("clip-facts").textContent = `${+Math.min(read, seconds).toFixed(2)} s${offset ? ` from ${offset} s on` : ""}, as ${first === last ? `layer ${first}` : `layers ${first} to ${last}`} of the network heard it` +
    (read < seconds - 0.01 ? `; padded with silence to ${seconds.toFixed(2)} s` : "");
  for (const button of document.querySelectorAll("[data-clip]")) button.ariaPressed = Number(button.dataset.clip) === index;
  if ($("clip-choice")) $("clip-choice").value = index;
  showPrediction(clip());
  $("seek").max = seconds;
  if (alone()) hear("feature");
  whys.show(clip().why, seconds);
  inputPlot.show({ address: picture(index, "original"), title: "Spectrogram", label: `Spectrogram of ${name}`, length: seconds });
  showTabs();
  newSets();
  showGrid();
  showChosen();
  showTime();
  if (was) sounds.start();
};
const chooseLayer = (layer) => {
  leaveStems();
  state.layer = layer;
  state.feature = firstOf(layer);
  keepSettings();
  showTabs();
  newSets();
  showGrid();
  showChosen();
  if (sounds.playing()) sounds.start();
  say(`Layer ${layer}. ${$("summary").textContent}`);
};
const hear = (source) => {
  const other = source !== state.source && (alone(source) || alone()); // other sounds, not only other gains
  state.source = source;
  if (!other) sounds.hear();
  else if (sounds.playing()) sounds.start();
  for (const input of document.getElementsByName("source")) input.checked = input.value === source;
  say({ original: "Original", feature: `Feature ${state.feature}`, rest: `The rest, without feature ${state.feature}`, untrained: "Untrained twin", left: "What is left" }[source] ?? (source.startsWith("stems/") ? `The mix with${source === "stems/mix" ? "" : "out"} ${row().evidence.concept}` : "Why"));
};
// Plays a sound that runs by itself from where another was, or pauses it.
const play = (source) => {
  if (sounds.playing() && state.source === source) {
    sounds.toggle();
    return;
  }
  hear(source);
  if (!sounds.playing()) sounds.start();
  else showPlaying();
};
// The mix with and without a stem belongs to the feature that is named after it.
const leaveStems = () => { if (state.source.startsWith("stems/")) hear("feature"); };
const repeat = (loop) => {
  sounds.repeat(loop);
  state.loop = loop;
  $("loop").checked = loop;
  keepSettings();
};
const favourite = () => {
  const now = !markOf(state.feature).favourite;
  setMark({ favourite: now });
  showGrid();
  showChosen();
  say(now ? `Feature ${state.feature} is a favourite` : `Feature ${state.feature} is no favourite any more`);
};

// Controls.
const on = (id, event, then) => $(id)?.addEventListener(event, then);
const tool = (id, after) => {
  const kind = $(id).type === "checkbox" ? "checked" : "value";
  $(id)[kind] = state[id];
  on(id, "change", () => {
    state[id] = $(id)[kind];
    keepSettings();
    after();
  });
};
tool("sort", () => { showGrid(); showChosen(); });
tool("group", showGrid);
tool("starred", showGrid);
tool("shared", () => {
  showGrid();
  plots[0].relevel(drop(row().level));
  plots[1].relevel(drop(row().untrained_level));
  showScale();
});
for (const input of document.getElementsByName("axis")) {
  input.checked = input.value === state.axis;
  input.addEventListener("change", () => {
    state.axis = input.value;
    keepSettings();
    for (const each of plots) each.draw();
  });
}
for (const button of document.querySelectorAll("[data-clip]")) button.addEventListener("click", () => choose(Number(button.dataset.clip)));
on("clip-choice", "change", (event) => choose(Number(event.target.value)));
on("tabs", "keydown", (event) => {
  const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!turn) return;
  event.preventDefault();
  const layers = layersOf(clip());
  chooseLayer(layers.at((layers.indexOf(state.layer) + turn) % layers.length));
  $("tabs").querySelector('[aria-selected="true"]').focus();
});
on("favourite", "click", favourite);
on("previous", "click", () => grid.move("ArrowLeft", false));
on("next", "click", () => grid.move("ArrowRight", false));
on("note", "input", () => setMark({ note: $("note").value }));
on("export", "click", () => {
  const address = URL.createObjectURL(new Blob([kept.table(clips)], { type: "text/csv" }));
  make("a", { href: address, download: "favourites.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
});
on("play", "click", sounds.toggle);
on("input-play", "click", () => {
  const pausing = sounds.playing() && state.source === "original";
  hear("original");
  if (pausing || !sounds.playing()) sounds.toggle();
  else showPlaying();
});
for (const input of document.getElementsByName("source")) input.addEventListener("change", () => { hear(input.value); showPlaying(); });
on("seek", "input", () => seek(Number($("seek").value)));
$("loop").checked = state.loop;
on("loop", "change", () => repeat($("loop").checked));
listen({
  toggle: sounds.toggle,
  move: grid.move,
  hear: (number) => { hear(SOURCES[number]); showPlaying(); },
  favourite,
  note: () => { $("note").focus(); $("note").scrollIntoView({ block: "nearest" }); },
  repeat: () => repeat(!state.loop),
  leave: grid.focus,
});
kept.watch(() => {
  showGrid();
  if (document.activeElement !== $("note")) showChosen();
});

if (!clip().layers[state.layer]) state.layer = layersOf(clip()).at(-1);
state.asked = likeliest(clip().prediction);
state.feature = firstOf(state.layer);
keepSettings();
choose(0);
