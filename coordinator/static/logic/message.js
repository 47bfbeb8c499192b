// Texts of a language's catalog: placeholders, plural forms, and the isolation of what runs the other way. Pure.

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const FIRST_STRONG_ISOLATE = "\u2068";
const POP_ISOLATE = "\u2069";
const PLACEHOLDER = /\{(\w+)\}/g;

export const LANGUAGES = ["en", "fa", "zh"];
export const directionOf = (language) => (language === "fa" ? "rtl" : "ltr");

/** The language to begin with: the one that was chosen, else the first of the browser's that there is, else English. */
export function chooseLanguage(chosen, wanted) {
  if (LANGUAGES.includes(chosen)) return chosen;
  return wanted.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

/** A text within another one: it neither turns around nor moves what stands beside it. */
export function isolate(text, direction) {
  const needed = direction === "rtl" || RIGHT_TO_LEFT.test(text);
  return needed ? `${FIRST_STRONG_ISOLATE}${text}${POP_ISOLATE}` : text;
}

/** The names of a text's placeholders, each once, in order of the alphabet. */
export function placeholdersOf(entry) {
  const texts = typeof entry === "string" ? [entry] : Object.values(entry);
  return [...new Set(texts.flatMap((text) => [...text.matchAll(PLACEHOLDER)].map(([, name]) => name)))].sort();
}

/**
 * The text of `key`, with `values` in the places that are named in it. Numbers are written by `number`; an entry with plural
 * forms takes that of `values.count`. Raises an Error for a key that is not there: tests see to it that there is none.
 */
export function translate({ language, catalog, number, plural }, key, values = {}) {
  const entry = catalog[key];
  if (entry === undefined) throw new Error(`there is no text ${key} in ${language}`);
  const text = typeof entry === "string" ? entry : entry[plural.select(values.count)] ?? entry.other;
  const direction = directionOf(language);
  return text.replace(PLACEHOLDER, (whole, name) => {
    const value = values[name];
    if (value === undefined || value === null) return "";
    return typeof value === "number" ? number(value) : isolate(String(value), direction);
  });
}
