// The training log, newest first, with a filter. It follows what comes, unless somebody reads further down.
import { format, t } from "../client/i18n.js";
import { CHECKPOINTER, COORDINATOR, filterRecords, keyOf } from "../logic/records.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "../parts/html.js";
import { pure } from "../parts/pure.js";

const LEVEL_KEYS = { info: "log.all", warning: "log.warnings", error: "log.errors" };
const SIGNS = { info: "", warning: "▲ ", error: "✕ " };
const OWN_SOURCES = { [CHECKPOINTER]: "people.checkpointer", [COORDINATOR]: "log.coordinator" };

const sourceName = (source, names) => (source in OWN_SOURCES ? t(OWN_SOURCES[source]) : names.get(source) ?? source);

const Entry = pure(({ record, source }) => {
  const date = new Date(record.time * 1000);
  return html`<li><time datetime=${date.toISOString()}>${format.clock(date)}</time><bdi class="source">${source}</bdi>
    <span class="message ${record.level}" dir="auto">${SIGNS[record.level]}${record.message}</span></li>`;
});

function Filters({ filter, onChange, records, names }) {
  const sources = [...new Set(records.map(({ source }) => source))];
  const set = (name) => (event) => onChange({ ...filter, [name]: event.target.value });
  return html`<div class="choices">
    <label class="choice" for="log-text">${t("log.search")}
      <input id="log-text" name="log-text" type="search" value=${filter.text} onInput=${set("text")} /></label>
    <label class="choice" for="log-level">${t("log.level")}
      <select id="log-level" name="log-level" value=${filter.level} onChange=${set("level")}>
        ${Object.entries(LEVEL_KEYS).map(([level, key]) => html`<option key=${level} value=${level}>${t(key)}</option>`)}</select></label>
    <label class="choice" for="log-source">${t("log.source")}
      <select id="log-source" name="log-source" value=${filter.source} onChange=${set("source")}>
        <option value="">${t("log.everybody")}</option>
        ${sources.map((source) => html`<option key=${source} value=${source}>${sourceName(source, names)}</option>`)}</select></label>
  </div>`;
}

/**
 * Keeps a list that grows at its top where its reader is: at the top it shows what comes, further down nothing moves. Returns
 * what is bound to the list's scrolling, and whether it follows.
 */
function useFollowing(list, first) {
  const [isFollowing, setFollowing] = useState(true);
  const height = useRef(0);
  useLayoutEffect(() => {
    if (list.current === null) return;
    const grown = list.current.scrollHeight - height.current;
    if (!isFollowing && height.current > 0) list.current.scrollTop += grown;
    height.current = list.current.scrollHeight;
  }, [first]);
  const onScroll = () => setFollowing(list.current.scrollTop < 8);
  const follow = () => { list.current.scrollTop = 0; setFollowing(true); };
  return { isFollowing, onScroll, follow };
}

/** `records` null before they are there; `names` participant id -> name; `live` loads older ones where `hasOlder`. */
export const SessionLog = pure(({ live, records, names, hasOlder }) => {
  const list = useRef(null);
  const [filter, setFilter] = useState({ text: "", level: "info", source: "" });
  const found = useMemo(() => filterRecords(records ?? [], filter), [records, filter]);
  const { isFollowing, onScroll, follow } = useFollowing(list, found.length > 0 ? keyOf(found[0]) : "");
  const isEmpty = records !== null && records.length === 0;
  return html`<section class="panel" aria-labelledby="log-title">
    <div class="panel-head"><h2 id="log-title">${t("log.title")}</h2>
      ${records !== null && !isEmpty && html`<${Filters} filter=${filter} onChange=${setFilter} records=${records} names=${names} />`}</div>
    <p id="log-empty" class="quiet" hidden=${!isEmpty}>${t("log.empty")}</p>
    <p id="log-none" class="quiet" role="status" hidden=${isEmpty || found.length > 0 || records === null}>${t("log.noneFound")}</p>
    <ol id="log" class="log" ref=${list} tabindex="0" aria-labelledby="log-title" hidden=${found.length === 0} onScroll=${onScroll}>
      ${found.map((record) => html`<${Entry} key=${keyOf(record)} record=${record} source=${sourceName(record.source, names)} />`)}</ol>
    <div class="buttons">
      ${!isFollowing && found.length > 0 && html`<button id="log-follow" type="button" class="small"
        onClick=${follow}>${t("log.follow")}</button>`}
      ${hasOlder && html`<button id="log-older" type="button" class="small"
        onClick=${() => live.loadOlderLog()}>${t("log.older")}</button>`}
    </div></section>`;
});
