// Colour: pictures are grey, one filter for each shift of level colours them.

// "#rrggbb" for each whole decibel from the darkest up → [red, green, blue] at any level in dB, 0 to 255.
export const colourScale = (names) => {
  const colours = names.map((c) => [1, 3, 5].map((at) => parseInt(c.slice(at, at + 2), 16)));
  return (level) => {
    const at = Math.min(Math.max(level, 0), colours.length - 1);
    const low = Math.min(Math.floor(at), colours.length - 2);
    return colours[low].map((value, k) => value + (at - low) * (colours[low + 1][k] - value));
  };
};

// Gives the CSS filter that shows grey pictures, `step` greys to a decibel, so many decibels down.
export const colourFilters = (colourAt, step) => {
  const space = "http://www.w3.org/2000/svg";
  const draw = (tag, attributes, parent) => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return parent.appendChild(element);
  };
  const drawing = draw("svg", { width: 0, height: 0, "aria-hidden": true, class: "hidden" }, document.body);
  const filters = new Map();
  return (drop) => {
    const name = `level-${drop}`;
    if (!filters.has(name)) {
      const filter = draw("filter", { id: name, "color-interpolation-filters": "sRGB" }, drawing);
      const transfer = draw("feComponentTransfer", {}, filter);
      const table = Array.from({ length: 256 }, (_, grey) => colourAt(grey / step - drop));
      ["R", "G", "B"].forEach((letter, k) => {
        draw(`feFunc${letter}`, { type: "table", tableValues: table.map((c) => (c[k] / 255).toFixed(4)).join(" ") }, transfer);
      });
      filters.set(name, `url("#${name}")`);
    }
    return filters.get(name);
  };
};
