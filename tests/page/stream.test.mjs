// How the page reads a session's event stream: no gap, nothing twice, and how often it tries again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { reconnectDelay } from "../../coordinator/static/logic/backoff.js";
import { MOST_REPLAYED, START, receive } from "../../coordinator/static/logic/resume.js";
import { EMPTY, withEvent, withSnapshot } from "../../coordinator/static/logic/session_state.js";

const snapshot = (seq) => ({ type: "snapshot", seq });
const event = (seq, type = "training.log") => ({ type, seq });

/** What is done with each of these frames, one after the other. */
function receiveAll(frames, cursor = START) {
  const done = [];
  for (const frame of frames) {
    const answer = receive(cursor, frame);
    cursor = answer.cursor;
    done.push(`${frame.seq} ${answer.use}${answer.reload ? " reload" : ""}`);
  }
  return { done, cursor };
}

test("the first connection begins with a snapshot and goes on with what follows it", () => {
  const { done, cursor } = receiveAll([snapshot(7), event(8), event(9)]);
  assert.deepEqual(done, ["7 snapshot reload", "8 event", "9 event"]);
  assert.equal(cursor.seq, 9);
});

test("after a break every event comes once, and those before the snapshot do not turn it back", () => {
  const { cursor } = receiveAll([snapshot(7), event(8)]);
  const { done } = receiveAll([snapshot(11), event(9), event(11), event(12), event(12), event(8)], cursor);
  assert.deepEqual(done, ["11 snapshot", "9 past", "11 past", "12 event", "12 nothing", "8 nothing"]);
});

test("nothing was missed in a break in which nothing happened", () => {
  const { cursor } = receiveAll([snapshot(7)]);
  assert.deepEqual(receiveAll([snapshot(7), event(8)], cursor).done, ["7 snapshot", "8 event"]);
});

test("a number that is missing among the new ones makes the page load its lists anew", () => {
  const { cursor } = receiveAll([snapshot(7)]);
  assert.deepEqual(receiveAll([event(9), event(10)], cursor).done, ["9 event reload", "10 event"]);
});

test("numbers that are missing among the old ones are pruned progress", () => {
  const { cursor } = receiveAll([snapshot(7)]);
  assert.deepEqual(receiveAll([snapshot(40), event(30), event(40), event(41)], cursor).done, [
    "40 snapshot", "30 past", "40 past", "41 event",
  ]);
});

test("a coordinator that goes on from an older copy is believed", () => {
  const { cursor } = receiveAll([snapshot(70)]);
  assert.deepEqual(receiveAll([snapshot(7), event(8)], cursor).done, ["7 snapshot reload", "8 event"]);
});

test("who was away for long loads everything anew and reads nothing old again", () => {
  const { cursor } = receiveAll([snapshot(1)]);
  const newest = MOST_REPLAYED + 2;
  assert.deepEqual(receiveAll([snapshot(newest), event(2), event(newest + 1)], cursor).done, [
    `${newest} snapshot reload`, "2 nothing", `${newest + 1} event`,
  ]);
});

test("the delay doubles up to its limit and is spread over its upper half", () => {
  assert.deepEqual([0, 1, 2, 3].map((attempt) => reconnectDelay(attempt, 1)), [500, 1000, 2000, 4000]);
  assert.equal(reconnectDelay(0, 0), 250);
  assert.equal(reconnectDelay(1000, 1), 15000);
});

test("a past event adds to the log and changes nothing else", () => {
  const now = withSnapshot(EMPTY, { session: { status: "paused" }, progress: { progress: 40 } }, 0);
  const past = { isPast: true, clientTime: 0 };
  const earlier = withEvent(now, { type: "session.state", time: 1, data: { status: "training" } }, past);
  assert.equal(earlier.session.status, "paused");
  assert.equal(withEvent(now, { type: "training.progress", time: 1, data: { progress: 30 } }, past).progress.progress, 40);
  const record = { source: "p-1", run: "r", number: 1 };
  assert.deepEqual(withEvent(now, { type: "training.log", time: 1, data: record }, past).fresh, [record]);
});

test("an event of now changes what it tells of", () => {
  const known = withSnapshot(EMPTY, { session: { status: "waiting", waitingFor: { message: "x" } }, progress: {} }, 0);
  const data = { status: "training", errorMsg: "", modelPath: "", possibleActions: ["pause"] };
  const after = withEvent(known, { type: "session.state", time: 12, data }, { isPast: false, clientTime: 10 });
  assert.equal(after.session.status, "training");
  assert.equal(after.session.waitingFor, null);
  assert.equal(after.serverAheadS, 2);
});
