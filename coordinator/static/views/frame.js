// What stands around every view: the head of the page with its navigation and choices, and the notices.
import { chooseNewLanguage, languageStore, t } from "../client/i18n.js";
import { showProblem } from "../client/problem.js";
import { THEMES, chooseTheme, chosenTheme } from "../client/theme.js";
import { AwayBanner, ConnectionMark, ProblemNotice } from "../parts/notices.js";
import { html, useState } from "../parts/html.js";
import { Account } from "./sign_in.js";

const LINKS = [
  { href: "#/", key: "nav.sessions", views: ["sessions", "session", "new"] },
  { href: "#/models", key: "nav.models", views: ["models", "model", "compare"] },
  { href: "#/contributors", key: "nav.contributors", views: ["contributors"] },
];
const LANGUAGE_NAMES = { en: "English", fa: "فارسی", zh: "中文" };
const THEME_KEYS = { system: "theme.system", light: "theme.light", dark: "theme.dark" };

function Navigation({ view }) {
  return html`<nav aria-label=${t("nav.title")}><ul>${LINKS.map(({ href, key, views }) => html`<li key=${href}>
    <a href=${href} aria-current=${views.includes(view) ? "page" : null}>${t(key)}</a></li>`)}</ul></nav>`;
}

function LanguageChoice() {
  const change = async ({ target }) => {
    try {
      await chooseNewLanguage(target.value);
    } catch (error) {
      target.value = languageStore.state;
      showProblem(error);
    }
  };
  return html`<select id="page-language" name="page-language" aria-label=${t("language.title")} value=${languageStore.state}
    onChange=${change}>
    ${Object.entries(LANGUAGE_NAMES).map(([code, name]) => html`<option key=${code} value=${code} lang=${code}>${name}</option>`)}
  </select>`;
}

function ThemeChoice() {
  const [theme, setTheme] = useState(chosenTheme());
  const change = ({ target }) => { chooseTheme(target.value); setTheme(target.value); };
  return html`<select id="page-theme" name="page-theme" aria-label=${t("theme.title")} value=${theme} onChange=${change}>
    ${THEMES.map((name) => html`<option key=${name} value=${name}>${t(THEME_KEYS[name])}</option>`)}</select>`;
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
