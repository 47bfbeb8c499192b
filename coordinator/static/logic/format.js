// Numbers, times and sizes as people write them in a language. Pure.

const NOTHING = "–";
const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;
const BYTE_UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte", "petabyte"];

const isKnown = (value) => value !== null && value !== undefined && Number.isFinite(value);

function numberFormats(language) {
  const made = new Map();
  return (options) => {
    const key = JSON.stringify(options);
    if (!made.has(key)) made.set(key, new Intl.NumberFormat(language, options));
    return made.get(key);
  };
}

/** The writing of a language: functions of values, each giving a dash for what is not known. */
export function formatsOf(language) {
  const format = numberFormats(language);
  const fixed = (digits) => format({ minimumFractionDigits: digits, maximumFractionDigits: digits });
  const unit = (name, digits, display) =>
    format({ style: "unit", unit: name, unitDisplay: display, maximumFractionDigits: digits });
  const timeOfDay = new Intl.DateTimeFormat(language, { timeStyle: "medium" });
  const dayAndTime = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  const short = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

  /** A number with a fixed count of decimals. */
  const number = (value, digits = 0) => (isKnown(value) ? fixed(digits).format(value) : NOTHING);

  /** A percentage, 12.34 -> 12.3 %, on one line. */
  const percent = (value, digits = 1) => {
    if (!isKnown(value)) return NOTHING;
    const options = { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits };
    return format(options).format(value / 100);
  };

  /** 1234567 -> 1.2M: for axes and tight places. */
  const compact = (value) =>
    (isKnown(value) ? format({ notation: "compact", maximumFractionDigits: 1 }).format(value) : NOTHING);

  /** A loss or a learning rate: as many digits as tell two apart. */
  const significant = (value, digits = 4) => {
    if (!isKnown(value)) return NOTHING;
    const isTiny = value !== 0 && Math.abs(value) < 1e-6;
    return format({ maximumSignificantDigits: digits, ...(isTiny ? { notation: "scientific" } : {}) }).format(value);
  };

  /** A number of bytes in the unit that fits it; thousands, as networks count. */
  const bytes = (value) => {
    if (!isKnown(value)) return NOTHING;
    const power = value < 1000 ? 0 : Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log10(value) / 3));
    const scaled = value / 1000 ** power;
    return unit(BYTE_UNITS[power], scaled < 10 && power > 0 ? 1 : 0, "short").format(scaled);
  };

  /** A length of time in seconds, as exact as an estimate deserves. */
  const roughly = (seconds) => {
    if (!isKnown(seconds)) return NOTHING;
    if (seconds < HOUR_S) return unit("minute", 0, "short").format(Math.max(1, Math.round(seconds / MINUTE_S)));
    if (seconds < 2 * DAY_S) return unit("hour", 1, "short").format(seconds / HOUR_S);
    return unit("day", 0, "long").format(Math.round(seconds / DAY_S));
  };

  /** A measured length of time in seconds. */
  const seconds = (value, digits = 1) => (isKnown(value) ? unit("second", digits, "short").format(value) : NOTHING);

  /** Time of day, with the date before it unless it is today's. */
  const clock = (date, now = new Date()) =>
    (date.toDateString() === now.toDateString() ? timeOfDay : dayAndTime).format(date);

  return {
    number, percent, compact, significant, bytes, roughly, seconds, clock,
    dayAndTime: (date) => dayAndTime.format(date), shortTime: (date) => short.format(date),
  };
}

/** eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72 -> 0x8ba1…BA72 */
export function shortAddress(account) {
  const address = account.split(":").at(-1);
  return `${address.slice(0, 6)}…${address.slice(-4)}`;
}
