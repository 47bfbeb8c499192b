// The page's language: its catalog, and how it writes numbers and times.
import { formatsOf } from "../logic/format.js";
import { chooseLanguage, directionOf, translate } from "../logic/message.js";
import { SaidError } from "../logic/said.js";
import { choose, preference } from "./preferences.js";
import { Store } from "./store.js";

/** `language`, null before the first catalog is there. */
export const languageStore = new Store(null);

let texts = null;

/** How the present language writes numbers and times. */
export let format = formatsOf("en");

async function use(language) {
  const response = await fetch(`/static/i18n/${language}.json`);
  if (!response.ok) throw new SaidError("problem.away");
  const catalog = await response.json();
  format = formatsOf(language);
  texts = { language, catalog, number: (value) => format.number(value), plural: new Intl.PluralRules(language) };
  document.documentElement.lang = language;
  document.documentElement.dir = directionOf(language);
  languageStore.update(() => language);
}

/** Load the catalog of the language that was chosen, or that the browser asks for. */
export const loadLanguage = () => use(chooseLanguage(preference("language"), navigator.languages));

/** Go over to another language from now on. */
export async function chooseNewLanguage(language) {
  await use(language);
  choose("language", language);
}

/** The text of `key` in the present language, with `values` in its placeholders. */
export const t = (key, values) => translate(texts, key, values);

/** What an error says: in the present language where it is our own, as it came where it is the coordinator's. */
export const messageOf = (error) => (error instanceof SaidError ? t(error.key, error.values) : error.message);
