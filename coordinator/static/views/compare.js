// Versions of models side by side: their metrics, and the curves of the sessions that made them.
import { AwayError, getJson } from "../client/api.js";
import { format, languageStore, messageOf, t } from "../client/i18n.js";
import { showProblem } from "../client/problem.js";
import { isDrawable } from "../logic/curve.js";
import { MOST_CURVES, curveOf, overlay, referenceOf } from "../logic/overlay.js";
import { modelAddress } from "../logic/route.js";
import { LineChart } from "../parts/line_chart.js";
import { useLoaded, useTitle } from "../parts/hooks.js";
import { html, useEffect, useMemo, useState } from "../parts/html.js";

const BETTER = { lower: "compare.lower", higher: "compare.higher" };
const DASHES = [undefined, [7, 4], [2, 3], [10, 3, 2, 3], [4, 2], [12, 4]];

/** Reference -> points of the session that made it; those that are there. */
function useCurves(versions) {
  const [curves, setCurves] = useState(new Map());
  useEffect(() => {
    let isWanted = true;
    for (const version of versions.filter(({ sessionId }) => sessionId).slice(0, MOST_CURVES)) {
      getJson(`/api/v1/sessions/${encodeURIComponent(version.sessionId)}/metrics`).then(
        ({ items }) => { if (isWanted) setCurves((known) => new Map(known).set(referenceOf(version), curveOf(version, items))); },
        // a session that was deleted has no curve any more
        (error) => { if (isWanted && error.status !== 404 && !(error instanceof AwayError)) showProblem(error); },
      );
    }
    return () => { isWanted = false; };
  }, [versions]);
  return curves;
}

function Curves({ versions }) {
  const curves = useCurves(versions);
  const named = useMemo(() => versions.map(referenceOf)
    .filter((name) => isDrawable(curves.get(name) ?? [], ["validationLoss"])), [versions, curves]);
  const columns = useMemo(() => overlay(named.map((name) => curves.get(name)), "validationLoss"), [named, curves]);
  const series = useMemo(() => named.map((name, index) =>
    ({ label: name, colour: `--curve-${index + 1}`, dash: DASHES[index] })), [named]);
  if (named.length === 0) return null;
  const describe = (index) => `${t("compare.at", { samples: columns[0][index] })}: ${named
    .map((name, place) => `${name} ${format.number(columns[place + 1][index], 3)}`).join(", ")}`;
  return html`<section class="panel" aria-labelledby="curves-title"><h2 id="curves-title">${t("compare.curves")}</h2>
    <${LineChart} id="compare-chart" form="${named.join()} ${languageStore.state}" columns=${columns} series=${series} isTime=${false}
      isLog=${false} writeX=${format.compact} writeY=${(value) => format.significant(value, 3)} describe=${describe}
      label=${t("compare.curves")} /></section>`;
}

function Cell({ metric, name }) {
  const value = metric.values[name];
  const isBest = metric.best.includes(name);
  const difference = metric.differences[name];
  return html`<td class="number">${format.significant(value)}
    ${isBest && html` <strong class="good">★ ${t("compare.best")}</strong>`}
    ${difference ? html` <span class="quiet" dir="ltr">${difference > 0 ? "+" : ""}${format.significant(difference, 3)}</span>` : ""}</td>`;
}

function Metrics({ comparison }) {
  const names = comparison.versions.map(referenceOf);
  return html`<div class="panel"><div class="scroll" tabindex="0" role="region" aria-label=${t("compare.title")}><table id="comparison">
    <caption class="for-readers">${t("compare.title")}</caption>
    <thead><tr><th scope="col">${t("compare.metric")}</th>${comparison.versions.map((version) =>
      html`<th key=${referenceOf(version)} scope="col" class="number">
        <a href=${modelAddress(version.model)} dir="ltr">${referenceOf(version)}</a></th>`)}</tr></thead>
    <tbody>${comparison.metrics.map((metric) => html`<tr key=${metric.metric}>
      <th scope="row"><bdi dir="ltr">${metric.metric}</bdi>${metric.better && html` <span class="quiet">${t(BETTER[metric.better])}</span>`}
        ${metric.notComparable && html`<p class="quiet" dir="auto">${metric.notComparable}</p>`}</th>
      ${names.map((name) => html`<${Cell} key=${name} metric=${metric} name=${name} />`)}</tr>`)}</tbody></table></div></div>`;
}

/** The view of a comparison; `ids` as the API takes them: `model:1,model:2`. */
export function CompareView({ ids }) {
  const { value, error } = useLoaded(() => getJson(`/api/v1/models/compare?ids=${encodeURIComponent(ids)}`), [ids]);
  useTitle(t("compare.title"));
  return html`<section aria-labelledby="compare-title"><p class="back"><a href="#/models">${t("models.all")}</a></p>
    <h1 id="compare-title">${t("compare.title")}</h1>
    ${error && html`<p class="notice bad" role="alert">${messageOf(error)}</p>`}
    ${value && html`<${Metrics} comparison=${value} /><${Curves} versions=${value.versions} />`}</section>`;
}
