// How far a session is: the bar, and the figures below it.
import { format, t } from "../client/i18n.js";
import { secondsLeft } from "../logic/estimate.js";
import { census, phaseOf } from "../logic/phase.js";
import { isFinal } from "../logic/states.js";
import { Facts } from "../parts/facts.js";
import { useNow } from "../parts/hooks.js";
import { html } from "../parts/html.js";

const TICK_MS = 5000;
const PHASES = {
  starting: "phase.starting", joining: "phase.joining", downloading: "phase.downloading", training: "phase.training",
  averaging: "phase.averaging", finishing: "phase.finishing", done: "phase.done",
};

/** A phase's word in the present language. */
export const phaseWord = (phase) => (phase in PHASES ? t(PHASES[phase]) : phase);

function timeLeft({ session, progress, points, serverAheadS }, now) {
  const isMoving = session.status === "training" && progress.participants > 0;
  return isMoving ? secondsLeft(points ?? [], progress.metrics.samplesWanted, now + serverAheadS) : null;
}

function reached({ progress, tokens }) {
  const { metrics } = progress;
  const samples = metrics.samplesWanted
    ? t("facts.ofWanted", { reached: metrics.samplesCommitted, wanted: metrics.samplesWanted })
    : format.number(metrics.samplesCommitted);
  return [
    ["facts.round", format.number(metrics.round)],
    ["facts.samples", samples],
    ...(tokens === null ? [] : [["facts.tokens", format.compact(metrics.samplesCommitted * tokens)]]),
    ["facts.loss", format.number(progress.loss, 3)],
    ["facts.validationLoss", format.number(metrics.validationLoss, 3)],
    ...(metrics.accuracy === null ? [] : [["facts.accuracy", format.percent(100 * metrics.accuracy)]]),
  ];
}

function running({ progress, people }, left, phase) {
  const { metrics } = progress;
  const { bytesSent, bytesReceived } = census(people?.items ?? []);
  const about = left === null ? format.roughly(null) : t("facts.about", { time: format.roughly(left) });
  return [
    ["facts.phase", phase ? phaseWord(phase) : format.number(null)],
    ["facts.timeLeft", about],
    ["facts.connected", format.number(progress.participants)],
    ["facts.speed", format.number(metrics.tokensPerSecond)],
    ["facts.computing", format.percent(metrics.computeFraction === null ? null : 100 * metrics.computeFraction)],
    ["facts.learningRate", format.significant(metrics.learningRate, 3)],
    ["facts.traffic", t("facts.sentReceived", { sent: format.bytes(bytesSent), received: format.bytes(bytesReceived) })],
  ];
}

/** `state` is what is known of the session; `tokens`: tokens in a sample, null where that is not fixed. */
export function SessionFacts({ state, tokens }) {
  const now = useNow(TICK_MS);
  const { session, progress, people } = state;
  const phase = phaseOf(people?.items ?? [], people?.checkpointer);
  const facts = [
    ...reached({ progress, tokens }),
    ...(isFinal(session.status) ? [] : running(state, timeLeft(state, now), phase)),
  ];
  return html`<section class="panel" aria-label=${t("progress.title")}>
    <div class="progress-row">
      <progress id="bar" max="100" value=${progress.progress} aria-label=${t("progress.title")}></progress>
      <output id="percent" class="percent">${format.percent(progress.progress)}</output></div>
    <${Facts} id="facts" facts=${facts} />
  </section>`;
}
