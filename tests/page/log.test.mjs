// The training log and what the page reads in it: records, rounds, digests, evaluations.
import assert from "node:assert/strict";
import { test } from "node:test";
import { agreedDigests, compareDigests, heldDigest } from "../../coordinator/static/logic/digests.js";
import {
  MOST_LIVE, evaluationsOf, filterRecords, sampleOf, withNewestPage, withOlderPage, withRecord,
} from "../../coordinator/static/logic/records.js";
import { roundSummaries } from "../../coordinator/static/logic/rounds.js";

const record = (number, more = {}) => ({
  source: "p-1", run: "r", number, time: 100 + number, kind: "log", level: "info", message: `record ${number}`, data: {}, ...more,
});
const numbers = (records) => records.map(({ number }) => number);

test("a record stands in the log once, the newest first", () => {
  const records = withRecord(withRecord([], record(1)), record(2));
  assert.deepEqual(numbers(withRecord(records, record(2))), [2, 1]);
});

test("what comes while a page is asked for is neither lost nor doubled", () => {
  assert.deepEqual(numbers(withNewestPage([record(2), record(1)], [record(3), record(2)])), [3, 2, 1]);
});

test("an older page goes behind", () => {
  assert.deepEqual(numbers(withOlderPage([record(3), record(2)], [record(2), record(1)])), [3, 2, 1]);
});

test("the log of a page that is open for long stays within its limit", () => {
  let records = [];
  for (let number = 1; number <= MOST_LIVE + 10; number += 1) records = withRecord(records, record(number));
  assert.equal(records.length, MOST_LIVE);
  assert.equal(records[0].number, MOST_LIVE + 10);
});

test("older records that were asked for stay when new ones come", () => {
  const long = Array.from({ length: MOST_LIVE + 100 }, (_, index) => record(10000 - index));
  assert.equal(withRecord(long, record(10001)).length, long.length);
});

test("the log is filtered by level, source and text", () => {
  const records = [record(1, { level: "error", source: "a" }), record(2, { level: "warning" }), record(3, { message: "Ended" })];
  assert.deepEqual(numbers(filterRecords(records, {})), [1, 2, 3]);
  assert.deepEqual(numbers(filterRecords(records, { level: "warning" })), [1, 2]);
  assert.deepEqual(numbers(filterRecords(records, { level: "error" })), [1]);
  assert.deepEqual(numbers(filterRecords(records, { source: "a" })), [1]);
  assert.deepEqual(numbers(filterRecords(records, { text: " ended " })), [3]);
});

const round = (source, number, time, data = {}) =>
  record(number, { source, time, kind: "round", data: { round: number, digest: "d", ...data } });

test("a round's time is split into computing, synchronizing and waiting", () => {
  const [first, second] = roundSummaries([
    round("p-1", 2, 110, { waitedSeconds: 3, applyingSeconds: 0.5, matchmakingSeconds: 1, reducingSeconds: 2, bytesSent: 10, bytesReceived: 20 }),
    round("p-1", 1, 100), round("checkpointer", 2, 111),
  ]);
  assert.equal(first.computing, null);
  assert.deepEqual(second, {
    round: 2, computing: 6.5, synchronizing: 0.5, waiting: 3, averaging: 3, bytesSent: 10, bytesReceived: 20, reports: 1,
  });
});

test("the split of a round is the mean of those who say, its traffic their sum", () => {
  const [, second] = roundSummaries([
    round("a", 1, 100), round("b", 1, 100), round("a", 2, 110, { waitedSeconds: 2, bytesSent: 1 }),
    round("b", 2, 120, { waitedSeconds: 4, bytesSent: 2 }),
  ]);
  assert.deepEqual([second.computing, second.waiting, second.bytesSent, second.reports], [12, 3, 3, 2]);
});

test("a round whose predecessor is not at hand, or of another run, is not measured", () => {
  const other = { ...round("a", 2, 130), run: "another" };
  assert.equal(roundSummaries([round("a", 1, 100), round("a", 3, 120), other]).filter(({ computing }) => computing !== null).length, 0);
});

test("nobody spends less than no time computing, whatever it says", () => {
  const [, second] = roundSummaries([round("a", 1, 100), round("a", 2, 110, { waitedSeconds: 99, applyingSeconds: 99 })]);
  assert.deepEqual([second.computing, second.synchronizing, second.waiting], [0, 0, 10]);
});

const holds = (source, digest, number = 3) => ({ kind: "round", source, data: { round: number, digest } });

test("the checkpointer breaks a tie of digests", () => {
  const records = [holds("p-1", "x"), holds("checkpointer", "y"), holds("p-2", "x"), holds("p-3", "y")];
  assert.equal(agreedDigests(records).get(3), "y");
  assert.deepEqual(heldDigest("p-1", "z", records, new Map()), { digest: "z", round: null, differs: false });
});

test("the peers are said to agree, to differ, or to be at different rounds", () => {
  const held = (digest, at, differs = false) => ({ digest, round: at, differs });
  const peers = (...list) => list.map((one, index) => ({ name: `p-${index}`, held: one }));
  assert.equal(compareDigests(peers(held("", null))).kind, "none");
  assert.deepEqual(compareDigests(peers(held("x", 3), held("x", 3))), { kind: "equal", round: 3, digest: "x", names: [] });
  assert.equal(compareDigests(peers(held("x", 3), held("y", 4))).kind, "apart");
  assert.deepEqual(compareDigests(peers(held("x", 3), held("y", 3, true))).names, ["p-1"]);
});

test("evaluations are the checkpointer's, and their metrics the numbers among their data", () => {
  const data = { round: 4, samples: 80, targets: 9, validationLoss: 2.5, accuracy: 0.4, name: "x" };
  const records = [record(2, { source: "checkpointer", kind: "evaluation", data }), record(1, { kind: "evaluation", data })];
  assert.deepEqual(evaluationsOf(records), [
    { round: 4, time: 102, samples: 80, targets: 9, metrics: { validationLoss: 2.5, accuracy: 0.4 } },
  ]);
});

test("a sample of the model is taken from the checkpointer alone", () => {
  const said = (source) => record(1, { source, data: { sample: " Once " } });
  assert.equal(sampleOf([said("p-1")]), "");
  assert.equal(sampleOf([said("p-1"), said("checkpointer")]), "Once");
});
