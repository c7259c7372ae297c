// What is kept in this browser, for one network: favourites, notes and settings.
import { csv } from "./text.mjs";

const NONE = { favourite: false, note: "" };
const NUMBERS = ["active_fraction", "energy_share", "difference", "name"];
const markKey = (clip, layer, feature) => JSON.stringify([clip, layer, feature]);

// The marks after a change of one; what is neither a favourite nor noted is not kept.
export const changed = (marks, key, change) => {
  const mark = { ...(marks[key] ?? NONE), ...change };
  const all = { ...marks, [key]: mark };
  if (!mark.favourite && !mark.note) delete all[key];
  return all;
};

// Everything that was marked, beside what was measured of it, as CSV.
export const tableOf = (marks, clips) => csv([
  ["clip", "layer", "feature", "favourite", "note", ...NUMBERS],
  ...Object.entries(marks).map(([key, mark]) => {
    const [name, layer, feature] = JSON.parse(key);
    const r = clips.find((c) => c.name === name)?.layers[layer]?.features.find((o) => o.feature === feature);
    return [name, layer, feature, mark.favourite ? 1 : 0, mark.note, ...NUMBERS.map((n) => r?.[n])];
  }),
]);

// A shelf of the browser's storage; `said` is told how well it keeps.
export const shelf = (name, said) => {
  let keeping = true;
  const recall = (what, otherwise) => {
    try {
      return JSON.parse(localStorage.getItem(`${name}/${what}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  };
  let marks = recall("marks", {});
  const show = () => {
    said(keeping ? `${Object.keys(marks).length} marked; kept in this browser, for this network`
      : "This browser does not keep notes of a page opened from a file: export them before you close it.");
  };
  const keep = (what, value) => {
    try {
      localStorage.setItem(`${name}/${what}`, JSON.stringify(value));
      keeping = true;
    } catch {
      keeping = false;
    }
    show();
  };
  return {
    recall, keep, show,
    markOf: (...place) => marks[markKey(...place)] ?? NONE,
    setMark: (place, change) => {
      marks = changed(recall("marks", marks), markKey(...place), change); // another window may have added to them
      keep("marks", marks);
    },
    table: (clips) => tableOf(recall("marks", marks), clips),
    // Calls back when another window changed the marks.
    watch: (then) => window.addEventListener("storage", (event) => {
      if (event.key !== `${name}/marks`) return;
      marks = recall("marks", {});
      then();
    }),
  };
};
