// The parts of a session's page: what stands where. They are told what to show and know nothing of the API.
import { drawChart, isDrawable, nearestPoint } from "/static/chart.js";
import { byId, element, row, showState, showText } from "/static/dom.js";
import { duration, number, percent, shortAddress } from "/static/format.js";

const TABLE_POINTS = 100;
const COPIED_MS = 2000;
const FINAL_STATES = ["stopped", "completed", "failed", "cancelled"];

const ADVICE = {
  draft: "This session has not been started yet.",
  pending: "Volunteers can join as soon as the session is opened.",
  waiting: "Waiting for volunteers: the command below takes part.",
  paused: "Paused: the volunteers keep their places and rest.",
  stopping: "Everybody ends the present round; then the model is saved.",
  stopped: "Stopped before the goal. What had been learnt is saved.",
  completed: "The goal is reached.",
  failed: "The session failed.",
  cancelled: "Cancelled. No model was saved.",
};

/** The states in which a session may wait for something, as `waitingFor` says. */
export const WAITING_STATES = ["pending", "waiting"];

function adviceFor(session, progress) {
  if (session.status !== "training") {
    const advice = ADVICE[session.status] ?? "";
    const reason = WAITING_STATES.includes(session.status) ? session.waitingFor?.message : "";
    return reason ? `${advice} It does not train yet: ${reason}.` : advice;
  }
  return progress.participants === 0 ? "Nobody is connected now: training goes on as soon as somebody joins." : "";
}

/** Name, state, description, error and join command. */
export function renderSession(session) {
  document.title = `${session.name} – cotrain`;
  byId("name").textContent = session.name;
  showState(byId("state"), session.status);
  showText("description", session.description);
  showText("error", session.errorMsg);
  byId("command").textContent = session.joinCommand;
  byId("join").hidden = FINAL_STATES.includes(session.status);
  byId("join-later").hidden = session.status !== "draft";
}

/** Who may steer the session, for those who may not; nothing where there is nothing left to steer. */
export function renderSteering({ owner, possibleActions }, isAllowed) {
  const who = owner ? `${shortAddress(owner)}, who opened this session, and operators` : "operators";
  showText("steering", isAllowed || possibleActions.length === 0 ? "" : `Only ${who} may steer it.`);
  byId("steering").title = owner;
}

/** Where the model is, and what it wrote; hidden until there is one. */
export function renderResult(session, sample) {
  byId("result").hidden = !session.modelPath;
  byId("model-path").textContent = session.modelPath;
  showText("sample", sample);
  byId("sample-title").hidden = sample === "";
}

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

/** The bar and the facts; `timeLeft` is in seconds, null where it is not known. */
export function renderProgress(session, progress, timeLeft) {
  const { metrics } = progress;
  byId("bar").value = progress.progress;
  byId("percent").textContent = percent(progress.progress);
  showText("advice", adviceFor(session, progress));
  const reached = [
    fact("Round", number(metrics.round)),
    fact("Samples", metrics.samplesWanted ? `${number(metrics.samplesCommitted)} / ${number(metrics.samplesWanted)}` : "–"),
    fact("Training loss", number(progress.loss, 3)),
    fact("Validation loss", number(metrics.validationLoss, 3)),
  ];
  byId("facts").replaceChildren(...reached, ...(FINAL_STATES.includes(session.status) ? [] : [
    fact("Time left", duration(timeLeft)),
    fact("Connected", number(progress.participants)),
    fact("Tokens/s", number(metrics.tokensPerSecond)),
    fact("Time in inner steps", percent(metrics.computeFraction && 100 * metrics.computeFraction)),
  ]));
}

/** The chart and the table beside it. */
export function renderPoints(points) {
  for (const id of ["legend", "chart", "rounds"]) byId(id).hidden = !isDrawable(points);
  byId("loss-empty").hidden = isDrawable(points);
  drawChart(byId("chart"), points);
  byId("points").replaceChildren(...points.slice(-TABLE_POINTS).reverse().map((point) => row([
    number(point.round), number(point.samples), number(point.loss, 3), number(point.validationLoss, 3),
    number(point.tokensPerSecond),
  ])));
}

function renderReadout(point) {
  byId("readout").textContent = point
    ? `round ${number(point.round)}: training ${number(point.loss, 3)}, validation ${number(point.validationLoss, 3)}`
    : "";
}

/** Keep the chart of `points()` right when its size or the page's colours change; returns what ends that. */
export function watchChart(points) {
  const chart = byId("chart");
  const redraw = () => drawChart(chart, points());
  const size = new ResizeObserver(redraw);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  size.observe(chart);
  dark.addEventListener("change", redraw);
  chart.onpointermove = (event) => renderReadout(nearestPoint(chart, points(), event.offsetX));
  chart.onpointerleave = () => renderReadout(null);
  return () => {
    size.disconnect();
    dark.removeEventListener("change", redraw);
  };
}

/** Nothing of the session that was shown before may look like this one's. */
export function clearParts() {
  for (const id of ["people", "log"]) byId(id).replaceChildren();
  for (const id of [
    "legend", "chart", "rounds", "loss-empty", "people-table", "people-empty", "people-differ", "log", "log-empty",
  ]) byId(id).hidden = true;
  renderReadout(null);
}

byId("copy").onclick = async () => {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    button.textContent = "Copied";
  } catch {
    // no clipboard without a secure context: select the text, so that the keyboard can copy it
    getSelection().selectAllChildren(byId("command"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, COPIED_MS);
};
