// A spectrogram with its axes, a playhead and a reading.
import { make } from "./dom.mjs";
import { hertz, minus, steps } from "./text.mjs";

const placed = (className, side, share, text = "") => {
  const mark = make(className ? "div" : "span", { className, textContent: text });
  mark.style[side] = `${100 * share}%`;
  return mark;
};

// `axes`: of `axesOf`; `axis()`: "linear" or "log"; `filter(drop)`: CSS that shows a picture so many decibels down;
// `step`, `range`: greys to a decibel, decibels from black to full; `seek(seconds)`: a place was pressed; `drag(from, to, done)`:
// a part was dragged over, places being [seconds, Hz]; without it, dragging seeks.
export const plot = (place, { axes, axis, filter, step, range, seek, drag }) => {
  const canvas = make("canvas", { role: "img" });
  const head = make("div", { className: "head" });
  const blank = make("div", { className: "blank", hidden: true });
  const pins = make("div");
  const part = make("div", { className: "part", hidden: true });
  const field = make("div", { className: "field" }, canvas, pins, part, blank, head);
  const [y, x] = [make("div", { className: "y" }), make("div", { className: "x" })];
  const [name, readout] = [make("span"), make("span", { className: "readout" })];
  place.append(make("div", { className: "plot-title" }, name, readout), make("div", { className: "plot" }, y, field, x));
  let [seconds, image, grey, drop, wanted] = [1, null, null, 0, null];
  let [chosen, pressed, moved] = [null, null, false];
  // Shows a part: from and to, [seconds, Hz], of all frequencies where there are none; null for no part.
  const choose = (from, to) => {
    chosen = from && [from, to];
    part.hidden = !chosen;
    if (!chosen) return;
    const times = [from[0], to[0]].sort((a, b) => a - b).map((t) => 100 * Math.min(1, Math.max(0, t / seconds)));
    const rows = from.length < 2 ? [0, 100] : [from[1], to[1]].sort((a, b) => a - b).map((f) => 100 * Math.min(1, Math.max(0, axes.heightOf(f, axis()))));
    Object.assign(part.style, { left: `${times[0]}%`, width: `${times[1] - times[0]}%`, bottom: `${rows[0]}%`, height: `${rows[1] - rows[0]}%` });
  };

  const draw = () => {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [Math.max(1, Math.round(field.clientWidth * scale)), Math.max(1, Math.round(field.clientHeight * scale))];
    Object.assign(canvas, { width, height });
    canvas.style.filter = filter(drop);
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, width, height);
    if (!image) return;
    context.imageSmoothingEnabled = false;
    if (axis() === "linear") context.drawImage(image, 0, 0, image.naturalWidth, image.naturalHeight, 0, 0, width, height);
    else {
      for (let line = 0; line < height; line++) {
        const from = axes.lineOf(axes.frequencyAt(1 - (line + 0.5) / height, axis()));
        context.drawImage(image, 0, from, image.naturalWidth, 1, 0, line, width, 1);
      }
    }
    y.replaceChildren(...axes.marked(axis()).map((f) =>
      placed("", "bottom", axes.heightOf(f, axis()), f >= 1000 ? `${f / 1000} kHz` : `${f}${f ? " Hz" : ""}`)));
    if (chosen) choose(...chosen);
    const times = [...steps(seconds, 5).filter((t) => t < (field.clientWidth < 360 ? 0.84 : 0.93) * seconds), seconds];
    x.replaceChildren(...times.map((t) => placed("", "left", t / seconds, `${+t.toFixed(2)}${t === seconds ? " s" : ""}`)));
  };
  const pin = (moments) => pins.replaceChildren(...moments.map((t) => placed("mark", "left", t / seconds)));
  const relevel = (to) => { drop = to; canvas.style.filter = filter(drop); };
  const show = async ({ address, title, label, down = 0, length, nothing = "", moments = [] }) => {
    [seconds, drop, grey, wanted] = [length, down, null, address];
    name.textContent = title;
    canvas.ariaLabel = label;
    Object.assign(blank, { hidden: !nothing, textContent: nothing });
    pin(moments);
    const next = new Image();
    next.src = address;
    const failed = await next.decode().then(() => false, () => true);
    if (wanted !== address) return; // another was asked for meanwhile
    image = failed ? null : next;
    if (!failed) draw();
    else Object.assign(blank, { hidden: false, textContent: "The picture is missing: the page has to stay beside its folders." });
  };
  const levelAt = (t, f) => {
    try {
      if (!grey) {
        const copy = make("canvas", { width: image.naturalWidth, height: image.naturalHeight }).getContext("2d");
        copy.drawImage(image, 0, 0);
        grey = copy.getImageData(0, 0, copy.canvas.width, copy.canvas.height);
      }
      const column = Math.min(grey.width - 1, Math.floor((t / seconds) * grey.width));
      const value = grey.data[4 * (axes.lineOf(f) * grey.width + column)] / step - range - drop;
      return value <= -range ? ` · < −${range} dB` : ` · ${minus(Math.round(value))} dB`;
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
    const [t, f] = [across * seconds, Math.max(0, axes.frequencyAt(up, axis()))];
    readout.textContent = `${t.toFixed(2)} s · ${hertz(f)}${image ? levelAt(t, f) : ""}`;
    if (!(event.buttons & 1)) return;
    if (!drag) seek(t);
    else if (pressed && (moved ||= Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 4)) drag(pressed.place, [t, f], false);
  });
  field.addEventListener("pointerleave", () => { readout.textContent = ""; });
  field.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [across, up] = at(event);
    if (!drag) return seek(across * seconds);
    [pressed, moved] = [{ place: [across * seconds, Math.max(0, axes.frequencyAt(up, axis()))], x: event.clientX, y: event.clientY }, false];
    field.setPointerCapture(event.pointerId);
  });
  field.addEventListener("pointerup", (event) => {
    if (!pressed) return;
    const [across, up] = at(event);
    if (moved) drag(pressed.place, [across * seconds, Math.max(0, axes.frequencyAt(up, axis()))], true);
    else seek(across * seconds);
    pressed = null;
  });
  field.addEventListener("pointercancel", () => { pressed = null; });
  new ResizeObserver(draw).observe(field);
  return { show, draw, relevel, choose, pin, follow: (share) => { head.style.transform = `translateX(${share * field.clientWidth}px)`; } };
};
