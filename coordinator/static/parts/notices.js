// What is told above every view: that the coordinator is away, and what went wrong.
import { connection } from "../client/connection.js";
import { format, messageOf, t } from "../client/i18n.js";
import { problem, showProblem } from "../client/problem.js";
import { useStore } from "./hooks.js";
import { html } from "./html.js";

/** "live" or "reconnecting", beside a mark. */
export function ConnectionMark() {
  const { state } = useStore(connection);
  const words = { live: "connection.live", away: "connection.away" };
  return html`<p id="connection" class="connection" data-state=${state}>${state ? t(words[state]) : ""}</p>`;
}

/** The banner while the coordinator does not answer. The element stays, so that screen readers hear of its text. */
export function AwayBanner() {
  const { state, since } = useStore(connection);
  return html`<p id="away" class="notice wait" role="status" hidden=${state !== "away"}>
    ${state === "away" ? t("connection.since", { time: format.clock(since) }) : ""}</p>`;
}

/** What went wrong last. */
export function ProblemNotice() {
  const error = useStore(problem);
  return html`<div class="notice bad" role="alert" hidden=${error === null}>
    <p id="problem" dir="auto">${error ? messageOf(error) : ""}</p>
    ${error && html`<button type="button" class="plain" onClick=${() => showProblem(null)}>${t("action.dismiss")}</button>`}
  </div>`;
}
