// Light and dark: as the system says, unless a person has chosen. Drawings hear of a change, since they hold colours.
import { choose, preference } from "./preferences.js";

export const THEMES = ["system", "light", "dark"];

/** Gets a "change" event when the page's colours have changed. */
export const themeChanges = new EventTarget();

const announce = () => themeChanges.dispatchEvent(new Event("change"));

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", announce);

export const chosenTheme = () => preference("theme") ?? "system";

/** Use a theme from now on; boot.js does the same before the page is drawn for the first time. */
export function chooseTheme(theme) {
  choose("theme", theme === "system" ? null : theme);
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  announce();
}

/** The present value of a colour of the style sheet, `--accent`, in the form that a canvas takes. */
export function colourOf(name) {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
