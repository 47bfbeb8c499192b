// How long to wait before a connection is tried again. Pure.

const FIRST_MS = 500;
const LONGEST_MS = 15000;

/**
 * Milliseconds before attempt `attempt` (0: the first after a break): doubling, 15 seconds at most. `random`, 0 to 1, spreads
 * it over its upper half, so that a coordinator that comes back is not met by everybody at once.
 */
export function reconnectDelay(attempt, random) {
  const longest = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 16));
  return longest * (0.5 + random / 2);
}
