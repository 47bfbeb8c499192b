// The points of the curves: none twice, none lost, and what is drawn of them.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  EXACT_ROUNDS, PAGE_POINTS, columns, exactRanges, isDrawable, mergePoints, resumeRound, smooth, sparkPath,
} from "../../coordinator/static/logic/curve.js";
import { nearestIndex, select, shown, zoom } from "../../coordinator/static/logic/zoom.js";

const point = (round, more = {}) => ({ round, samples: 100 * round, time: 1000 + round, loss: 5 - round / 10, ...more });
const rounds = (points) => points.map(({ round }) => round);
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

test("points that are asked for again from the last one on leave no gap and stand there once", () => {
  const known = [point(0), point(1), point(2, { validationLoss: null })];
  assert.equal(resumeRound(known), 2);
  const merged = mergePoints(known, [point(2, { validationLoss: 4.5 }), point(3), point(4)]);
  assert.deepEqual(rounds(merged), [0, 1, 2, 3, 4]);
  assert.equal(merged[2].validationLoss, 4.5);
});

test("points come in any order and stand in the order of their rounds", () => {
  assert.deepEqual(rounds(mergePoints([point(5), point(9)], [point(7), point(1)])), [1, 5, 7, 9]);
});

test("the newest rounds stay exact however long the page is open, older ones grow fewer", () => {
  const merged = mergePoints(range(0, 20000).map((round) => point(round)), range(20001, 30000).map((round) => point(round)));
  const exact = merged.filter(({ round }) => round > 30000 - EXACT_ROUNDS);
  assert.equal(exact.length, EXACT_ROUNDS);
  assert.ok(merged.length - exact.length <= 2000);
  assert.equal(merged[0].round, 0);
});

test("an overview that was thinned out is completed for the newest rounds, newest first", () => {
  const overview = range(0, PAGE_POINTS - 1).map((index) => point(index * 10));
  const ranges = exactRanges(overview);
  const newest = overview.at(-1).round;
  assert.deepEqual(ranges[0], [newest - PAGE_POINTS + 1, newest]);
  assert.equal(ranges.length, EXACT_ROUNDS / PAGE_POINTS);
  assert.deepEqual(ranges.slice(1).map(([, to]) => to), ranges.slice(0, -1).map(([from]) => from - 1));
  assert.deepEqual(exactRanges([point(0), point(1)]), []);
});

test("there is nothing to draw before the first round", () => {
  assert.equal(isDrawable([], ["loss"]), false);
  assert.equal(isDrawable([point(0)], ["loss"]), false);
  assert.equal(isDrawable([point(0), point(1)], ["loss"]), true);
  assert.equal(isDrawable([point(1, { loss: null })], ["loss"]), false);
});

test("smoothing is an average without the start's bias; what is missing stays missing", () => {
  assert.deepEqual(smooth([2, 2, null, 2], 0.9).map((value) => value && Number(value.toFixed(9))), [2, 2, null, 2]);
  const [first, second] = smooth([1, 3], 0.5);
  assert.equal(first, 1);
  assert.ok(Math.abs(second - (0.25 * 1 + 0.5 * 3) / 0.75) < 1e-12);
  const values = [1, 2];
  assert.equal(smooth(values, 0), values);
});

test("columns rise in x, whatever clocks say, and the newest point of a place counts", () => {
  const points = [point(1), point(2, { time: 990 }), point(3)];
  const { columns: [xs, losses], points: drawn } = columns(points, [{ field: "loss" }], { axis: "time" });
  assert.deepEqual(xs, [990, 1003]);
  assert.deepEqual(rounds(drawn), [2, 3]);
  assert.equal(losses.length, 2);
});

test("an axis of tokens counts the tokens of a sample", () => {
  const { columns: [xs] } = columns([point(1), point(2)], [{ field: "loss" }], { axis: "tokens", tokensPerSample: 64 });
  assert.deepEqual(xs, [6400, 12800]);
});

test("a field that a point does not have is a gap", () => {
  assert.deepEqual(columns([point(1)], [{ field: "validationLoss" }]).columns[1], [null]);
});

test("a small curve fills its box, and needs two points", () => {
  assert.equal(sparkPath([3, null], 100, 20), "");
  assert.equal(sparkPath([4, 2], 100, 20, 0), "M0.0 0.0L100.0 20.0");
  assert.equal(sparkPath([2, 2], 100, 20, 0), "M0.0 20.0L100.0 20.0");
});

test("zooming halves and doubles the window around a place, and ends at the whole", () => {
  const whole = [0, 100];
  assert.deepEqual(zoom(null, whole, 1), [25, 75]);
  assert.deepEqual(zoom(null, whole, 1, 0), [0, 50]);
  assert.equal(zoom([25, 75], whole, -1), null);
  assert.deepEqual(select(20, 30, whole), [20, 30]);
  assert.equal(select(30, 30, whole), null);
  assert.equal(select(-5, 200, whole), null);
});

test("a window stays where it is while the curve grows; the whole grows with it", () => {
  assert.deepEqual(shown([20, 30], [0, 200]), [20, 30]);
  assert.deepEqual(shown(null, [0, 200]), [0, 200]);
  assert.deepEqual(shown(null, [5, 5]), [4, 6]);
});

test("the nearest point is found", () => {
  assert.deepEqual([-1, 1.4, 1.6, 9].map((value) => nearestIndex([0, 1, 2, 4], value)), [0, 1, 2, 3]);
  assert.equal(nearestIndex([], 3), -1);
});
