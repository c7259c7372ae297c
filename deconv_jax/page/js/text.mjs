// Numbers and tables as people read them.

export const percent = (share) => {
  const value = 100 * share;
  return `${value > 0 && value < 0.05 ? "<0.1" : value.toFixed(value > 0 && value < 9.95 ? 1 : 0)}\u202f%`;
};
export const minus = (number) => String(number).replace("-", "−");
export const fixed = (number, digits = 2) => (number === null ? "–" : minus(number.toFixed(digits)));
export const signed = (number, digits = 2) => `${number > 0 ? "+" : ""}${fixed(number, digits)}`;
export const hertz = (f) => (f >= 1000 ? `${(f / 1000).toFixed(2)}\u00a0kHz` : `${Math.round(f)}\u00a0Hz`);

// Round marks from 0 to an end: as many as fit with at most `count` steps.
export const steps = (end, count) => {
  const rough = end / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, k) => k * step);
};

// Lines of values → CSV that a spreadsheet opens and takes no formula from.
export const csv = (lines) => {
  const quoted = (value) => {
    const text = String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) && typeof value === "string" ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return `\ufeff${lines.map((line) => line.map(quoted).join(",")).join("\r\n")}\r\n`;
};
