// A spectrogram with its axes, a playhead and a reading.
import { make } from "./dom.mjs";
import { hertz, minus, steps } from "./text.mjs";

const placed = (className, side, share, text = "") => {
  const mark = make(className ? "div" : "span", { className, textContent: text });
  mark.style[side] = `${100 * share}%`;
  return mark;
};

// `axes`: of `axesOf`; `axis()`: "linear" or "log"; `filter(drop)`: CSS that shows a picture so many decibels down;
// `step`, `range`: greys to a decibel, decibels from black to full; `seek(seconds)`: a place was pressed.
export const plot = (place, { axes, axis, filter, step, range, seek }) => {
  const canvas = make("canvas", { role: "img" });
  const head = make("div", { className: "head" });
  const blank = make("div", { className: "blank", hidden: true });
  const pins = make("div");
  const field = make("div", { className: "field" }, canvas, pins, blank, head);
  const [y, x] = [make("div", { className: "y" }), make("div", { className: "x" })];
  const [name, readout] = [make("span"), make("span", { className: "readout" })];
  place.append(make("div", { className: "plot-title" }, name, readout), make("div", { className: "plot" }, y, field, x));
  let [seconds, image, grey, drop, wanted] = [1, null, null, 0, null];

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
    const times = [...steps(seconds, 5).filter((t) => t < 0.93 * seconds), seconds];
    x.replaceChildren(...times.map((t) => placed("", "left", t / seconds, `${+t.toFixed(2)}${t === seconds ? " s" : ""}`)));
  };
  const relevel = (to) => { drop = to; canvas.style.filter = filter(drop); };
  const show = async ({ address, title, label, down = 0, length, nothing = "", moments = [] }) => {
    [seconds, drop, grey, wanted] = [length, down, null, address];
    name.textContent = title;
    canvas.ariaLabel = label;
    Object.assign(blank, { hidden: !nothing, textContent: nothing });
    pins.replaceChildren(...moments.map((t) => placed("mark", "left", t / seconds)));
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
    if (event.buttons & 1) seek(t);
  });
  field.addEventListener("pointerleave", () => { readout.textContent = ""; });
  field.addEventListener("pointerdown", (event) => { if (event.button === 0) seek(at(event)[0] * seconds); });
  new ResizeObserver(draw).observe(field);
  return { show, draw, relevel, follow: (share) => { head.style.transform = `translateX(${share * field.clientWidth}px)`; } };
};
