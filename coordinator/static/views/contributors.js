// Who gave how much, in all and in each session.
import { getJson, getPages, getText } from "../client/api.js";
import { format, messageOf, t } from "../client/i18n.js";
import { tokensPerSample } from "../logic/config_facts.js";
import { contributionsOf } from "../logic/contributions.js";
import { shortAddress } from "../logic/format.js";
import { sessionAddress } from "../logic/route.js";
import { useTitle } from "../parts/hooks.js";
import { html, useEffect, useMemo, useState } from "../parts/html.js";

const SESSIONS = 50;
const PEOPLE_PAGE = 200;
const PEOPLE_PAGES = 10;

async function entryOf(session) {
  const base = `/api/v1/sessions/${encodeURIComponent(session.id)}`;
  const [people, config] = await Promise.all([
    getPages(`${base}/participants?limit=${PEOPLE_PAGE}`, PEOPLE_PAGES), getText(`${base}/config`),
  ]);
  return { session, participants: people.items, tokensPerSample: tokensPerSample(config) };
}

/** The newest sessions that somebody took part in, read one after another: {entries, isWhole, error}. */
function useEntries() {
  const [state, setState] = useState({ entries: [], isWhole: false, isAll: true, error: null });
  useEffect(() => {
    let isWanted = true;
    const read = async () => {
      const { items, nextCursor } = await getJson(`/api/v1/sessions?limit=${SESSIONS}`);
      for (const session of items.filter(({ status }) => status !== "draft")) {
        const entry = await entryOf(session);
        if (!isWanted) return;
        setState((known) => ({ ...known, entries: [...known.entries, entry] }));
      }
      if (isWanted) setState((known) => ({ ...known, isWhole: true, isAll: nextCursor === null }));
    };
    read().catch((error) => { if (isWanted) setState((known) => ({ ...known, error })); });
    return () => { isWanted = false; };
  }, []);
  return state;
}

function SessionsOf({ sessions }) {
  const gave = (one) => ({ samples: one.samples, rounds: one.rounds, tokens: format.compact(one.tokens) });
  return html`<details><summary>${t("contributors.sessions", { count: sessions.length })}</summary>
    <ul>${sessions.map((one) => html`<li key=${one.id}><a href=${sessionAddress(one.id)} dir="auto">${one.name}</a>
      ${" "}<span class="quiet">${t("contributors.gave", gave(one))}</span></li>`)}</ul></details>`;
}

function Row({ one }) {
  return html`<tr><td><bdi dir="ltr" title=${one.account}>${one.account ? shortAddress(one.account) : "–"}</bdi></td>
    <td><bdi>${one.names.join(", ") || "–"}</bdi></td><td class="number">${format.number(one.tokens)}</td>
    <td class="number">${format.number(one.samples)}</td><td class="number">${format.number(one.rounds)}</td>
    <td><${SessionsOf} sessions=${one.sessions} /></td></tr>`;
}

/** The view of all contributors. */
export function ContributorsView() {
  const { entries, isWhole, isAll, error } = useEntries();
  const found = useMemo(() => contributionsOf(entries), [entries]);
  useTitle(t("nav.contributors"));
  const titles = [
    ["contributors.wallet"], ["people.name"], ["axis.tokens", "number"], ["axis.samples", "number"],
    ["contributors.rounds", "number"], ["nav.sessions"],
  ];
  return html`<section aria-labelledby="contributors-title" aria-busy=${String(!isWhole && error === null)}>
    <h1 id="contributors-title">${t("nav.contributors")}</h1><p class="quiet">${t("contributors.what")}</p>
    ${error && html`<p class="notice bad" role="alert">${messageOf(error)}</p>`}
    <p id="contributors-empty" class="quiet" hidden=${!isWhole || found.length > 0}>${t("contributors.empty")}</p>
    ${found.length > 0 && html`<div class="panel"><div class="scroll tall" tabindex="0" role="region" aria-label=${t("nav.contributors")}>
      <table><caption class="for-readers">${t("nav.contributors")}</caption>
        <thead><tr>${titles.map(([key, kind]) => html`<th key=${key} scope="col" class=${kind ?? ""}>${t(key)}</th>`)}</tr></thead>
        <tbody id="contributors">${found.map((one) => html`<${Row} key=${one.account} one=${one} />`)}</tbody></table></div></div>`}
    <p class="quiet" hidden=${isAll}>${t("contributors.newestOnly", { count: SESSIONS })}</p></section>`;
}
