// A blind test: X is A or B, by chance anew in every round; whether one can tell is known at the end.
import { percent } from "./text.mjs";

// How likely so many right answers of so many, or more, are by guessing.
export const chanceOf = (right, count) => {
  let [sum, ways] = [0, 1]; // ways to choose k of count
  for (let k = 0; k <= count; k++) {
    if (k >= right) sum += ways / 2 ** count;
    ways = (ways * (count - k)) / (k + 1);
  }
  return Math.min(1, sum);
};

// `coin()`: true as often as not. How many rounds there are is settled before the first, so that nobody stops at a good score.
export const roundsOf = (count, coin) => {
  const right = [];
  const drawn = () => (coin() ? "a" : "b");
  let x = drawn();
  return {
    count,
    x: () => x,
    round: () => Math.min(count, right.length + 1),
    done: () => right.length >= count,
    answer: (is) => {
      right.push(is === x);
      x = drawn();
    },
    right: () => right.filter(Boolean).length,
  };
};

export const scoreSaid = (right, count) => {
  const p = chanceOf(right, count);
  return `${right} of ${count} right. Who guesses gets as many or more in ${percent(p)} of such tests (p = ${p < 0.0001 ? "< 0.0001" : p.toFixed(4)}, one-sided binomial). ` +
    (p < 0.05 ? "You told them apart." : "That does not show that you can tell them apart; nor that you cannot.");
};

// As loud as each other: what two sounds are multiplied by, 1 or less; null where one is silent.
export const evened = (a, b) => {
  const [ra, rb] = [a, b].map((samples) => Math.sqrt(samples.reduce((sum, v) => sum + v * v, 0) / Math.max(1, samples.length)));
  return ra > 0 && rb > 0 ? { a: Math.min(1, rb / ra), b: Math.min(1, ra / rb) } : null;
};

// `parts`: elements by name (start, count, box, where, score, a, b, x, isA, isB, end); `sounds()`: those of A and B as they are now;
// `hear(which)`: "a", "b" or "x"; null: as before; `say(text)`.
export const blindIn = (parts, { sounds, hear, say }) => {
  let test = null; // with its rounds and the levels
  const told = (text) => {
    parts.score.textContent = text;
    say(text);
  };
  const show = () => {
    parts.box.hidden = !test;
    parts.start.disabled = test !== null;
    if (test) parts.where.textContent = `Round ${test.rounds.round()} of ${test.rounds.count}: is X the same as A, or as B?`;
  };
  const end = (text) => {
    if (!test) return;
    test = null;
    show();
    told(text);
    hear(null);
  };
  const begin = () => {
    const pair = sounds();
    const levels = pair && evened(...pair);
    if (!levels) return told(pair ? "One of the two is silent: there is nothing to compare." : "Both sounds have to be there first.");
    if (pair[0].every((v, n) => v === pair[1][n])) return told("A and B are the same sound, sample by sample.");
    const count = Math.min(100, Math.max(5, Math.round(Number(parts.count.value)) || 10));
    parts.count.value = count;
    test = { levels, rounds: roundsOf(count, () => crypto.getRandomValues(new Uint8Array(1))[0] < 128) };
    parts.score.textContent = "";
    show();
    listen("x");
  };
  const listen = (which) => {
    if (!test) return;
    for (const name of ["a", "b", "x"]) parts[name].ariaPressed = name === which;
    hear(which);
  };
  const answer = (is) => {
    test.rounds.answer(is);
    if (test.rounds.done()) return end(scoreSaid(test.rounds.right(), test.rounds.count));
    show();
    say(parts.where.textContent);
    listen("x");
  };
  parts.start.addEventListener("click", begin);
  for (const name of ["a", "b", "x"]) parts[name].addEventListener("click", () => listen(name));
  parts.isA.addEventListener("click", () => answer("a"));
  parts.isB.addEventListener("click", () => answer("b"));
  parts.end.addEventListener("click", () => end("Ended before the last round: no score."));
  show();
  return {
    running: () => test !== null,
    listen,
    // What is heard for one of the two or X: [of A, of B].
    gains: (which) => {
      const is = which === "x" ? test?.rounds.x() : which;
      const { a, b } = test?.levels ?? { a: 1, b: 1 };
      return [is === "a" ? a : 0, is === "b" ? b : 0];
    },
    changed: () => end("The sounds have changed, so the test has ended without a score."),
  };
};
