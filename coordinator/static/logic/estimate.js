// How long a session still takes, from the rounds that it has done. Pure.

const RECENT_ROUNDS = 12;
const STALLED_ROUNDS = 4;
const PATIENCE_S = 30;

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Seconds until `samplesWanted` are committed, or null where nothing honest can be said: before the second round, and
 * when the present one takes far longer than usual.
 *
 * `points` are {round, samples, time} in order, `time` and `now` Unix seconds of the coordinator's clock. Medians, so
 * that a pause between two rounds does not count as their speed.
 */
export function secondsLeft(points, samplesWanted, now) {
  // round 0 is the untrained model: the time after it was spent waiting for volunteers
  const recent = points.filter((point) => point.round > 0).slice(-RECENT_ROUNDS);
  const rounds = recent.slice(1)
    .map((point, index) => ({ samples: point.samples - recent[index].samples, seconds: point.time - recent[index].time }))
    .filter(({ samples, seconds }) => samples > 0 && seconds > 0);
  if (rounds.length === 0) return null;
  const last = recent.at(-1);
  const waited = Math.max(0, now - last.time);
  if (waited > Math.max(PATIENCE_S, STALLED_ROUNDS * median(rounds.map(({ seconds }) => seconds)))) return null;
  const speed = median(rounds.map(({ samples, seconds }) => samples / seconds));
  return Math.max(0, (samplesWanted - last.samples) / speed - waited);
}
