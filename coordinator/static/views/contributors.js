// Who gave how much, in all and in each session.
import { getPages } from "../client/api.js";
import { format, messageOf, t } from "../client/i18n.js";
import { shortAddress } from "../logic/format.js";
import { sessionAddress } from "../logic/route.js";
import { useTitle } from "../parts/hooks.js";
import { html, useEffect, useState } from "../parts/html.js";

/** The first `pages` pages of the list: {items, nextCursor, error}, items null before they are there. */
function useContributors(pages) {
  const [state, setState] = useState({ items: null, nextCursor: null, error: null });
  useEffect(() => {
    let isWanted = true;
    getPages("/api/v1/contributors", pages).then(
      (found) => { if (isWanted) setState({ ...found, error: null }); },
      (error) => { if (isWanted) setState((known) => ({ ...known, error })); },
    );
    return () => { isWanted = false; };
  }, [pages]);
  return state;
}

function SessionsOf({ sessions, sessionCount }) {
  const gave = (one) => ({ samples: one.samples, rounds: one.rounds, tokens: format.compact(one.tokens) });
  return html`<details><summary>${t("contributors.sessions", { count: sessionCount })}</summary>
    <ul>${sessions.map((one) => html`<li key=${one.id}><a href=${sessionAddress(one.id)} dir="auto">${one.name}</a>
      ${" "}<span class="quiet">${t("contributors.gave", gave(one))}</span></li>`)}</ul></details>`;
}

function Row({ one }) {
  return html`<tr><td><bdi dir="ltr" title=${one.account}>${one.account ? shortAddress(one.account) : "–"}</bdi></td>
    <td><bdi>${one.names.join(", ") || "–"}</bdi></td><td class="number">${format.number(one.tokens)}</td>
    <td class="number">${format.number(one.samples)}</td><td class="number">${format.number(one.rounds)}</td>
    <td><${SessionsOf} ...${one} /></td></tr>`;
}

/** The view of all contributors. */
export function ContributorsView() {
  const [pages, setPages] = useState(1);
  const { items, nextCursor, error } = useContributors(pages);
  useTitle(t("nav.contributors"));
  const titles = [
    ["contributors.wallet"], ["people.name"], ["axis.tokens", "number"], ["axis.samples", "number"],
    ["contributors.rounds", "number"], ["nav.sessions"],
  ];
  const found = items ?? [];
  return html`<section aria-labelledby="contributors-title" aria-busy=${String(items === null && error === null)}>
    <h1 id="contributors-title">${t("nav.contributors")}</h1><p class="quiet">${t("contributors.what")}</p>
    ${error && html`<p class="notice bad" role="alert">${messageOf(error)}</p>`}
    <p id="contributors-empty" class="quiet" hidden=${items === null || found.length > 0}>${t("contributors.empty")}</p>
    ${found.length > 0 && html`<div class="panel"><div class="scroll tall" tabindex="0" role="region" aria-label=${t("nav.contributors")}>
      <table><caption class="for-readers">${t("nav.contributors")}</caption>
        <thead><tr>${titles.map(([key, kind]) => html`<th key=${key} scope="col" class=${kind ?? ""}>${t(key)}</th>`)}</tr></thead>
        <tbody id="contributors">${found.map((one) => html`<${Row} key=${one.account} one=${one} />`)}</tbody></table></div></div>`}
    <p hidden=${nextCursor === null}><button id="contributors-more" type="button" onClick=${() => setPages(pages + 1)}
      >${t("contributors.more")}</button></p></section>`;
}
