// States of sessions, participants, jobs and learning cycles: a word and a shape, so that no colour is needed to tell them apart.
import { t } from "../client/i18n.js";
import { html } from "./html.js";

const STATES = {
  draft: { key: "state.draft", shape: "dashed", tone: "quiet" },
  pending: { key: "state.pending", shape: "clock", tone: "wait" },
  waiting: { key: "state.waiting", shape: "clock", tone: "wait" },
  training: { key: "state.training", shape: "running", tone: "good" },
  paused: { key: "state.paused", shape: "paused", tone: "wait" },
  stopping: { key: "state.stopping", shape: "square", tone: "wait" },
  stopped: { key: "state.stopped", shape: "square", tone: "quiet" },
  completed: { key: "state.completed", shape: "check", tone: "good" },
  failed: { key: "state.failed", shape: "cross", tone: "bad" },
  cancelled: { key: "state.cancelled", shape: "cross", tone: "quiet" },
  online: { key: "state.online", shape: "dot", tone: "good" },
  joining: { key: "state.joining", shape: "clock", tone: "wait" },
  unreachable: { key: "state.unreachable", shape: "warning", tone: "wait" },
  offline: { key: "state.offline", shape: "dashed", tone: "quiet" },
  queued: { key: "state.queued", shape: "clock", tone: "wait" },
  running: { key: "state.running", shape: "running", tone: "good" },
  collecting: { key: "state.collecting", shape: "running", tone: "good" },
  switching: { key: "state.switching", shape: "running", tone: "good" },
  evaluating: { key: "state.evaluating", shape: "running", tone: "good" },
  promoting: { key: "state.promoting", shape: "running", tone: "good" },
  reporting: { key: "state.reporting", shape: "running", tone: "good" },
  promoted: { key: "state.promoted", shape: "check", tone: "good" },
  kept: { key: "state.kept", shape: "square", tone: "quiet" },
  "not-significant": { key: "state.notSignificant", shape: "dashed", tone: "quiet" },
};

/** Paths in a box of 16 by 16. */
const SHAPES = {
  dot: "M8 3.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9z",
  running: "M4.5 2.5v11l9-5.5z",
  paused: "M4 3h3v10H4zM9 3h3v10H9z",
  square: "M3.5 3.5h9v9h-9z",
  check: "M3 8.5l3.5 3.5L13 4.5",
  cross: "M4 4l8 8M12 4l-8 8",
  clock: "M8 2a6 6 0 1 0 0 12a6 6 0 1 0 0-12zM8 4.5V8l2.5 1.5",
  warning: "M8 2.5L14 13H2zM8 6.5v3M8 11.3v.2",
  "thumb-up": "M2 7h2.5v7H2zM6 7l3-5c1.2 0 1.7 1 1.4 2L9.8 6.5H13c1 0 1.5.8 1.3 1.7l-1.1 4.6c-.2.7-.7 1.2-1.4 1.2H6z",
  "thumb-down": "M2 9h2.5V2H2zM6 9l3 5c1.2 0 1.7-1 1.4-2L9.8 9.5H13c1 0 1.5-.8 1.3-1.7l-1.1-4.6C13 2.5 12.5 2 11.8 2H6z",
  dashed: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z",
};
const OUTLINED = ["check", "cross", "clock", "warning", "dashed"];

/** A mark beside a word. */
export function Shape({ name }) {
  const kind = OUTLINED.includes(name) ? "outlined" : "filled";
  return html`<svg class="shape ${kind} ${name}" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
    <path d=${SHAPES[name]} /></svg>`;
}

/** The state's word in the present language. */
export const stateWord = (state) => (state in STATES ? t(STATES[state].key) : state);

/** A state as a small mark; `id` where others refer to it. */
export function Badge({ state, id }) {
  const { shape = "dashed", tone = "quiet" } = STATES[state] ?? {};
  return html`<span id=${id} class="badge ${tone}" data-state=${state}><${Shape} name=${shape} />${stateWord(state)}</span>`;
}
