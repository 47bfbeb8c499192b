// All that the page knows of one session, and how it changes. Pure: every function answers with a new state.
import { mergePoints } from "./curve.js";
import { MOST_LIVE, withNewestPage, withOlderPage, withRecord } from "./records.js";

/** Before anything is known. */
export const EMPTY = Object.freeze({
  session: null, progress: null, people: null, points: null, records: null, fresh: [], olderLog: null,
  checkpoints: null, config: null, isGone: false, serverAheadS: 0,
});

/** A snapshot {session, progress} as the event stream begins with. */
export const withSnapshot = (state, { session, progress }, serverAheadS) =>
  ({ ...state, session, progress, serverAheadS, isGone: false });

/** A session as the API answers it. */
export const withSession = (state, session) => ({ ...state, session });

/** Why the session waits; an answer of another state than the last event's is older or newer: another one will come. */
export function withWaiting(state, { status, waitingFor }) {
  if (state.session === null || status !== state.session.status) return state;
  return { ...state, session: { ...state.session, waitingFor } };
}

function withState(state, { status, errorMsg, modelPath, possibleActions }) {
  return { ...state, session: { ...state.session, status, errorMsg, modelPath, possibleActions, waitingFor: null } };
}

function withLogRecord(state, record) {
  const fresh = [record, ...state.fresh].slice(0, MOST_LIVE);
  return { ...state, fresh, records: state.records === null ? null : withRecord(state.records, record) };
}

/** An event of the stream. `isPast`: it is older than the last snapshot, and only what it adds to the log counts. */
export function withEvent(state, { type, time, data }, { isPast, clientTime }) {
  if (type === "training.log") return withLogRecord(state, data);
  if (isPast) return state;
  const timed = { ...state, serverAheadS: time - clientTime };
  if (type === "session.state") return withState(timed, data);
  if (type === "training.progress") return { ...timed, progress: data };
  return timed;
}

/** To be called when the newest page of the log is asked for: what comes meanwhile may be missing in it. */
export const withLogAsked = (state) => ({ ...state, fresh: [] });

/** The newest page of the log. */
export const withLogPage = (state, { items, nextCursor }) =>
  ({ ...state, records: withNewestPage(items, state.fresh), olderLog: nextCursor });

/** The page behind those that are known. */
export const withOlderLog = (state, { items, nextCursor }) =>
  ({ ...state, records: withOlderPage(state.records ?? [], items), olderLog: nextCursor });

/** Points of the curves. `isWhole`: they replace what is known. */
export const withPoints = (state, items, { isWhole = false } = {}) =>
  ({ ...state, points: mergePoints(isWhole || state.points === null ? [] : state.points, items) });

/** The session's page was asked for, and there is none. */
export const withoutSession = (state) => ({ ...state, session: null, isGone: true });
