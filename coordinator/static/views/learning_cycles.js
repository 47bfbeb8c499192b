// The cycles of auto-learning: what each found, took and refused, and which version came out.
import { format, t } from "../client/i18n.js";
import { growthPercentOf, hasFigures, refusals, stateOf, triggerKey } from "../logic/learning.js";
import { sessionAddress } from "../logic/route.js";
import { Badge } from "../parts/badge.js";
import { Facts } from "../parts/facts.js";
import { html } from "../parts/html.js";

const fromTo = (from, to) => t("learning.fromTo", { from, to });

function grown(cycle) {
  const percent = growthPercentOf(cycle);
  return percent === null
    ? format.number(cycle.growthSamples)
    : t("learning.grown", { samples: cycle.growthSamples, percent: format.percent(percent) });
}

function dataFacts(cycle) {
  return [
    ["learning.looked", format.number(cycle.chats)], ["learning.good", format.number(cycle.good)],
    ["learning.variations", format.number(cycle.variations)], ["learning.duplicates", format.number(cycle.duplicates)],
    ["learning.left", format.number(cycle.left)], ["learning.size", fromTo(cycle.originalSize, cycle.finalSize)],
    ["learning.growth", grown(cycle)],
  ];
}

function modelFacts({ sessionId, baseVersion, newVersion, oldLoss, newLoss }) {
  const loss = (value) => format.number(value, 4);
  return [
    ["models.session", sessionId && html`<a href=${sessionAddress(sessionId)} dir="ltr">${sessionId}</a>`],
    ["models.version", newVersion === null ? null : fromTo(format.number(baseVersion), newVersion)],
    ["learning.loss", oldLoss === null ? null : fromTo(loss(oldLoss), loss(newLoss))],
  ];
}

function Refusals({ cycle }) {
  const found = refusals(cycle);
  if (found.length === 0) return null;
  return html`<h3>${t("learning.refused")}</h3><ul class="refusals">${found.map(([count, key, reason]) => html`<li key=${reason} dir="auto">
    ${key ? t(key) : reason} <span class="count">${format.number(count)}</span></li>`)}</ul>`;
}

function Cycle({ cycle }) {
  const started = new Date(cycle.startedAt);
  const facts = [...(hasFigures(cycle) ? dataFacts(cycle) : []), ...modelFacts(cycle)];
  return html`<li class="panel" data-cycle=${cycle.id}><div class="title-row">
      <strong><time datetime=${started.toISOString()}>${format.clock(started)}</time></strong><${Badge} state=${stateOf(cycle)} />
      <span class="quiet">${t(triggerKey(cycle.trigger))}</span></div>
    <${Facts} facts=${facts} /><${Refusals} cycle=${cycle} />
    ${cycle.message && html`<p class="quiet" dir="auto">${cycle.message}</p>`}</li>`;
}

/** `cycles`, newest first. */
export function Cycles({ cycles }) {
  return html`<section aria-labelledby="cycles-title"><h2 id="cycles-title">${t("learning.cycles")}</h2>
    <ol id="cycles" class="cycle-list">${cycles.map((cycle) => html`<${Cycle} key=${cycle.id} cycle=${cycle} />`)}</ol></section>`;
}
