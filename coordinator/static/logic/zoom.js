// The window of a chart: [low, high] on its x axis, null for the whole curve, which then follows what comes. Pure.

const STEP = 2;

/** The window clamped to `whole`; null where it is all of it. */
function within([low, high], whole) {
  const from = Math.max(low, whole[0]);
  const to = Math.min(high, whole[1]);
  return from <= whole[0] && to >= whole[1] ? null : [from, to];
}

/** Half as wide (`direction` 1) or twice (-1), around `centre` (null: the middle). */
export function zoom(window, whole, direction, centre = null) {
  const [low, high] = window ?? whole;
  const middle = centre === null ? (low + high) / 2 : Math.min(Math.max(centre, low), high);
  const factor = direction > 0 ? 1 / STEP : STEP;
  return within([middle - (middle - low) * factor, middle + (high - middle) * factor], whole);
}

/** The window that a person has drawn; null (the whole) where it has no width. */
export const select = (low, high, whole) => (high > low ? within([low, high], whole) : null);

/** What of a curve is shown: the whole where there is no window; never without a width. */
export function shown(window, whole) {
  const [low, high] = window ?? whole;
  return low < high ? [low, high] : [low - 1, high + 1];
}

/** The index of the number in `sorted` that is nearest to `value`; -1 for an empty list. */
export function nearestIndex(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  const isBefore = low > 0 && value - sorted[low - 1] < sorted[low] - value;
  return isBefore ? low - 1 : Math.min(low, sorted.length - 1);
}
