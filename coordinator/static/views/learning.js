// How chats become data, and data the next version of a model: how it stands, and what the cycles came to.
import { getJson, getPages, postJson } from "../client/api.js";
import { format, messageOf, t } from "../client/i18n.js";
import { identity } from "../client/identity.js";
import { markOf, readiness } from "../logic/learning.js";
import { modelAddress } from "../logic/route.js";
import { Facts } from "../parts/facts.js";
import { useKept, useLoaded, useStore, useTitle } from "../parts/hooks.js";
import { useRefreshed } from "../parts/refreshed.js";
import { html, useState } from "../parts/html.js";
import { Cycles } from "./learning_cycles.js";
import { Growth } from "./learning_growth.js";

const CALM_MS = 5000;
const RUNNING_MS = 1500;

function nextOf({ running, nextAt }) {
  if (running) return t("learning.now");
  return nextAt ? format.clock(new Date(nextAt)) : t("learning.onRequest");
}

function Chats({ standing: { chats, minChats } }) {
  const words = t("learning.chatsOf", { chats, wanted: minChats });
  return html`<div><h3 id="chats-title">${t("learning.chats")}</h3><div class="progress-row">
    <progress id="chats" max="1" value=${readiness({ chats, minChats })} aria-labelledby="chats-title" aria-valuetext=${words}></progress>
    <output id="chats-count" class="percent">${words}</output></div></div>`;
}

/** The button of an operator, and what came of it. `said`: {key} or {error}, null before anything was asked. */
function Begin({ standing: { running, chats, minChats }, onBegun }) {
  const me = useStore(identity);
  const [said, setSaid] = useState(null);
  const [isBusy, setBusy] = useState(false);
  if (!me?.operator) return null;
  const begin = async () => {
    setBusy(true);
    try {
      await postJson("/api/v1/learning/cycle");
      setSaid({ key: "learning.begun" });
      onBegun();
    } catch (error) {
      setSaid({ error });
    }
    setBusy(false);
  };
  const isShort = chats < minChats;
  return html`<div class="buttons submit">
    <button id="begin" type="button" class="primary" disabled=${isBusy || running || isShort}
      onClick=${begin}>${t("learning.begin")}</button>
    ${isShort && !running && html`<p class="quiet">${t("learning.tooFew", { count: minChats })}</p>`}
    <p id="begun" role="status" class=${said?.error ? "bad" : "good"} dir="auto"
      >${said && (said.error ? messageOf(said.error) : t(said.key))}</p>
  </div>`;
}

function Standing({ standing, onBegun }) {
  const { model, promotedVersion, datasetVersion, datasetSize, heldOut, maxSize } = standing;
  const data = datasetVersion === null ? "–" : t("learning.samples", { size: datasetSize, heldOut });
  const facts = [
    ["learning.model", html`<a href=${modelAddress(model)} dir="auto">${model}</a>`],
    ["learning.answering", promotedVersion === null ? t("learning.newest") : t("learning.version", { version: promotedVersion })],
    ["learning.next", nextOf(standing)],
    ["learning.data", data, datasetVersion === null ? "" : t("learning.version", { version: datasetVersion })],
    ["learning.room", format.number(maxSize)],
  ];
  return html`<section class="panel" aria-labelledby="standing-title"><h2 id="standing-title">${t("learning.standing")}</h2>
    <${Facts} id="standing" facts=${facts} /><${Chats} standing=${standing} />
    <${Begin} standing=${standing} onBegun=${onBegun} /></section>`;
}

/** The cycles of the first `pages` pages; asked for again when `mark` changes. */
function History({ mark }) {
  const [pages, setPages] = useState(1);
  const { value, error } = useLoaded(() => getPages("/api/v1/learning/log", pages), [pages, mark]);
  const list = useKept(value);
  if (error) return html`<p class="notice bad" role="alert">${messageOf(error)}</p>`;
  if (list === null) return html`<p class="quiet" aria-busy="true">${t("loading")}</p>`;
  if (list.items.length === 0) return html`<p id="cycles-empty" class="quiet">${t("learning.empty")}</p>`;
  return html`<${Growth} cycles=${list.items} /><${Cycles} cycles=${list.items} />
    ${list.nextCursor && html`<button id="cycles-more" type="button" onClick=${() => setPages(pages + 1)}
      >${t("learning.more")}</button>`}`;
}

/** The view of auto-learning. */
export function LearningView() {
  const [isRunning, setRunning] = useState(false);
  const { value: standing, ask } = useRefreshed(async () => {
    const answer = await getJson("/api/v1/learning");
    setRunning(answer.running);
    return answer;
  }, isRunning ? RUNNING_MS : CALM_MS, []);
  useTitle(t("nav.learning"));
  return html`<section id="learning" aria-labelledby="learning-title"><h1 id="learning-title">${t("nav.learning")}</h1>
    <p class="quiet">${t("learning.what")}</p>
    ${standing === null && html`<p class="quiet" aria-busy="true">${t("loading")}</p>`}
    ${standing && standing.model === null && html`<p id="learning-none" class="notice">${t("learning.none")}</p>`}
    ${standing?.model && html`<${Standing} standing=${standing} onBegun=${ask} /><${History} mark=${markOf(standing)} />`}</section>`;
}
