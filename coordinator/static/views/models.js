// The models that sessions have made: a list, and the way to compare several.
import { getPages } from "../client/api.js";
import { format, languageStore, messageOf, t } from "../client/i18n.js";
import { shortAddress } from "../logic/format.js";
import { referenceOf, toggled } from "../logic/overlay.js";
import { compareAddress, modelAddress } from "../logic/route.js";
import { Shape } from "../parts/badge.js";
import { CardRow, CardTable } from "../parts/table.js";
import { useLoaded, useTitle } from "../parts/hooks.js";
import { html, useMemo, useState } from "../parts/html.js";

const PAGE = 50;

const columnsOf = () => [
  { key: "pick", title: t("models.compare") }, { key: "name", title: t("people.name") }, { key: "owner", title: t("models.owner") },
  { key: "versions", title: t("models.versions"), kind: "number" },
  { key: "loss", title: t("curve.validationLoss"), kind: "number" },
  { key: "parameters", title: t("new.parameters"), kind: "number" }, { key: "size", title: t("checkpoints.size"), kind: "number" },
  { key: "created", title: t("models.newest") },
];

/** A box to choose a version with; `reference` as the comparison names it. */
export function Pick({ reference, picked, onPick }) {
  return html`<input type="checkbox" id="pick-${reference}" name="pick-${reference}" aria-label=${t("models.pick", { name: reference })}
    checked=${picked.includes(reference)} onChange=${() => onPick(toggled(picked, reference))} />`;
}

/** Marks the version that answers chats; with its number where it does not stand beside it. */
export function PromotedMark({ version = null }) {
  const text = version === null ? t("models.promoted") : t("models.promotedVersion", { version });
  return html`<span class="badge good ${version === null ? "" : "long"}"><${Shape} name="check" />${text}</span>`;
}

/** The way to the comparison of what was chosen. */
export function CompareLink({ picked }) {
  if (picked.length < 2) return html`<p class="quiet">${t("models.pickTwo")}</p>`;
  return html`<p><a id="compare" class="button primary" href=${compareAddress(picked)}
    >${t("models.comparePicked", { count: picked.length })}</a></p>`;
}

function Row({ model, columns, picked, onPick }) {
  const { newest } = model;
  const answering = model.promotedVersion ?? (newest?.servable ? newest.version : null);
  const cells = [
    newest && html`<${Pick} reference=${referenceOf(newest)} picked=${picked} onPick=${onPick} />`,
    html`<a href=${modelAddress(model.id)} dir="auto">${model.name}</a>`,
    html`<bdi dir="ltr" title=${model.owner}>${model.owner ? shortAddress(model.owner) : "–"}</bdi>`,
    html`${format.number(model.versions)}${answering !== null && html`<p>
      <${PromotedMark} version=${answering} /></p>`}`, format.number(newest?.evaluation?.metrics.validationLoss, 3),
    format.compact(newest?.parameters || null), format.bytes(newest?.sizeBytes || null),
    newest ? format.clock(new Date(newest.createdAt)) : "–",
  ];
  return html`<${CardRow} columns=${columns} cells=${cells} />`;
}

/** The view of all models. */
export function ModelsView() {
  const [pages, setPages] = useState(1);
  const [picked, setPicked] = useState([]);
  const { value, error } = useLoaded(() => getPages(`/api/v1/models?limit=${PAGE}`, pages), [pages]);
  const columns = useMemo(columnsOf, [languageStore.state]);
  useTitle(t("nav.models"));
  return html`<section aria-labelledby="models-title"><h1 id="models-title">${t("nav.models")}</h1>
    ${error && html`<p class="notice bad" role="alert">${messageOf(error)}</p>`}
    ${value === null && error === null && html`<p class="quiet" aria-busy="true">${t("loading")}</p>`}
    <p id="models-empty" class="quiet" hidden=${value === null || value.items.length > 0}>${t("models.empty")}</p>
    ${value?.items.length > 0 && html`<${CompareLink} picked=${picked} /><div class="panel">
      <${CardTable} id="models" caption=${t("nav.models")} columns=${columns}>
        ${value.items.map((model) => html`<${Row} key=${model.id} model=${model} columns=${columns} picked=${picked}
          onPick=${setPicked} />`)}
      </${CardTable}></div>`}
    ${value?.nextCursor && html`<button type="button" onClick=${() => setPages(pages + 1)}>${t("models.more")}</button>`}</section>`;
}
