// A session's name, state, and what can be done with it now.
import { t } from "../client/i18n.js";
import { identity, maySteer } from "../client/identity.js";
import { connection } from "../client/connection.js";
import { shortAddress } from "../logic/format.js";
import { isSavable, mayWait } from "../logic/states.js";
import { Badge } from "../parts/badge.js";
import { Question } from "../parts/dialog.js";
import { useStore } from "../parts/hooks.js";
import { html, useState } from "../parts/html.js";

const ACTIONS = {
  start: { label: "action.start", style: "primary" },
  resume: { label: "action.resume", style: "primary" },
  pause: { label: "action.pause" },
  save: { label: "action.save" },
  stop: { label: "action.stop", title: "stop.title", text: "stop.text" },
  cancel: { label: "action.cancel", style: "danger", title: "cancel.title", text: "cancel.text" },
};

const ADVICE = {
  draft: "advice.draft", pending: "advice.pending", waiting: "advice.waiting", paused: "advice.paused",
  stopping: "advice.stopping", stopped: "advice.stopped", completed: "advice.completed", failed: "advice.failed",
  cancelled: "advice.cancelled",
};

/** What the state means for people, and what is waited for. */
function adviceOf(session, progress) {
  if (session.status === "training") return progress.participants === 0 ? t("advice.nobody") : "";
  const advice = session.status in ADVICE ? t(ADVICE[session.status]) : "";
  const reason = mayWait(session.status) ? session.waitingFor?.message : "";
  return reason ? `${advice} ${t("advice.waitsFor", { reason })}` : advice;
}

/** Actions that the session allows now, in the order in which they are shown. */
function possibleActions({ possibleActions: possible, status }) {
  return Object.keys(ACTIONS).filter((action) => (action === "save" ? isSavable(status) : possible.includes(action)));
}

function Actions({ live, session, isAllowed, isBusy, onSaved }) {
  const { state: reachable } = useStore(connection);
  const [asked, setAsked] = useState(null);
  const possible = isAllowed ? possibleActions(session) : [];
  const act = async (action) => (action === "save" ? onSaved(await live.save()) : live.act(action));
  const press = (action) => (ACTIONS[action].title ? setAsked(action) : act(action));
  const answer = (isWanted) => {
    setAsked(null);
    if (isWanted) act(asked);
  };
  const { label, style = "", title, text } = ACTIONS[asked] ?? {};
  const question = asked && { title: t(title), text: t(text), label: t(label), style };
  return html`<fieldset id="actions" class="buttons" aria-label=${t("actions.title")} hidden=${possible.length === 0}
      disabled=${isBusy || reachable !== "live"}>
      ${possible.map((action) => html`<button key=${action} type="button" data-action=${action}
        class=${ACTIONS[action].style ?? ""} onClick=${() => press(action)}>${t(ACTIONS[action].label)}</button>`)}
    </fieldset><${Question} question=${question} onAnswer=${answer} />`;
}

/** Who may steer the session, for those who may not; nothing where there is nothing left to steer. */
function Steering({ session, isAllowed }) {
  if (isAllowed || session.possibleActions.length === 0) return html`<p id="steering" hidden></p>`;
  const text = session.owner ? t("steering.owner", { owner: shortAddress(session.owner) }) : t("steering.operators");
  return html`<p id="steering" class="quiet" title=${session.owner}>${text}</p>`;
}

/** The page's head; `live` is the LiveSession that actions go to. */
export function SessionHead({ live, session, progress, isBusy, onSaved }) {
  const me = useStore(identity);
  const isAllowed = maySteer(me, session);
  const advice = adviceOf(session, progress);
  return html`<header class="session-head">
    <p class="back"><a href="#/">${t("session.back")}</a></p>
    <div class="title-row"><h1 id="name" dir="auto">${session.name}</h1><${Badge} id="state" state=${session.status} />
      ${session.visibility === "private" && html`<span class="badge quiet">${t("session.private")}</span>`}</div>
    <p id="description" class="quiet" dir="auto" hidden=${!session.description}>${session.description}</p>
    <p id="error" class="notice bad" dir="auto" hidden=${!session.errorMsg}>${session.errorMsg}</p>
    <p id="advice" class="advice" role="status" hidden=${!advice}>${advice}</p>
    <${Actions} live=${live} session=${session} isAllowed=${isAllowed} isBusy=${isBusy} onSaved=${onSaved} />
    <${Steering} session=${session} isAllowed=${isAllowed} /></header>`;
}
