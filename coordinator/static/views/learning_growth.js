// How the data have grown over the cycles: a curve, and the same as a table.
import { format, languageStore, t } from "../client/i18n.js";
import { growthOf, growthPercentOf } from "../logic/learning.js";
import { LineChart } from "../parts/line_chart.js";
import { ScrollTable } from "../parts/table.js";
import { html, useMemo } from "../parts/html.js";

const seriesOf = () => [
  { label: t("learning.size"), colour: "--train", width: 2 },
  { label: t("learning.heldOut"), colour: "--validation", dash: [7, 4] },
];

const startOf = (cycle) => format.clock(new Date(cycle.startedAt));
const said = (key, cycle) => t(key, { time: startOf(cycle), size: cycle.finalSize, heldOut: cycle.heldOut });

function rowOf(cycle) {
  return [
    startOf(cycle), format.number(cycle.datasetVersion), format.number(cycle.originalSize), format.number(cycle.finalSize),
    format.number(cycle.heldOut), format.number(cycle.growthSamples), format.percent(growthPercentOf(cycle)),
  ];
}

/** `cycles`, newest first; nothing before two of them have made data. */
export function Growth({ cycles }) {
  const language = languageStore.state;
  const { cycles: drawn, columns } = useMemo(() => growthOf(cycles), [cycles]);
  const series = useMemo(seriesOf, [language]);
  if (drawn.length < 2) return null;
  const titles = [
    t("axis.time"), t("models.version"), t("learning.before"), t("learning.after"), t("learning.heldOut"), t("learning.growth"),
    t("learning.percent"),
  ];
  return html`<section class="panel" aria-labelledby="growth-title"><h2 id="growth-title">${t("learning.growthTitle")}</h2>
    <${LineChart} id="growth-chart" form=${language} columns=${columns} series=${series} isTime=${true} isLog=${false}
      writeX=${(value) => format.shortTime(new Date(value * 1000))} writeY=${format.compact}
      describe=${(index) => said("learning.growthAt", drawn[index])} label=${said("learning.growthLabel", drawn.at(-1))} />
    <details><summary>${t("learning.table")}</summary>
      <${ScrollTable} id="growth-rows" caption=${t("learning.table")} titles=${titles} rows=${[...drawn].reverse().map(rowOf)} />
    </details></section>`;
}
