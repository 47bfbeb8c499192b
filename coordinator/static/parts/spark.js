// A small curve without axes; the numbers stand beside it.
import { sparkPath } from "../logic/curve.js";
import { html } from "./html.js";

const WIDTH = 120;
const HEIGHT = 32;

/** Draws `values`; nothing where there are fewer than two. */
export function Spark({ values }) {
  const path = sparkPath(values, WIDTH, HEIGHT);
  return path && html`<svg class="spark" viewBox="0 0 ${WIDTH} ${HEIGHT}" width=${WIDTH} height=${HEIGHT}
    aria-hidden="true"><path d=${path} /></svg>`;
}
