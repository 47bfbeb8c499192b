// The points of a session's curves, and what is drawn of them. Pure.
//
// A point is {round, samples, time, loss, validationLoss, tokensPerSecond, learningRate}: one a round, `time` in Unix
// seconds.

/** Rounds behind the newest one that are drawn exactly. */
export const EXACT_ROUNDS = 10000;
/** Points that the API answers at most. */
export const PAGE_POINTS = 2000;
/** Points older than the exact ones that are kept. */
const MOST_OLD = 2000;

export const AXES = ["samples", "tokens", "round", "time"];

/** Old and new points in the order of their rounds, each round once; of two for a round the new one counts. */
export function mergePoints(known, fresh) {
  const byRound = new Map(known.map((point) => [point.round, point]));
  for (const point of fresh) byRound.set(point.round, point);
  return thinOld([...byRound.values()].sort((a, b) => a.round - b.round));
}

/** Every second one of those that are older than the exact ones goes, for as often as there are too many. */
function thinOld(points) {
  const first = (points.at(-1)?.round ?? 0) - EXACT_ROUNDS;
  const count = points.findIndex((point) => point.round > first);
  if (count <= MOST_OLD) return points;
  const step = 2 ** Math.ceil(Math.log2(count / MOST_OLD));
  return points.filter((point, index) => index >= count || index % step === 0);
}

/**
 * The ranges [from, to] of rounds to ask for when an overview was thinned out: the exact rounds, newest first. None where the
 * overview holds every point already.
 */
export function exactRanges(overview) {
  if (overview.length < PAGE_POINTS) return [];
  const newest = overview.at(-1).round;
  const ranges = [];
  for (let to = newest; to >= 0 && newest - to < EXACT_ROUNDS; to -= PAGE_POINTS) {
    ranges.push([Math.max(0, to - PAGE_POINTS + 1), to]);
  }
  return ranges;
}

/** The round from which to ask for points again: the newest known one may have been completed since. */
export const resumeRound = (points) => points.at(-1)?.round ?? 0;

/** Whether there is a line to draw: round 0 alone is the untrained model. */
export const isDrawable = (points, fields) =>
  points.some((point) => point.round > 0 && fields.some((field) => typeof point[field] === "number"));

/**
 * Exponential moving average with the start's bias taken out; `weight` 0 (as it is) to below 1. A null stays one, and does not
 * break the average.
 */
export function smooth(values, weight) {
  if (weight <= 0) return values;
  let sum = 0;
  let count = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    count += 1;
    return sum / (1 - weight ** count);
  });
}

function placeOf(point, axis, tokensPerSample) {
  if (axis === "tokens") return point.samples * tokensPerSample;
  return point[axis];
}

/**
 * Columns for a chart: {points, columns: [x, one for each of `fields`]}. Points whose x does not rise are left out (a clock
 * that was set back, rounds that brought no samples), the newest of them stays.
 */
export function columns(points, fields, { axis = "samples", tokensPerSample = 1, smoothing = 0 } = {}) {
  const drawn = [];
  const places = [];
  for (const point of points) {
    const place = placeOf(point, axis, tokensPerSample);
    while (places.length > 0 && places.at(-1) >= place) {
      places.pop();
      drawn.pop();
    }
    places.push(place);
    drawn.push(point);
  }
  const series = fields.map(({ field, isSmoothed }) => {
    const values = drawn.map((point) => point[field] ?? null);
    return isSmoothed ? smooth(values, smoothing) : values;
  });
  return { points: drawn, columns: [places, ...series] };
}

/** The `d` of an SVG path through `values` (nulls left out), filling a box of this size; empty for fewer than two. */
export function sparkPath(values, width, height, margin = 1.5) {
  const known = values.map((value, index) => [index, value]).filter(([, value]) => Number.isFinite(value));
  if (known.length < 2) return "";
  const numbers = known.map(([, value]) => value);
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const [first, last] = [known[0][0], known.at(-1)[0]];
  const x = (index) => margin + ((index - first) / (last - first)) * (width - 2 * margin);
  const y = (value) => height - margin - ((value - low) / (high - low || 1)) * (height - 2 * margin);
  return known.map(([index, value], number) => `${number ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}
