// The listening page. Plain browser JavaScript, in the order: data, keeping, colour, pictures, sound, grid, feature, keys.
// Text from outside (names of clips and labels, notes) only ever becomes textContent.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const percent = (share) => {
    const value = 100 * share;
    return `${value > 0 && value < 0.05 ? "<0.1" : value.toFixed(value > 0 && value < 9.95 ? 1 : 0)}\u202f%`;
  };
  const fixed = (number, digits = 2) => (number === null ? "–" : number.toFixed(digits).replace("-", "−"));
  const minus = (number) => String(number).replace("-", "−");
  const hertz = (f) => (f >= 1000 ? `${(f / 1000).toFixed(2)}\u00a0kHz` : `${Math.round(f)}\u00a0Hz`);

  // --- data -------------------------------------------------------------------------------------------------

  const network = JSON.parse($("network").textContent);
  const addresses = JSON.parse($("addresses").textContent);
  const inside = new Map(Array.from(document.querySelectorAll("script[data-file]"), (e) => [e.dataset.file, e]));
  const clips = addresses.map((address) => JSON.parse(inside.get(`${address}/clip.json`).textContent));
  const stemOf = (layer, feature) => `layer${layer}/f${String(feature).padStart(3, "0")}`;

  const pictureAddress = (clip, name) => {
    const place = `${addresses[clip]}/${name}.png`;
    const element = inside.get(place);
    return element ? `data:image/png;base64,${element.textContent}` : place;
  };

  // A page that was opened from a file may fetch nothing, but it may load scripts: each hands over one sound.
  const arriving = new Map();
  window.deconv = (name, text) => arriving.get(name)?.(text);
  const soundText = (name) => {
    const element = inside.get(name);
    if (element) return Promise.resolve(element.textContent);
    return new Promise((resolve, reject) => {
      arriving.set(name, resolve);
      const script = make("script", { src: name.replace(/flac$/, "js"), async: true });
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error("a sound is missing: the page has to stay beside its folders"));
      document.head.append(script);
    }).finally(() => arriving.delete(name));
  };

  // --- what is kept in this browser -------------------------------------------------------------------------

  const shelf = `deconv_jax/${network.id}`;
  let keeping = true;
  const recall = (name, otherwise) => {
    try {
      return JSON.parse(localStorage.getItem(`${shelf}/${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  };
  const keep = (name, value) => {
    try {
      localStorage.setItem(`${shelf}/${name}`, JSON.stringify(value));
      keeping = true;
    } catch {
      keeping = false;
    }
    showKept();
  };
  const markKey = (clip, layer, feature) => JSON.stringify([clips[clip].name, layer, feature]);
  let marks = recall("marks", {});
  const markOf = (clip, layer, feature) => marks[markKey(clip, layer, feature)] ?? { favourite: false, note: "" };
  const setMark = (change) => {
    marks = recall("marks", marks); // another window may have added to them
    const key = markKey(state.clip, state.layer, state.feature);
    const mark = { ...(marks[key] ?? { favourite: false, note: "" }), ...change };
    if (mark.favourite || mark.note) marks[key] = mark;
    else delete marks[key];
    keep("marks", marks);
  };
  const showKept = () => {
    const count = Object.keys(marks).length;
    $("kept").textContent = keeping
      ? `${count} marked; kept in this browser, for this network`
      : "This browser does not keep notes of a page opened from a file: export them before you close it.";
  };

  const settings = recall("settings", {});
  const firstLayer = () => {
    const layers = Object.keys(clips[0].layers).map(Number);
    return layers.includes(settings.layer) ? settings.layer : layers[layers.length - 1];
  };
  const state = {
    clip: 0,
    layer: firstLayer(),
    feature: null,
    sort: settings.sort ?? "energy_share",
    group: settings.group ?? true,
    shared: settings.shared ?? true,
    starred: false,
    axis: settings.axis ?? "linear",
    loop: settings.loop ?? true,
    source: "feature",
    open: new Set(),
  };
  const keepSettings = () => {
    const { layer, sort, group, shared, axis, loop } = state;
    keep("settings", { layer, sort, group, shared, axis, loop });
  };
  const clip = () => clips[state.clip];
  const rowsOf = (index, layer) => clips[index].layers[layer]?.features ?? [];
  const row = () => rowsOf(state.clip, state.layer).find((r) => r.feature === state.feature);
  const say = (text) => { $("status").textContent = text; };

  // --- colour: pictures are grey, one filter for each shift of level colours them --------------------------

  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["width", 0], ["height", 0], ["aria-hidden", true], ["class", "hidden"]]) drawing.setAttribute(name, value);
  document.body.append(drawing);
  const colours = network.colours.map((c) => [1, 3, 5].map((at) => parseInt(c.slice(at, at + 2), 16)));
  const colourAt = (level) => {
    const at = Math.min(Math.max(level, 0), network.range);
    const low = Math.min(Math.floor(at), network.range - 1);
    return colours[low].map((value, k) => value + (at - low) * (colours[low + 1][k] - value));
  };
  const filters = new Map();
  const filter = (drop) => {
    const name = `level-${drop}`;
    if (!filters.has(name)) {
      const space = drawing.namespaceURI;
      const element = document.createElementNS(space, "filter");
      element.setAttribute("id", name);
      element.setAttribute("color-interpolation-filters", "sRGB");
      const transfer = document.createElementNS(space, "feComponentTransfer");
      const table = Array.from({ length: 256 }, (_, grey) => colourAt(grey / network.level - drop));
      ["R", "G", "B"].forEach((letter, k) => {
        const part = document.createElementNS(space, `feFunc${letter}`);
        part.setAttribute("type", "table");
        part.setAttribute("tableValues", table.map((c) => (c[k] / 255).toFixed(4)).join(" "));
        transfer.append(part);
      });
      element.append(transfer);
      drawing.append(element);
      filters.set(name, `url("#${name}")`);
    }
    return filters.get(name);
  };
  const dropOf = (level) => (state.shared ? Math.min(network.range, Math.round(-level)) : 0);

  const bar = $("scalebar").getContext("2d");
  colours.forEach(([r, g, b], x) => { bar.fillStyle = `rgb(${r} ${g} ${b})`; bar.fillRect(x, 0, 1, 1); });

  // --- pictures: a spectrogram with its axes, a playhead and a reading --------------------------------------

  // Rows are equally high on the axis "linear"; of mel bands and constant-Q bins it is linear in rows, not in Hz.
  const rows = network.frequencies;
  const bins = rows.length;
  const even = network.rows === "bins";
  const last = Math.max(1, bins - 1);
  const gaps = [(rows[1] ?? 1) - rows[0], rows[last] - rows[last - 1] || 1];
  const frequencyOf = (row) => {
    if (row <= 0) return rows[0] + row * gaps[0];
    if (row >= last) return rows[last] + (row - last) * gaps[1];
    const below = Math.floor(row);
    return rows[below] + (row - below) * (rows[below + 1] - rows[below]);
  };
  const rowOf = (f) => {
    if (f <= rows[0]) return (f - rows[0]) / gaps[0];
    if (f >= rows[last]) return last + (f - rows[last]) / gaps[1];
    const above = rows.findIndex((r) => r > f);
    return above - 1 + (f - rows[above - 1]) / (rows[above] - rows[above - 1]);
  };
  const top = frequencyOf(bins - 0.5);
  const lowest = even ? Math.max(40, 1.5 * gaps[0]) : Math.max(20, frequencyOf(-0.5));
  const heightOf = (f, axis) => (axis === "log" ? Math.log(f / lowest) / Math.log(top / lowest) : (rowOf(f) + 0.5) / bins);
  const frequencyAt = (height, axis) => (axis === "log" ? lowest * (top / lowest) ** height : frequencyOf(height * bins - 0.5));
  const lineOf = (f) => bins - 1 - Math.min(bins - 1, Math.max(0, Math.round(rowOf(f)))); // in a picture, from above

  const plots = [];
  const plot = (place, withAxis) => {
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    const head = make("div", { className: "head" });
    const blank = make("div", { className: "blank", hidden: true });
    const pins = make("div");
    const field = make("div", { className: "field" }, canvas, pins, blank, head);
    const [y, x] = [make("div", { className: "y" }), make("div", { className: "x" })];
    const [name, readout] = [make("span"), make("span", { className: "readout" })];
    place.append(make("div", { className: "plot-title" }, name, readout), make("div", { className: "plot" }, y, field, x));
    const self = { field, head, seconds: 1, image: null, grey: null, drop: 0 };

    const draw = () => {
      const scale = window.devicePixelRatio || 1;
      const [width, height] = [Math.max(1, Math.round(field.clientWidth * scale)), Math.max(1, Math.round(field.clientHeight * scale))];
      canvas.width = width;
      canvas.height = height;
      canvas.style.filter = filter(self.drop);
      const context = canvas.getContext("2d");
      context.fillRect(0, 0, width, height);
      const image = self.image;
      if (!image) return;
      context.imageSmoothingEnabled = false;
      const axis = withAxis();
      if (axis === "linear") context.drawImage(image, 0, 0, image.naturalWidth, image.naturalHeight, 0, 0, width, height);
      else {
        for (let line = 0; line < height; line++) {
          const from = lineOf(frequencyAt(1 - (line + 0.5) / height, axis));
          context.drawImage(image, 0, from, image.naturalWidth, 1, 0, line, width, 1);
        }
      }
      const rising = axis === "log" || !even;
      const wanted = rising ? [50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000] : steps(top, 6);
      let below = -Infinity;
      const marked = wanted.filter((f) => {
        const place = heightOf(f, axis);
        const fits = f < top * 0.985 && (!rising || f > Math.max(lowest, 0)) && place - below > 0.06;
        if (fits) below = place;
        return fits;
      });
      y.replaceChildren(...marked.map((f) => {
        const mark = make("span", { textContent: f >= 1000 ? `${f / 1000} kHz` : `${f}${f ? " Hz" : ""}` });
        mark.style.bottom = `${100 * heightOf(f, axis)}%`;
        return mark;
      }));
      const marksOfTime = [...steps(self.seconds, 5).filter((t) => t < 0.93 * self.seconds), self.seconds];
      x.replaceChildren(...marksOfTime.map((t) => {
        const mark = make("span", { textContent: `${+t.toFixed(2)}${t === self.seconds ? " s" : ""}` });
        mark.style.left = `${(100 * t) / self.seconds}%`;
        return mark;
      }));
    };
    self.draw = draw;
    self.show = async ({ address, title, label, level, seconds, nothing = "", moments = [] }) => {
      Object.assign(self, { seconds, drop: level === null ? 0 : dropOf(level), grey: null, address });
      name.textContent = title;
      canvas.setAttribute("aria-label", label);
      blank.hidden = !nothing;
      blank.textContent = nothing;
      pins.replaceChildren(...moments.map((t) => {
        const pin = make("div", { className: "mark" });
        pin.style.left = `${(100 * t) / seconds}%`;
        return pin;
      }));
      const image = new Image();
      image.src = address;
      try {
        await image.decode();
      } catch {
        if (self.address === address) {
          self.image = null;
          blank.hidden = false;
          blank.textContent = "The picture is missing: the page has to stay beside its folders.";
        }
        return;
      }
      if (self.address !== address) return; // another was asked for meanwhile
      self.image = image;
      draw();
    };
    self.relevel = (level) => { self.drop = dropOf(level); canvas.style.filter = filter(self.drop); };
    const levelAt = (t, f) => {
      try {
        if (!self.grey) {
          const copy = make("canvas", { width: self.image.naturalWidth, height: self.image.naturalHeight }).getContext("2d");
          copy.drawImage(self.image, 0, 0);
          self.grey = copy.getImageData(0, 0, copy.canvas.width, copy.canvas.height);
        }
        const column = Math.min(self.grey.width - 1, Math.floor((t / self.seconds) * self.grey.width));
        const line = lineOf(f);
        const value = self.grey.data[4 * (line * self.grey.width + column)] / network.level - network.range - self.drop;
        return value <= -network.range ? ` · < −${network.range} dB` : ` · ${minus(Math.round(value))} dB`;
      } catch {
        return ""; // pictures from files may be shown, but not read
      }
    };
    const at = (event) => {
      const box = field.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height].map((v) => Math.min(1, Math.max(0, v)));
    };
    field.addEventListener("pointermove", (event) => {
      const [across, up] = at(event);
      const [t, f] = [across * self.seconds, Math.max(0, frequencyAt(up, withAxis()))];
      readout.textContent = `${t.toFixed(2)} s · ${hertz(f)}${self.image ? levelAt(t, f) : ""}`;
      if (event.buttons & 1) seek(t);
    });
    field.addEventListener("pointerleave", () => { readout.textContent = ""; });
    field.addEventListener("pointerdown", (event) => { if (event.button === 0) seek(at(event)[0] * self.seconds); });
    new ResizeObserver(draw).observe(field);
    plots.push(self);
    return self;
  };
  const steps = (end, count) => {
    const rough = end / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
    return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, k) => k * step);
  };

  // --- sound: all four run together from one clock, and only their gains change -----------------------------

  const sources = ["original", "feature", "rest", "untrained"];
  const audible = { context: null, nodes: null, from: 0, since: 0, playing: false, turn: 0, held: new Map() };
  const duration = () => clip().seconds;

  const context = () => {
    if (!audible.context) {
      try {
        audible.context = new AudioContext({ sampleRate: network.rate }); // as it is: nothing is resampled here
      } catch {
        audible.context = new AudioContext();
      }
    }
    return audible.context;
  };
  const decoded = async (name) => {
    if (!audible.held.has(name)) {
      const text = await soundText(name);
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      audible.held.set(name, await context().decodeAudioData(bytes.buffer));
      const limit = Math.max(8, Math.floor(600 / duration()));
      for (const old of audible.held.keys()) {
        if (audible.held.size <= limit) break;
        audible.held.delete(old);
      }
    }
    return audible.held.get(name);
  };
  const restOf = (original, feature, [factor, scale]) => {
    const buffer = context().createBuffer(1, original.length, original.sampleRate);
    const [a, b, out] = [original.getChannelData(0), feature.getChannelData(0), buffer.getChannelData(0)];
    for (let n = 0; n < out.length; n++) out[n] = scale * (a[n] - factor * (b[n] ?? 0));
    return buffer;
  };

  const position = () => {
    if (!audible.playing) return audible.from;
    const gone = audible.from + Math.max(0, audible.context.currentTime - audible.since);
    return state.loop ? gone % duration() : Math.min(gone, duration());
  };
  const silence = (nodes, when) => {
    for (const { gain, node } of nodes ?? []) {
      gain.gain.cancelScheduledValues(when);
      gain.gain.setTargetAtTime(0, when, 0.004);
      node.onended = null;
      node.stop(when + 0.05);
    }
  };
  // Starts, or goes on at the same place with other sounds.
  const start = async () => {
    const turn = ++audible.turn;
    const chosen = row();
    const address = addresses[state.clip];
    const stem = `${address}/${stemOf(state.layer, state.feature)}`;
    try {
      const clock = context();
      if (clock.state !== "running") await clock.resume();
      const [original, feature, untrained] = await Promise.all([`${address}/original`, stem, `${stem}.untrained`].map((n) => decoded(`${n}.flac`)));
      if (turn !== audible.turn) return;
      const buffers = [original, feature, restOf(original, feature, chosen.rest), untrained];
      const when = clock.currentTime + 0.02;
      let from = position() + (audible.playing ? 0.02 : 0);
      if (from >= duration() - 0.01) from = 0;
      silence(audible.nodes, when);
      audible.nodes = buffers.map((buffer, k) => {
        const node = new AudioBufferSourceNode(clock, { buffer, loop: state.loop, loopEnd: buffer.duration });
        const gain = new GainNode(clock, { gain: 0 });
        gain.gain.setTargetAtTime(sources[k] === state.source ? 1 : 0, when, 0.004);
        node.connect(gain).connect(clock.destination);
        node.start(when, from);
        return { node, gain };
      });
      audible.nodes[0].node.onended = () => stop(0);
      Object.assign(audible, { from, since: when, playing: true });
      showPlaying();
    } catch (error) {
      if (turn === audible.turn) {
        stop(position());
        say(`This cannot be played: ${error.message}`);
        $("time").textContent = "cannot be played";
      }
    }
  };
  const stop = (where) => {
    audible.turn++;
    if (audible.nodes) silence(audible.nodes, audible.context.currentTime);
    Object.assign(audible, { nodes: null, from: where, playing: false });
    showPlaying();
  };
  const toggle = () => (audible.playing ? stop(position()) : start());
  const seek = (seconds) => {
    const where = Math.min(Math.max(seconds, 0), duration());
    if (audible.playing) {
      Object.assign(audible, { from: where, since: audible.context.currentTime });
      start();
    } else audible.from = where;
    showTime();
  };
  const hear = (source) => {
    state.source = source;
    if (audible.nodes) {
      const now = audible.context.currentTime;
      audible.nodes.forEach(({ gain }, k) => gain.gain.setTargetAtTime(sources[k] === source ? 1 : 0, now, 0.004));
    }
    for (const input of document.getElementsByName("source")) input.checked = input.value === source;
    say({ original: "Original", feature: `Feature ${state.feature}`, rest: `The rest, without feature ${state.feature}`, untrained: "Untrained twin" }[source]);
  };
  const repeat = (loop) => {
    const where = position();
    state.loop = loop;
    if (audible.nodes) {
      Object.assign(audible, { from: where, since: audible.context.currentTime });
      for (const { node } of audible.nodes) node.loop = loop;
    }
    $("loop").checked = loop;
    keepSettings();
  };
  const showPlaying = () => {
    $("play").setAttribute("aria-pressed", audible.playing);
    $("play").setAttribute("aria-label", audible.playing ? "Pause" : "Play");
    $("input-play").textContent = audible.playing && state.source === "original" ? "Pause" : "Play the original";
    if (audible.playing) requestAnimationFrame(tick);
    else showTime();
  };
  const tick = () => {
    showTime();
    if (audible.playing) requestAnimationFrame(tick);
  };
  const showTime = () => {
    const now = position();
    $("seek").value = now;
    $("seek").setAttribute("aria-valuetext", `${now.toFixed(1)} of ${duration().toFixed(1)} seconds`);
    $("time").textContent = `${now.toFixed(2)} / ${duration().toFixed(2)} s`;
    for (const { field, head } of plots) head.style.transform = `translateX(${(now / duration()) * field.clientWidth}px)`;
  };

  // --- the grid ---------------------------------------------------------------------------------------------

  const better = (a, b) => {
    if (state.sort === "feature") return a.feature - b.feature;
    return (b[state.sort] ?? -1) - (a[state.sort] ?? -1) || a.feature - b.feature;
  };
  const describe = (r) => {
    const mark = markOf(state.clip, state.layer, r.feature).favourite ? ", favourite" : "";
    if (r.inactive) return `Feature ${r.feature}, inactive${mark}`;
    return `Feature ${r.feature}: active in ${percent(r.active_fraction)} of its map, ${percent(r.energy_share)} of the layer's energy, difference from untrained ${fixed(r.difference)}${mark}`;
  };
  const three = (r) => make("span", { className: "three" }, ...[
    ["active_fraction", percent(r.active_fraction), "active"],
    ["energy_share", percent(r.energy_share), "energy"],
    ["difference", fixed(r.difference), "differs"],
  ].map(([key, value, label]) => make("span", { className: key === state.sort ? "sorted" : "" }, value, make("small", { textContent: label }))));
  const picture = (index, r, layer) => {
    const image = make("img", { alt: "", loading: "lazy", decoding: "async", src: pictureAddress(index, stemOf(layer, r.feature)) });
    image.style.filter = filter(dropOf(r.level));
    return image;
  };
  const card = (r) => {
    const favourite = markOf(state.clip, state.layer, r.feature).favourite;
    const button = make("button", { type: "button", className: `card${r.inactive ? " inactive" : ""}` },
      make("span", { className: "frame" }, r.inactive ? null : picture(state.clip, r, state.layer),
        make("span", { className: "number", textContent: r.feature }),
        favourite ? make("span", { className: "star", textContent: "★" }) : null),
      r.inactive ? make("span", { className: "three", textContent: "inactive" }) : three(r));
    button.dataset.feature = r.feature;
    button.setAttribute("aria-label", describe(r));
    button.setAttribute("aria-current", r.feature === state.feature);
    button.addEventListener("click", () => select(r.feature, true));
    return button;
  };
  const showGrid = () => {
    const all = rowsOf(state.clip, state.layer);
    const shown = state.starred ? all.filter((r) => markOf(state.clip, state.layer, r.feature).favourite) : all;
    const [active, inactive] = [shown.filter((r) => !r.inactive).sort(better), shown.filter((r) => r.inactive)];
    const kinds = new Map();
    for (const r of active) kinds.set(r.kind, [...(kinds.get(r.kind) ?? []), r]); // in the order of their best
    const grid = $("grid");
    const focused = grid.contains(document.activeElement) && document.activeElement.matches(".card");
    if (!state.group) grid.replaceChildren(...[...active, ...inactive].map(card));
    else {
      const bundles = Array.from(kinds, ([kind, members]) => bundle(`kind ${kind}`, members, alikeText(members)));
      if (inactive.length) bundles.push(bundle("inactive", inactive, "no part of this clip activates them"));
      grid.replaceChildren(...bundles);
    }
    if (!shown.length) grid.replaceChildren(make("p", { className: "empty", textContent: "No favourites in this layer yet: press F on a feature." }));
    if (focused) cards().find((c) => Number(c.dataset.feature) === state.feature)?.focus({ preventScroll: true });
    const { chance } = clip().layers[state.layer];
    const acting = all.filter((r) => !r.inactive);
    const middle = acting.map((r) => r.difference).sort((a, b) => a - b)[acting.length >> 1];
    const kindCount = new Set(acting.map((r) => r.kind)).size;
    const named = acting.filter((r) => r.stands_out).length;
    const of = all.length < network.layers[state.layer].maps ? `the ${all.length} features chosen` : `${all.length} features`;
    $("summary").textContent = !acting.length ? "No feature of this layer is active in this clip." :
      `${acting.length} of ${of} ${acting.length === 1 ? "is" : "are"} active, of ${kindCount} ${kindCount === 1 ? "kind" : "kinds"}. ` +
      `Measured names stand out for ${named || "none"}; by the same rule for ${chance.named || "none"} of the ${chance.active} active features of a second untrained network. ` +
      `Difference from untrained: median ${fixed(middle)}; that network's: ${fixed(chance.difference)}.`;
  };
  const alikeText = (members) => {
    const r = members.map((m) => m.kind_r).filter((v) => v !== null);
    return r.length ? `look alike, mean r ${fixed(r.reduce((a, b) => a + b, 0) / r.length)}` : "";
  };
  const bundle = (name, members, about) => {
    if (members.length === 1) return make("div", { className: "stack" }, card(members[0]));
    const id = `${state.layer}/${name}`;
    const open = state.open.has(id);
    const more = make("button", { type: "button", className: "more" });
    more.setAttribute("aria-expanded", open);
    more.textContent = open ? `▾ ${members.length} ${name === "inactive" ? "inactive features" : "features"}: ${about}` :
      name === "inactive" ? `▸ ${members.length} inactive` : `▸ ${members.length - 1} more alike`;
    more.addEventListener("click", () => {
      if (open) state.open.delete(id);
      else state.open.add(id);
      showGrid();
      document.querySelector(`[data-bundle="${CSS.escape(id)}"] .more`)?.focus();
    });
    const face = members.find((m) => m.feature === state.feature) ?? members[0];
    const place = open
      ? make("section", { className: "kind" }, more, make("div", { className: "members" }, ...members.map(card)))
      : make("div", { className: "stack many" }, card(face), more);
    place.dataset.bundle = id;
    if (open) place.setAttribute("aria-label", `${members.length} features that ${about}`);
    return place;
  };
  const cards = () => Array.from($("grid").querySelectorAll(".card"));
  const move = (key, focus = true) => {
    const all = cards();
    const now = all.findIndex((c) => Number(c.dataset.feature) === state.feature);
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
    select(Number(next.dataset.feature));
    if (!focus) return;
    const chosen = cards().find((c) => Number(c.dataset.feature) === state.feature);
    chosen?.focus({ preventScroll: true });
    chosen?.scrollIntoView({ block: "nearest" });
  };

  // --- one feature ------------------------------------------------------------------------------------------

  const inputPlot = plot($("input-plot"), () => "linear");
  const featurePlot = plot($("feature-plot"), () => state.axis);
  const twinPlot = plot($("twin-plot"), () => state.axis);

  const showFeature = () => {
    const r = row();
    const { layer, feature } = state;
    const { seconds, layers, reading } = clip();
    const facts = network.layers[layer];
    const mark = markOf(state.clip, layer, feature);
    $("detail-title").textContent = `Feature ${feature}, layer ${layer}`;
    $("favourite").setAttribute("aria-pressed", mark.favourite);
    $("favourite").firstElementChild.textContent = mark.favourite ? "★" : "☆";
    $("note").value = mark.note;
    const measured = $("measured");
    if (r.inactive) measured.replaceChildren("Inactive: no part of this clip activates it.");
    else if (r.stands_out) {
      measured.replaceChildren(make("strong", { textContent: `r = ${fixed(r.descriptor_r)} with ${r.descriptor}` }),
        make("span", { className: "muted", textContent: `; no feature of the untrained twin's layer exceeds ${fixed(r.descriptor_r_untrained)}` }));
    } else {
      measured.replaceChildren(make("strong", { textContent: "Nothing stands out" }),
        make("span", { className: "muted", textContent: ` beside the untrained twin: at most r = ${fixed(r.descriptor_r)} with ${r.descriptor}, where the twin's layer reaches ${fixed(r.descriptor_r_untrained)}` }));
    }
    const stem = stemOf(layer, feature);
    featurePlot.show({
      address: pictureAddress(state.clip, stem), title: "What made it respond", seconds, level: r.level, moments: r.moments,
      label: `Spectrogram of feature ${feature}, 0 to ${hertz(top)}, ${seconds.toFixed(1)} seconds`,
      nothing: r.inactive ? "inactive: no part of this clip activates it"
        : r.energy ? "" : "active by a constant alone: nothing of this clip leads to it",
    });
    twinPlot.show({
      address: pictureAddress(state.clip, `${stem}.untrained`), title: `Untrained twin's ${feature}`, seconds, level: r.untrained_level,
      label: `Spectrogram of feature ${feature} of the untrained twin`, nothing: r.untrained_inactive ? "inactive" : "",
    });
    showScale();
    const size = ([width, height, cells]) => `${width < 1 ? `${Math.round(1000 * width)}\u00a0ms` : `${width.toFixed(2)}\u00a0s`} × ${height === null ? `${cells}\u00a0${network.rows}` : `${Math.round(height)}\u00a0Hz`}`;
    const bands = ["bass", "mid", "treble"].map((band) => `${band} ${Math.round(100 * r[`${band}_share`])}`).join(", ");
    const chance = layers[layer].chance;
    $("facts").replaceChildren(...[
      ["Activity", percent(r.active_fraction), "of its map is above zero"],
      ["Share of energy", percent(r.energy_share), `of the layer's images; ${bands}\u00a0%`],
      ["Difference", fixed(r.difference), `from untrained; by chance ${fixed(chance.difference)}. With sign ${fixed(r.difference_signed)}; by chance ${fixed(chance.difference_signed)}`],
      facts.printed ? ["Effective size", size(facts.printed), "the paper's rule"] : null,
      ["Receptive field", size(facts.true), "all that one activation can see"],
      ["The rest", r.inactive ? "the original" : `${percent(r.explained)} less energy`, "than the original: a projection"],
      ["Negative values", percent(r.negative_share), reading === "phase" ? "of its energy: phase turned by π" : "of its energy"],
      ["Centroid", r.centroid_hz === null ? "–" : hertz(r.centroid_hz), "mean frequency of its energy"],
    ].filter(Boolean).map(([term, value, small]) => make("div", {}, make("dt", { textContent: term }), make("dd", {}, value, make("small", { textContent: small })))));
    showKernel();
    const moments = [...r.moments].sort((a, b) => a - b);
    $("moments").replaceChildren(...(moments.length ? [make("span", { className: "label", textContent: "Strongest moments" }), ...moments.map((t) => {
      const button = make("button", { type: "button", textContent: `${t.toFixed(2)} s` });
      button.setAttribute("aria-label", `Go to ${t.toFixed(2)} seconds`);
      button.addEventListener("click", () => seek(t));
      return button;
    })] : []));
    const alike = rowsOf(state.clip, layer).filter((o) => o.kind === r.kind && o !== r && !r.inactive).sort(better);
    $("alike").replaceChildren(...(alike.length ? [make("span", { className: "label", textContent: `Look-alikes (mean r ${fixed(r.kind_r)})` }), ...alike.map((o) => {
      const button = make("button", { type: "button", textContent: o.feature });
      button.setAttribute("aria-label", `Feature ${o.feature}`);
      button.addEventListener("click", () => select(o.feature));
      return button;
    })] : []));
    const others = clips.map((c, index) => [index, rowsOf(index, layer).find((o) => o.feature === feature)]).filter(([index, o]) => o && index !== state.clip);
    $("elsewhere").replaceChildren(...(others.length ? [make("h3", { textContent: `Feature ${feature} in the other clips` }), make("div", { className: "row" }, ...others.map(([index, o]) => {
      const button = make("button", { type: "button", className: `card${o.inactive ? " inactive" : ""}` },
        make("span", { className: "frame" }, o.inactive ? null : picture(index, o, layer)),
        make("span", { className: "clip-title", textContent: clips[index].name }),
        o.inactive ? make("span", { className: "three", textContent: "inactive" }) : three(o));
      button.addEventListener("click", () => choose(index));
      return button;
    }))] : []));
    for (const c of cards()) c.setAttribute("aria-current", Number(c.dataset.feature) === feature);
    showKept();
  };
  const showScale = () => {
    $("scale-note").textContent = state.shared ? "0 dB: the loudest of each network's layer" : "0 dB: each picture's own loudest";
  };
  const showKernel = () => {
    const kernel = state.layer === 1 ? network.kernels[state.feature] ?? null : null;
    $("kernel").hidden = !kernel;
    if (!kernel) return;
    const most = Math.max(...kernel.flat().map(Math.abs)) || 1;
    const table = make("table", {}, ...[...kernel].reverse().map((line) => make("tr", {}, ...line.map((value) => {
      const cell = make("td", { textContent: fixed(value) });
      const share = Math.abs(value) / most;
      cell.style.background = `color-mix(in oklab, ${value < 0 ? "#2a78c8" : "#d9593f"} ${Math.round(85 * share)}%, var(--soft))`;
      cell.style.color = share > 0.6 ? "#fff" : "";
      return cell;
    }))));
    table.setAttribute("aria-label", `Kernel of feature ${state.feature}`);
    $("kernel").replaceChildren(table, make("p", { className: "muted", textContent: "Its kernel: time to the right, frequency upwards. Red adds, blue takes away." }));
  };
  const select = (feature, pressed = false) => {
    if (feature === state.feature && !pressed) return;
    const changed = feature !== state.feature;
    state.feature = feature;
    const known = cards().find((c) => Number(c.dataset.feature) === feature);
    if (!known) showGrid(); // it is hidden within a kind, whose face it becomes
    showFeature();
    say(describe(row()));
    if (changed && audible.playing) start();
    if (pressed && matchMedia("(max-width: 56rem)").matches) $("detail").scrollIntoView();
  };
  const firstOf = (layer) => {
    const active = rowsOf(state.clip, layer).filter((r) => !r.inactive).sort(better);
    return (active[0] ?? rowsOf(state.clip, layer)[0]).feature;
  };

  // --- clips, layers, tools ---------------------------------------------------------------------------------

  const choose = (index) => {
    const was = audible.playing;
    const where = position();
    stop(0);
    state.clip = index;
    const { name, seconds, prediction, read, offset, layers } = clip();
    if (!layers[state.layer]) state.layer = Number(Object.keys(layers).at(-1));
    if (!row()) state.feature = firstOf(state.layer);
    audible.from = where < seconds ? where : 0;
    $("clip-name").textContent = name;
    const [first, last] = [Object.keys(layers)[0], Object.keys(layers).at(-1)];
    $("clip-facts").textContent = `${+Math.min(read, seconds).toFixed(2)} s${offset ? ` from ${offset} s on` : ""}, as ${first === last ? `layer ${first}` : `layers ${first} to ${last}`} of the network heard it` +
      (read < seconds - 0.01 ? `; padded with silence to ${seconds.toFixed(2)} s` : "");
    for (const button of document.querySelectorAll("[data-clip]")) button.setAttribute("aria-pressed", Number(button.dataset.clip) === index);
    if ($("clip-choice")) $("clip-choice").value = index;
    const best = Math.max(...Object.values(prediction));
    const likely = network.labels.length <= 12 ? network.labels : [...network.labels].sort((a, b) => prediction[b] - prediction[a]).slice(0, 10);
    const rest = network.labels.length - likely.length;
    $("prediction").replaceChildren(...likely.map((label) => {
      const length = make("progress", { value: prediction[label], ariaHidden: "true" });
      return make("div", { className: `bar${prediction[label] === best ? " own" : ""}` }, make("span", { className: "name", textContent: label }), length,
        make("span", { className: "value", textContent: percent(prediction[label]) }));
    }), ...(rest ? [make("p", { className: "small muted", textContent: `The ${likely.length} likeliest of ${network.labels.length}.` })] : []));
    $("seek").max = seconds;
    inputPlot.show({ address: pictureAddress(index, "original"), title: "Spectrogram", label: `Spectrogram of ${name}`, level: null, seconds });
    showTabs();
    showGrid();
    showFeature();
    showTime();
    if (was) start();
  };
  const chooseLayer = (layer) => {
    state.layer = layer;
    state.feature = firstOf(layer);
    keepSettings();
    showTabs();
    showGrid();
    showFeature();
    if (audible.playing) start();
    say(`Layer ${layer}. ${$("summary").textContent}`);
  };
  const showTabs = () => {
    $("tabs").replaceChildren(...Object.keys(clip().layers).map(Number).map((layer) => {
      const tab = make("button", { type: "button", role: "tab", textContent: `Layer ${layer}`, tabIndex: layer === state.layer ? 0 : -1 });
      tab.setAttribute("aria-selected", layer === state.layer);
      tab.setAttribute("aria-controls", "detail");
      tab.addEventListener("click", () => chooseLayer(layer));
      return tab;
    }));
  };
  $("tabs").addEventListener("keydown", (event) => {
    const layers = Object.keys(clip().layers).map(Number);
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!turn) return;
    event.preventDefault();
    chooseLayer(layers.at((layers.indexOf(state.layer) + turn) % layers.length));
    $("tabs").querySelector('[aria-selected="true"]').focus();
  });
  const tool = (id, name, after) => {
    const input = $(id);
    const kind = input.type === "checkbox" ? "checked" : "value";
    input[kind] = state[name];
    input.addEventListener("change", () => {
      state[name] = input[kind];
      keepSettings();
      after();
    });
  };
  tool("sort", "sort", () => { showGrid(); showFeature(); });
  tool("group", "group", showGrid);
  tool("starred", "starred", showGrid);
  tool("shared", "shared", () => {
    showGrid();
    featurePlot.relevel(row().level);
    twinPlot.relevel(row().untrained_level);
    showScale();
  });
  for (const input of document.getElementsByName("axis")) {
    input.checked = input.value === state.axis;
    input.addEventListener("change", () => {
      state.axis = input.value;
      keepSettings();
      featurePlot.draw();
      twinPlot.draw();
    });
  }
  for (const button of document.querySelectorAll("[data-clip]")) button.addEventListener("click", () => choose(Number(button.dataset.clip)));
  $("clip-choice")?.addEventListener("change", (event) => choose(Number(event.target.value)));

  // --- favourites and notes ---------------------------------------------------------------------------------

  const favourite = () => {
    const now = !markOf(state.clip, state.layer, state.feature).favourite;
    setMark({ favourite: now });
    showGrid();
    showFeature();
    say(now ? `Feature ${state.feature} is a favourite` : `Feature ${state.feature} is no favourite any more`);
  };
  $("favourite").addEventListener("click", favourite);
  $("previous").addEventListener("click", () => move("ArrowLeft", false));
  $("next").addEventListener("click", () => move("ArrowRight", false));
  $("note").addEventListener("input", () => setMark({ note: $("note").value }));
  const quoted = (value) => {
    const text = String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) && typeof value === "string" ? `'${text}` : text).replaceAll('"', '""')}"`; // no formulas for spreadsheets
  };
  const table = () => {
    const numbers = ["active_fraction", "energy_share", "difference", "descriptor", "descriptor_r", "stands_out"];
    const lines = [["clip", "layer", "feature", "favourite", "note", ...numbers]];
    for (const [key, mark] of Object.entries(recall("marks", marks))) {
      const [name, layer, feature] = JSON.parse(key);
      const index = clips.findIndex((c) => c.name === name);
      const r = index < 0 ? null : rowsOf(index, layer).find((o) => o.feature === feature);
      lines.push([name, layer, feature, mark.favourite ? 1 : 0, mark.note, ...numbers.map((n) => r?.[n])]);
    }
    return `\ufeff${lines.map((line) => line.map(quoted).join(",")).join("\r\n")}\r\n`;
  };
  $("export").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    make("a", { href: address, download: "favourites.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });

  // --- player and keys --------------------------------------------------------------------------------------

  $("play").addEventListener("click", toggle);
  $("input-play").addEventListener("click", () => {
    const pausing = audible.playing && state.source === "original";
    hear("original");
    if (pausing || !audible.playing) toggle();
    else showPlaying();
  });
  for (const input of document.getElementsByName("source")) input.addEventListener("change", () => { hear(input.value); showPlaying(); });
  $("seek").addEventListener("input", () => seek(Number($("seek").value)));
  $("loop").checked = state.loop;
  $("loop").addEventListener("change", () => repeat($("loop").checked));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const on = event.target;
    if (on.matches("textarea")) {
      if (event.key === "Escape") cards().find((c) => c.getAttribute("aria-current") === "true")?.focus();
      return;
    }
    if (on.matches("select")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === " ") {
      // A button that was reached by keyboard keeps its space bar; a feature's plays it.
      if (on.matches("input[type=checkbox], summary, button:focus-visible:not(.card)")) return;
      if (on.matches("#elsewhere .card")) return;
      if (!event.repeat) toggle();
    } else if (key.startsWith("Arrow")) {
      if (on.matches("input, [role=tab]")) return;
      move(key);
    } else if ("1234".includes(key)) {
      hear(sources[Number(key) - 1]);
      showPlaying();
    } else if (key === "f") favourite();
    else if (key === "n") {
      $("note").focus();
      $("note").scrollIntoView({ block: "nearest" });
    } else if (key === "l") repeat(!state.loop);
    else return;
    event.preventDefault();
  });
  window.addEventListener("storage", (event) => {
    if (event.key === `${shelf}/marks`) {
      marks = recall("marks", {});
      showGrid();
      if (document.activeElement !== $("note")) showFeature();
    }
  });

  state.feature = firstOf(state.layer);
  keepSettings();
  choose(0);
})();
