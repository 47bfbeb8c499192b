// What the page says of learning cycles.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  growthOf, growthPercentOf, hasFigures, markOf, readiness, refusals, stateOf, triggerKey,
} from "../../coordinator/static/logic/learning.js";

const cycle = (hour, more = {}) => ({
  id: `c-${hour}`, startedAt: `2030-01-01T${String(hour).padStart(2, "0")}:00:00Z`, datasetVersion: hour, finalSize: 10 * hour,
  heldOut: hour, ...more,
});

test("refusals are told by frequency, with a text where there is one", () => {
  const refused = { "too short": 2, "rated down": 5, empty: 0, "some new reason": 2 };
  assert.deepEqual(refusals({ refused }), [
    [5, "refused.ratedDown", "rated down"], [2, null, "some new reason"], [2, "refused.tooShort", "too short"],
  ]);
  assert.deepEqual(refusals({ refused: {} }), []);
});

test("a cycle is at its stage until it has come to something", () => {
  assert.equal(stateOf({ outcome: null, stage: "training" }), "training");
  assert.equal(stateOf({ outcome: "kept", stage: "ended" }), "kept");
  assert.equal(triggerKey("timer"), "learning.byTimer");
});

test("the curve runs from the oldest cycle to the newest, and leaves out those without data", () => {
  const { cycles, columns } = growthOf([cycle(5), cycle(4, { datasetVersion: null }), cycle(3), cycle(2)]);
  assert.deepEqual(cycles.map(({ id }) => id), ["c-2", "c-3", "c-5"]);
  assert.deepEqual(columns.slice(1), [[20, 30, 50], [2, 3, 5]]);
  assert.equal(columns[0][2] - columns[0][0], 3 * 3600);
});

test("a clock that was set back leaves the curve rising", () => {
  const { columns: [places, sizes] } = growthOf([cycle(3), cycle(9), { ...cycle(3), finalSize: 1 }]);
  assert.equal(places.length, 2);
  assert.ok(places[0] < places[1]);
  assert.deepEqual(sizes, [30, 90]);
});

test("how much is there to begin with is never more than all", () => {
  assert.equal(readiness({ chats: 5, minChats: 20 }), 0.25);
  assert.equal(readiness({ chats: 50, minChats: 20 }), 1);
  assert.equal(hasFigures({ datasetVersion: null }), false);
});

test("data that begin from nothing have not grown by any percentage", () => {
  assert.equal(growthPercentOf({ originalSize: 0, growthPercent: 0 }), null);
  assert.equal(growthPercentOf({ originalSize: 8, growthPercent: 12.5 }), 12.5);
});

test("another stage of the last cycle is a reason to ask for the list", () => {
  const at = (stage) => markOf({ running: true, last: { id: "c-1", updatedAt: "x", stage } });
  assert.notEqual(at("training"), at("evaluating"));
  assert.equal(markOf({ running: false, last: null }), markOf({ running: false, last: null }));
});
