// The training log, newest first. Records come in pages of the API and, one by one, from the event stream. Pure.

/** Records that are kept when they come by the event stream. */
export const MOST_LIVE = 400;
/** Records that are kept in all, the older ones that were asked for among them. */
export const MOST_KEPT = 2000;

/** Who writes records besides the participants. */
export const CHECKPOINTER = "checkpointer";
export const COORDINATOR = "coordinator";

export const keyOf = (record) => `${record.source} ${record.run} ${record.number}`;

/** Those of `records` that are not among `others`. */
function without(records, others) {
  const known = new Set(others.map(keyOf));
  return records.filter((record) => !known.has(keyOf(record)));
}

/** With a record of the event stream in front, unless it is there already. */
export function withRecord(records, record) {
  const key = keyOf(record);
  if (records.some((known) => keyOf(known) === key)) return records;
  return [record, ...records].slice(0, Math.max(MOST_LIVE, Math.min(records.length, MOST_KEPT)));
}

/** The newest page, with what has come by the event stream since it was asked for in front of it. */
export const withNewestPage = (page, fresh) => [...without(fresh, page), ...page];

/** With an older page behind. */
export const withOlderPage = (records, page) => [...records, ...without(page, records)].slice(0, MOST_KEPT);

/** Those that a reader wants to see: `level` at least ("info" is all), of `source` if there is one, with `text` in them. */
export function filterRecords(records, { level = "info", source = "", text = "" }) {
  const levels = { info: ["info", "warning", "error"], warning: ["warning", "error"], error: ["error"] }[level];
  const wanted = text.trim().toLocaleLowerCase();
  return records.filter((record) => levels.includes(record.level)
    && (source === "" || record.source === source)
    && record.message.toLocaleLowerCase().includes(wanted));
}

/** What the finished model wrote when the checkpointer tried it; empty if it has not. */
export function sampleOf(records) {
  const sample = records.find((record) => record.source === CHECKPOINTER && record.data.sample)?.data.sample;
  return typeof sample === "string" ? sample.trim() : "";
}

/** The evaluations of the checkpointer, newest first: {round, time, metrics}. */
export function evaluationsOf(records) {
  const found = records.filter((record) => record.source === CHECKPOINTER && record.kind === "evaluation");
  return found.map(({ time, data: { round, samples, targets, ...rest } }) => ({
    round, time, samples, targets,
    metrics: Object.fromEntries(Object.entries(rest).filter(([, value]) => typeof value === "number")),
  }));
}
