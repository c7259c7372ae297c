// Where a frequency stands in a picture, and where the marks of an axis go.
import { steps } from "./text.mjs";

const DECADES = [50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];

// Rows are equally high on the axis "linear"; of mel bands and constant-Q bins it is linear in rows, not in Hz.
// `rows` are the frequencies of a picture's rows in Hz, rising; `even` says that they stand equally far apart.
export const axesOf = (rows, even) => {
  const bins = rows.length;
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
  // Frequencies to mark, so far apart that they can be read.
  const marked = (axis) => {
    const rising = axis === "log" || !even;
    let below = -Infinity;
    return (rising ? DECADES : steps(top, 6)).filter((f) => {
      const place = heightOf(f, axis);
      const fits = f < top * 0.985 && (!rising || f > Math.max(lowest, 0)) && place - below > 0.06;
      if (fits) below = place;
      return fits;
    });
  };
  return { top, heightOf, frequencyAt, lineOf, marked };
};
