// Tables that are told as cards where the window is narrow: each cell knows its column's title.
import { html } from "./html.js";

/**
 * `columns`: {key, title, kind} with kind "number" or nothing; `rows`: arrays of cells, each {key, className, cells}. On narrow
 * windows a row is a card. The roles are said again, since a table that is drawn otherwise is none to screen readers.
 */
export function CardTable({ id, caption, columns, children, className = "" }) {
  return html`<table class="cards-when-narrow ${className}" role="table" aria-label=${caption}>
    <thead role="rowgroup"><tr role="row">
      ${columns.map(({ key, title, kind }) =>
        html`<th key=${key} scope="col" role="columnheader" class=${kind ?? ""}>${title}</th>`)}
    </tr></thead>
    <tbody id=${id} role="rowgroup">${children}</tbody></table>`;
}

/** A row of such a table: `cells` in the order of `columns`. */
export function CardRow({ columns, cells, className = "" }) {
  return html`<tr role="row" class=${className}>
    ${columns.map(({ key, title, kind }, index) =>
      html`<td key=${key} role="cell" class=${kind ?? ""} data-label=${title}><div>${cells[index]}</div></td>`)}
  </tr>`;
}

/** A plain table in a box that scrolls by keyboard, too. `rows` are arrays of texts. */
export function ScrollTable({ caption, titles, rows, id }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table>
    <caption class="for-readers">${caption}</caption>
    <thead><tr>${titles.map((title) => html`<th key=${title} scope="col" class="number">${title}</th>`)}</tr></thead>
    <tbody id=${id}>${rows.map((cells, number) => html`<tr key=${number}>
      ${cells.map((cell, index) => html`<td key=${titles[index]} class="number">${cell}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}
