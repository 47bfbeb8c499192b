// The list of sessions, with a filter and a search, kept up to date.
import { AwayError, getJson, getPages } from "../client/api.js";
import { format, languageStore, t } from "../client/i18n.js";
import { showProblem } from "../client/problem.js";
import { sessionAddress } from "../logic/route.js";
import { GROUPS, countGroups, filterSessions, isRunning } from "../logic/states.js";
import { Badge } from "../parts/badge.js";
import { useTitle } from "../parts/hooks.js";
import { useRefreshed } from "../parts/refreshed.js";
import { Spark } from "../parts/spark.js";
import { html, useEffect, useMemo, useRef, useState } from "../parts/html.js";

const REFRESH_MS = 5000;
const SPARK_POINTS = 60;
const GROUP_KEYS = {
  all: "sessions.all", running: "sessions.running", open: "sessions.open", draft: "sessions.draft", ended: "sessions.ended",
};

/** Losses of a session for its small curve, asked for once the item is seen and again with each new round. */
function useLosses(item, { id, round, status }) {
  const [isSeen, setSeen] = useState(false);
  const [losses, setLosses] = useState([]);
  const isDraft = status === "draft";
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) setSeen(true); });
    observer.observe(item.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!isSeen || isDraft) return undefined;
    let isWanted = true;
    getJson(`/api/v1/sessions/${encodeURIComponent(id)}/metrics?points=${SPARK_POINTS}`).then(
      ({ items }) => { if (isWanted) setLosses(items.map(({ loss, validationLoss }) => loss ?? validationLoss)); },
      (error) => { if (isWanted && !(error instanceof AwayError) && error.status !== 404) showProblem(error); },
    );
    return () => { isWanted = false; };
  }, [isSeen, isDraft, id, round]);
  return losses;
}

function Figures({ session }) {
  if (session.status === "draft") return html`<p class="figures quiet">${t("sessions.notStarted")}</p>`;
  const facts = [
    ["facts.round", format.number(session.round)], ["facts.connected", format.number(session.peers)],
    ["facts.loss", format.number(session.loss, 3)], ["facts.validationLoss", format.number(session.validationLoss, 3)],
  ];
  return html`<dl class="figures">${facts.map(([key, value]) => html`<div key=${key}><dt>${t(key)}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Item({ session }) {
  const item = useRef(null);
  const losses = useLosses(item, session);
  const created = new Date(session.createdAt);
  const running = isRunning(session.status) ? "running" : "";
  return html`<li ref=${item} class="session-item ${running}" data-session=${session.id}>
    <div class="session-name"><a href=${sessionAddress(session.id)} dir="auto">${session.name}</a><${Badge} state=${session.status} />
      ${session.visibility === "private" && html`<span class="badge quiet">${t("session.private")}</span>`}</div>
    <div class="session-progress"><progress max="100" value=${session.processRate}
      aria-label=${t("sessions.progressOf", { name: session.name })}></progress>
      <span class="percent">${format.percent(session.processRate)}</span></div>
    <${Figures} session=${session} /><${Spark} values=${losses} />
    <p class="quiet opened">${t("sessions.opened")} <time datetime=${created.toISOString()}>${format.clock(created)}</time></p></li>`;
}

function Filters({ filter, counts, onChange }) {
  return html`<div class="filters" role="search">
    <label class="choice" for="search">${t("sessions.search")}
      <input id="search" name="search" type="search" value=${filter.text}
        onInput=${(event) => onChange({ ...filter, text: event.target.value })} /></label>
    <div class="buttons tight" role="group" aria-label=${t("sessions.filter")}>${GROUPS.map((group) => html`<button key=${group}
      type="button" class="small" data-group=${group} aria-pressed=${String(filter.group === group)}
      onClick=${() => onChange({ ...filter, group })}>${t(GROUP_KEYS[group])}
      ${" "}<span class="count">${format.number(counts[group])}</span></button>`)}
    </div></div>`;
}

/** The view of all sessions. */
export function SessionsView() {
  const [pages, setPages] = useState(1);
  const [filter, setFilter] = useState({ group: "all", text: "" });
  const { value: list } = useRefreshed(() => getPages("/api/v1/sessions", pages), REFRESH_MS, [pages]);
  const items = list?.items ?? [];
  const counts = useMemo(() => countGroups(items), [list]);
  const found = useMemo(() => filterSessions(items, filter), [list, filter]);
  useTitle(t("sessions.title"));
  return html`<section id="list" aria-labelledby="list-title">
    <div class="title-row"><h1 id="list-title">${t("sessions.title")}</h1>
      <a class="button primary" href="#/new">${t("nav.new")}</a></div>
    ${items.length > 0 && html`<${Filters} filter=${filter} counts=${counts} onChange=${setFilter} />`}
    <p id="list-empty" class="quiet" hidden=${list === null || items.length > 0}>${t("sessions.empty")}</p>
    <p id="list-none" class="quiet" role="status" hidden=${items.length === 0 || found.length > 0}>${t("sessions.noneFound")}</p>
    ${list === null && html`<p class="quiet" aria-busy="true">${t("loading")}</p>`}
    <ul id="list-items" class="session-list" data-language=${languageStore.state}>
      ${found.map((session) => html`<${Item} key=${session.id} session=${session} />`)}</ul>
    ${list?.nextCursor && html`<button id="list-more" type="button" onClick=${() => setPages(pages + 1)}>${t("sessions.more")}</button>`}
  </section>`;
}
