// Keys: which key means what, and where it does not.

// The key that was pressed, letters small; null with a modifier, which is the browser's.
export const keyOf = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return null;
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
};

// What the page does for a key on an element: its name and what with, or null for what the browser does there.
export const actionOf = (key, on, again = false) => {
  if (key === null || on.matches("select") || on.matches("input[type=number]")) return null;
  if (on.matches("textarea")) return key === "Escape" ? ["leave"] : null;
  if (key === " ") {
    // A button that was reached by keyboard keeps its space bar; a feature's plays it.
    if (on.matches("input[type=checkbox], summary, button:focus-visible:not(.card), #elsewhere .card")) return null;
    return again ? ["nothing"] : ["toggle"];
  }
  if (key.startsWith("Arrow")) return on.matches("input, [role=tab]") ? null : ["move", key];
  if (/^[1-4]$/.test(key)) return ["hear", Number(key) - 1];
  const letters = { f: "favourite", n: "note", l: "repeat", m: "mute", s: "solo", a: "a", b: "b", x: "x" };
  return Object.hasOwn(letters, key) ? [letters[key]] : null;
};

// `actions`: a function for each name.
export const listen = (actions) => document.addEventListener("keydown", (event) => {
  const [name, value] = actionOf(keyOf(event), event.target, event.repeat) ?? [];
  if (!actions[name] && name !== "nothing") return;
  actions[name]?.(value);
  if (name !== "leave") event.preventDefault();
});
