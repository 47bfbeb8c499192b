// What a person has chosen on this page, kept in this browser.

const PREFIX = "cotrain.";

/** The value that was chosen; null for none. */
export const preference = (name) => localStorage.getItem(PREFIX + name);

/** Keep a choice; null forgets it. */
export function choose(name, value) {
  if (value === null) localStorage.removeItem(PREFIX + name);
  else localStorage.setItem(PREFIX + name, value);
}
