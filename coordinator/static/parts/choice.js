// A select with its label, for tight places.
import { html } from "./html.js";

/** `options`: [value, text]; `onChange(text)` hears the value that was chosen. */
export function Choice({ id, label, value, options, onChange }) {
  return html`<label class="choice" for=${id}>${label}
    <select id=${id} name=${id} value=${String(value)} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([option, text]) => html`<option key=${option} value=${String(option)}>${text}</option>`)}
    </select></label>`;
}
