// Numbers and times as people read them, in the browser's language.

const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;
const NOTHING = "–";

/** A number with a fixed count of decimals; a dash for one that is not known. */
export function number(value, digits = 0) {
  if (value === null || value === undefined) return NOTHING;
  return value.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** 12.34 -> "12.3 %", on one line; a dash for one that is not known. */
export const percent = (value) => (value === null ? NOTHING : `${number(value, 1)}\u00a0%`);

/** Time of day, with the date before it unless it is today's. */
export function clock(date) {
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** A length of time in seconds, as exact as an estimate deserves. */
export function duration(seconds) {
  if (seconds === null) return NOTHING;
  if (seconds < MINUTE_S) return "under a minute";
  if (seconds < HOUR_S) return `about ${Math.round(seconds / MINUTE_S)} min`;
  if (seconds < 2 * DAY_S) return `about ${number(seconds / HOUR_S, 1)} h`;
  return `about ${Math.round(seconds / DAY_S)} days`;
}

/** eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72 -> 0x8ba1…BA72 */
export function shortAddress(account) {
  const address = account.split(":").at(-1);
  return `${address.slice(0, 6)}…${address.slice(-4)}`;
}
