// The fields of the form for a new session.
import { t } from "../client/i18n.js";
import { html } from "../parts/html.js";

const FLAGS = [["true", "new.yes"], ["false", "new.no"]];

/** What a field has if it is left empty, for people; empty if nobody knows. */
function defaultText(initial, isFlag) {
  if (initial === null || initial === "") return "";
  return isFlag ? t(String(initial) === "true" ? "new.yes" : "new.no") : String(initial);
}

function Options({ field, facts, initial }) {
  const isFlag = field.kind === "flag";
  const options = isFlag ? FLAGS.map(([value, key]) => [value, t(key)]) : facts.choices.map((value) => [value, value]);
  const byDefault = defaultText(initial, isFlag);
  return html`<option value="">${byDefault ? t("new.default", { value: byDefault }) : t("new.unset")}</option>
    ${options.map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}`;
}

/** One field; `initial` is what it has if it is left empty, `problem` what is wrong with it, `onChange(text)`. */
export function Field({ field, value, facts, initial, problem, onChange }) {
  const { path, kind, label, list, isRequired } = field;
  const id = `field-${path.replace(".", "-")}`;
  const shared = {
    id, name: id, required: isRequired, value,
    "aria-invalid": problem ? "true" : null, "aria-describedby": problem ? `${id}-problem` : null,
    onInput: (event) => onChange(event.target.value),
  };
  const placeholder = defaultText(initial, false);
  const control = {
    choice: () => html`<select ...${shared}><${Options} field=${field} facts=${facts} initial=${initial} /></select>`,
    flag: () => html`<select ...${shared}><${Options} field=${field} facts=${facts} initial=${initial} /></select>`,
    long: () => html`<textarea ...${shared} rows="2" dir="auto"></textarea>`,
    number: () => html`<input ...${shared} type="number" step="any" placeholder=${placeholder} dir="ltr" />`,
    text: () => html`<input ...${shared} type="text" placeholder=${placeholder} dir="auto" autocomplete="off"
      list=${list && `list-${list}`} />`,
  }[kind];
  return html`<div class="field ${kind === "long" ? "long" : ""}">
    <label for=${id}>${t(label)}${isRequired && html` <span class="quiet">${t("new.required")}</span>`}</label>
    ${control()}${problem && html`<p id="${id}-problem" class="field-problem bad" dir="auto">${problem}</p>`}</div>`;
}

/** A group of fields; those that few people need are folded away until one of them has a problem. */
export function FieldGroup({ group, values, facts, defaults, problems, onChange }) {
  const fields = group.fields.map((field) => html`<${Field} key=${field.path} field=${field} value=${values[field.path] ?? ""}
    facts=${facts.get(field.path)} initial=${defaults.get(field.path) ?? null} problem=${problems.get(field.path)}
    onChange=${(typed) => onChange(field.path, typed)} />`);
  if (group.isBasic) return html`<fieldset class="panel"><legend>${t(group.title)}</legend><div class="fields">${fields}</div></fieldset>`;
  const isOpen = group.fields.some(({ path }) => problems.has(path));
  return html`<details class="panel" open=${isOpen || undefined}><summary>${t(group.title)}</summary>
    <div class="fields">${fields}</div></details>`;
}
