// The parts of the notebook's spectrogram that need no page.
import assert from "node:assert/strict";
import { test } from "node:test";
import { boxOf, placeIn } from "../../deconv_jax/page/js/notebook/spectrogram.mjs";

test("a box is told from its lower left, whichever way it was dragged, and stays within the picture", () => {
  assert.deepEqual(boxOf([0.25, 0.5], [0.75, 0.25]), [0.25, 0.75, 0.5, 0.75]);
  assert.deepEqual(boxOf([0.75, 0.25], [0.25, 0.5]), [0.25, 0.75, 0.5, 0.75]);
  assert.deepEqual(boxOf([-1, 2], [0.5, 0.5]), [0, 0.5, 0, 0.5]);
});

test("dragging along time alone is all frequencies, and a click is no box", () => {
  assert.deepEqual(boxOf([0.25, 0.5], [0.5, 0.505]), [0.25, 0.5, 0, 1]);
  assert.deepEqual(boxOf([0.25, 0.5], [0.251, 0.9]), []);
});

test("a part goes round and round, from wherever it was begun", () => {
  assert.equal(placeIn(0, 1.5, 4, null), 1.5);
  assert.equal(placeIn(3, 9, 4, null), 4);
  assert.equal(placeIn(1, 0.5, 4, [1, 2]), 1.5);
  assert.equal(placeIn(1, 2.25, 4, [1, 2]), 1.25);
  assert.equal(placeIn(1.5, -0.1, 4, [1, 2]), 1.5);
});
