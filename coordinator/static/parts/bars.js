// Stacked bars, one for each round: what its time went to. Each part has a colour and a pattern of its own.
import { html } from "./html.js";

const WIDTH = 640;
const HEIGHT = 150;
const GAP = 0.2;

/** Hatching at an angle; the first part is plain. */
function Pattern({ id, colour, angle }) {
  const stroke = { stroke: `var(${colour})` };
  return html`<pattern id=${id} width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(${angle})">
    <rect width="6" height="6" style=${{ fill: `var(${colour})`, opacity: angle === 0 ? 1 : 0.25 }} />
    ${angle !== 0 && html`<path d="M0 3H6" stroke-width="2.5" style=${stroke} />`}</pattern>`;
}

function Bar({ id, left, width, parts, values, scale }) {
  let top = HEIGHT;
  return parts.map(({ field }) => {
    const height = (values[field] ?? 0) * scale;
    top -= height;
    return html`<rect key=${field} x=${left} y=${top} width=${width} height=${height} fill="url(#${id}-${field})" />`;
  });
}

/** `parts`: {field, label, colour, angle}, the lowest first; `rows`: objects with those fields, null for what is not known. */
export function StackedBars({ id, label, parts, rows }) {
  const highest = Math.max(...rows.map((row) => parts.reduce((sum, { field }) => sum + (row[field] ?? 0), 0)), 1e-9);
  const step = WIDTH / rows.length;
  return html`<div class="bars" dir="ltr">
    <svg id=${id} viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${label}>
      <defs>${parts.map(({ field, colour, angle }) =>
        html`<${Pattern} key=${field} id="${id}-${field}" colour=${colour} angle=${angle} />`)}</defs>
      ${rows.map((row, index) => html`<${Bar} key=${row.round} id=${id} left=${(index + GAP / 2) * step}
        width=${step * (1 - GAP)} parts=${parts} values=${row} scale=${HEIGHT / highest} />`)}</svg></div>`;
}

/** What the parts of the bars stand for. */
export function BarsLegend({ id, parts }) {
  return html`<p class="legend">${parts.map(({ field, label }) => html`<span key=${field}>
    <svg class="key" width="24" height="12" aria-hidden="true"><rect width="24" height="12" fill="url(#${id}-${field})" /></svg>
    ${label}</span>`)}</p>`;
}
