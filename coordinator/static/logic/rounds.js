// Where the time of rounds goes, as the participants' records of them say. Pure.

import { CHECKPOINTER } from "./records.js";

const NONE = 0;
const numberOf = (value) => (typeof value === "number" && Number.isFinite(value) && value > 0 ? value : NONE);

/** Records of rounds by whoever trains, oldest first. */
function ownRounds(records) {
  const found = records.filter(({ kind, source, data }) =>
    kind === "round" && source !== CHECKPOINTER && Number.isInteger(data.round));
  return found.sort((a, b) => a.data.round - b.data.round || a.time - b.time);
}

/**
 * One participant's round, in seconds, by its own clock: all its time since its round before, less what it says it has waited
 * for the swarm and spent on the outer step, was spent computing.
 */
function partsOf(before, { time, data }) {
  const length = time - before.time;
  const waiting = Math.min(length, numberOf(data.waitedSeconds));
  const synchronizing = Math.min(length - waiting, numberOf(data.applyingSeconds));
  return { computing: length - waiting - synchronizing, synchronizing, waiting };
}

const mean = (values) => (values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length);

function summary(round, entries) {
  const parts = entries.flatMap(({ split }) => (split ? [split] : []));
  const of = (name) => mean(parts.map((part) => part[name]));
  const total = (name) => entries.reduce((sum, { record }) => sum + numberOf(record.data[name]), 0);
  return {
    round,
    computing: of("computing"), synchronizing: of("synchronizing"), waiting: of("waiting"),
    averaging: mean(entries.map(({ record: { data } }) => numberOf(data.matchmakingSeconds) + numberOf(data.reducingSeconds))),
    bytesSent: total("bytesSent"), bytesReceived: total("bytesReceived"), reports: entries.length,
  };
}

/**
 * Rounds in order: {round, computing, synchronizing, waiting (means of those who report, seconds; null where the round before
 * is not at hand), averaging (mean seconds, beside the computing), bytesSent, bytesReceived (of all who report), reports}.
 */
export function roundSummaries(records) {
  const last = new Map();
  const rounds = new Map();
  for (const record of ownRounds(records)) {
    const run = `${record.source} ${record.run}`;
    const before = last.get(run);
    const follows = before !== undefined && before.data.round === record.data.round - 1 && record.time > before.time;
    const entries = rounds.get(record.data.round) ?? [];
    rounds.set(record.data.round, [...entries, { record, split: follows ? partsOf(before, record) : null }]);
    last.set(run, record);
  }
  return [...rounds].sort(([a], [b]) => a - b).map(([round, entries]) => summary(round, entries));
}
