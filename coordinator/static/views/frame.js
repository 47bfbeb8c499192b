// What stands around every view: the head of the page with its navigation and choices, and the notices.
import { t } from "../client/i18n.js";
import { AwayBanner, ConnectionMark, ProblemNotice } from "../parts/notices.js";
import { html } from "../parts/html.js";
import { LanguageChoice, ThemeChoice } from "./choices.js";
import { Account } from "./sign_in.js";

const LINKS = [
  { href: "#/", key: "nav.sessions", views: ["sessions", "session", "new"] },
  { href: "#/models", key: "nav.models", views: ["models", "model", "compare"] },
  { href: "#/learning", key: "nav.learning", views: ["learning"] },
  { href: "#/contributors", key: "nav.contributors", views: ["contributors"] },
];

function Navigation({ view }) {
  return html`<nav aria-label=${t("nav.title")}><ul>${LINKS.map(({ href, key, views }) => html`<li key=${href}>
    <a href=${href} aria-current=${views.includes(view) ? "page" : null}>${t(key)}</a></li>`)}</ul></nav>`;
}

/** `onSkip` moves the focus to the view. */
function Header({ view, onSkip }) {
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); onSkip(); }}>${t("nav.skip")}</a>
    <header class="top"><a class="brand" href="#/"><img src="/static/icon.svg" alt="" width="26" height="26" />cotrain</a>
      <${Navigation} view=${view} />
      <div class="who"><${ConnectionMark} /><${LanguageChoice} /><${ThemeChoice} /><${Account} /></div></header>`;
}

/** A whole page around `children`; `main` is a ref to its main part. */
export function Frame({ view, main, children }) {
  return html`<${Header} view=${view} onSkip=${() => main.current.focus()} />
    <main id="main" tabindex="-1" ref=${main}><${AwayBanner} /><${ProblemNotice} />${children}</main>
    <footer class="bottom quiet"><a href="/docs">${t("nav.api")}</a></footer>`;
}
