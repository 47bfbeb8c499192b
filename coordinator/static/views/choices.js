// What a person chooses for the whole page: its language and its theme.
import { chooseNewLanguage, languageStore, t } from "../client/i18n.js";
import { showProblem } from "../client/problem.js";
import { THEMES, chooseTheme, chosenTheme } from "../client/theme.js";
import { html, useState } from "../parts/html.js";

const LANGUAGE_NAMES = { en: "English", fa: "فارسی", zh: "中文" };
const THEME_KEYS = { system: "theme.system", light: "theme.light", dark: "theme.dark" };

export function LanguageChoice() {
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

export function ThemeChoice() {
  const [theme, setTheme] = useState(chosenTheme());
  const change = ({ target }) => { chooseTheme(target.value); setTheme(target.value); };
  return html`<select id="page-theme" name="page-theme" aria-label=${t("theme.title")} value=${theme} onChange=${change}>
    ${THEMES.map((name) => html`<option key=${name} value=${name}>${t(THEME_KEYS[name])}</option>`)}</select>`;
}
