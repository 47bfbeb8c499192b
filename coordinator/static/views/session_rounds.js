// Where the time and the traffic of a session's rounds go.
import { format, t } from "../client/i18n.js";
import { roundSummaries } from "../logic/rounds.js";
import { BarsLegend, StackedBars } from "../parts/bars.js";
import { ScrollTable } from "../parts/table.js";
import { html, useMemo } from "../parts/html.js";
import { pure } from "../parts/pure.js";

const ROUNDS_SHOWN = 40;

const parts = () => [
  { field: "computing", label: t("rounds.computing"), colour: "--train", angle: 0 },
  { field: "synchronizing", label: t("rounds.synchronizing"), colour: "--validation", angle: 45 },
  { field: "waiting", label: t("rounds.waiting"), colour: "--muted", angle: -45 },
];

function rowOf(round) {
  return [
    format.number(round.round), format.seconds(round.computing), format.seconds(round.synchronizing, 2),
    format.seconds(round.waiting), format.seconds(round.averaging), format.bytes(round.bytesSent),
    format.bytes(round.bytesReceived), format.number(round.reports),
  ];
}

/** `records` of the log, null before they are there. */
export const SessionRounds = pure(({ records }) => {
  const rounds = useMemo(() => roundSummaries(records ?? []), [records]);
  const split = rounds.filter(({ computing }) => computing !== null).slice(-ROUNDS_SHOWN);
  if (split.length === 0) return null;
  const newest = split.at(-1);
  const label = t("rounds.label", {
    count: split.length, round: newest.round, computing: format.seconds(newest.computing),
    synchronizing: format.seconds(newest.synchronizing, 2), waiting: format.seconds(newest.waiting),
  });
  const titles = [
    t("axis.round"), t("rounds.computing"), t("rounds.synchronizing"), t("rounds.waiting"), t("rounds.averaging"),
    t("rounds.sent"), t("rounds.received"), t("rounds.reports"),
  ];
  return html`<section class="panel" aria-labelledby="rounds-title"><h2 id="rounds-title">${t("rounds.title")}</h2>
    <${BarsLegend} id="split" parts=${parts()} />
    <${StackedBars} id="split" label=${label} parts=${parts()} rows=${split} />
    <p class="quiet">${label}</p>
    <details><summary>${t("rounds.table")}</summary>
      <${ScrollTable} id="round-rows" caption=${t("rounds.table")} titles=${titles} rows=${[...rounds].reverse().map(rowOf)} />
    </details></section>`;
});
