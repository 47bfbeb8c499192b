// Facts: names with their values below them.
import { t } from "../client/i18n.js";
import { html } from "./html.js";

/** `facts`: [key of the name's text, value, note or nothing]; a value that is null is left out. */
export function Facts({ id, facts, className = "" }) {
  return html`<dl id=${id} class="facts ${className}">${facts.filter(([, value]) => value !== null).map(([key, value, note]) =>
    html`<div key=${key} data-fact=${key}><dt>${t(key)}</dt><dd>${value}${note && html` <small class="quiet">${note}</small>`}</dd></div>`)}
  </dl>`;
}
