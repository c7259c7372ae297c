// A spectrogram that plays, in a notebook: drag over it to choose a part, which plays over and over and is told to Python.

// Two corners, as shares of the picture from its upper left → [left, right, low, high] from its lower left; [] for a click.
export const boxOf = ([x0, y0], [x1, y1], least = 0.005) => {
  const within = (share) => Math.min(1, Math.max(0, share));
  const [left, right] = [within(Math.min(x0, x1)), within(Math.max(x0, x1))];
  const [low, high] = [within(1 - Math.max(y0, y1)), within(1 - Math.min(y0, y1))];
  if (right - left < least) return [];
  return high - low < 0.02 ? [left, right, 0, 1] : [left, right, low, high]; // dragged along: all frequencies
};

// Where a sound of `duration` is that started at `from` and has run for `gone` seconds; round and round within `loop`.
export const placeIn = (from, gone, duration, loop) => {
  const where = from + Math.max(0, gone);
  if (!loop || where < loop[1]) return Math.min(where, duration);
  return loop[0] + ((where - loop[0]) % (loop[1] - loop[0]));
};

const make = (tag, className, given = {}) => Object.assign(document.createElement(tag), { className: `deconv-jax-${className}` }, given);

const urlOf = (view, type) => URL.createObjectURL(new Blob([view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)], { type }));

const markedBy = (marks, className, side) => marks.map(([share, text]) => {
  const mark = make("span", className, { textContent: text });
  mark.style[side] = `${100 * share}%`;
  return mark;
});

const render = ({ model, el }) => {
  const seconds = model.get("seconds");
  const address = urlOf(model.get("picture"), "image/png");
  const plot = make("div", "plot");
  const cursor = make("div", "cursor");
  const chosen = make("div", "chosen");
  const button = make("button", "play", { type: "button" });
  const clear = make("button", "clear", { type: "button", textContent: "Whole sound" });
  const says = make("span", "says", { ariaLive: "polite" });
  plot.append(make("img", "picture", { src: address, alt: `Spectrogram: ${model.get("title")}`, draggable: false }), chosen, cursor);
  const frame = make("div", "frame");
  frame.append(plot, ...markedBy(model.get("upwards"), "upwards", "bottom"), ...markedBy(model.get("across"), "across", "left"));
  const bar = make("p", "controls");
  bar.append(button, clear, says);
  const root = make("div", "spectrogram", { tabIndex: 0, role: "group", ariaLabel: `${model.get("title")}: space plays, drag to loop a part` });
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own keys
  root.append(make("p", "name", { textContent: model.get("title") }), frame, bar);
  el.append(root);

  let [context, buffer, node, from, since, part] = [null, null, null, model.get("position"), 0, null]; // part: that it plays
  const loop = () => {
    const box = model.get("box");
    return box.length ? [box[0] * seconds, box[1] * seconds] : null;
  };
  const position = () => (node ? placeIn(from, context.currentTime - since, seconds, part) : from);
  const tell = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const draw = () => {
    const box = model.get("box");
    cursor.style.left = `${(100 * position()) / seconds}%`;
    chosen.hidden = clear.hidden = !box.length;
    if (box.length) Object.assign(chosen.style, { left: `${100 * box[0]}%`, width: `${100 * (box[1] - box[0])}%`, bottom: `${100 * box[2]}%`, height: `${100 * (box[3] - box[2])}%` });
    button.textContent = node ? "Stop" : box.length ? "Play the part" : "Play";
    says.textContent = `${position().toFixed(2)} s${box.length ? `, part from ${(box[0] * seconds).toFixed(2)} to ${(box[1] * seconds).toFixed(2)} s` : ` of ${seconds.toFixed(2)} s`}`;
    if (node) requestAnimationFrame(draw);
  };
  const stop = (where = position()) => {
    if (node) {
      node.onended = null;
      node.stop();
    }
    [node, from] = [null, where];
    tell({ playing: false, position: from });
    draw();
  };
  const play = async (where = from) => {
    try {
      context ??= new AudioContext();
      if (!buffer) {
        const view = model.get("sound");
        buffer = await context.decodeAudioData(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
      }
      if (context.state !== "running") await context.resume();
    } catch (error) {
      says.textContent = `The sound cannot be played: ${error.message}`;
      tell({ playing: false });
      return;
    }
    if (node) {
      node.onended = null;
      node.stop();
    }
    part = loop();
    from = part && (where < part[0] || where >= part[1]) ? part[0] : where >= seconds - 0.01 ? 0 : where;
    node = new AudioBufferSourceNode(context, part ? { buffer, loop: true, loopStart: part[0], loopEnd: part[1] } : { buffer });
    node.connect(context.destination);
    node.onended = () => stop(0);
    since = context.currentTime;
    node.start(0, from);
    tell({ playing: true, position: from });
    draw();
  };

  let corner = null;
  const at = (event) => {
    const { left, top, width, height } = plot.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  };
  plot.onpointerdown = (event) => {
    plot.setPointerCapture(event.pointerId);
    corner = at(event);
    event.preventDefault();
    root.focus();
  };
  plot.onpointermove = (event) => {
    if (!corner) return;
    const box = boxOf(corner, at(event));
    Object.assign(chosen.style, { left: `${100 * (box[0] ?? 0)}%`, width: `${100 * ((box[1] ?? 0) - (box[0] ?? 0))}%`, bottom: `${100 * (box[2] ?? 0)}%`, height: `${100 * ((box[3] ?? 0) - (box[2] ?? 0))}%` });
    chosen.hidden = !box.length;
  };
  plot.onpointerup = (event) => {
    if (!corner) return;
    const [box, [x]] = [boxOf(corner, at(event)), at(event)];
    corner = null;
    tell({ box });
    const where = box.length ? box[0] * seconds : Math.min(1, Math.max(0, x)) * seconds;
    if (node) play(where);
    else stop(where);
  };
  plot.onpointercancel = () => { corner = null; draw(); };
  button.onclick = () => (node ? stop() : play());
  clear.onclick = () => { tell({ box: [] }); if (node) play(position()); };
  root.onkeydown = (event) => {
    const jump = { ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key];
    if (event.key === " " && event.target === root) button.click();
    else if (event.key === "Escape" && !clear.hidden) clear.click();
    else if (jump) (node ? play : stop)(Math.min(seconds, Math.max(0, position() + jump)));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const boxed = () => { draw(); if (node) play(position()); };
  const asked = () => {
    if (model.get("playing") === Boolean(node)) return;
    if (model.get("playing")) play(); else stop();
  };
  model.on("change:box", boxed);
  model.on("change:playing", asked);
  draw();
  return () => {
    model.off("change:box", boxed);
    model.off("change:playing", asked);
    node?.stop();
    context?.close();
    URL.revokeObjectURL(address);
  };
};

export default { render };
