// The curves of a session: loss, throughput and learning rate, with axis, scale and smoothing to choose.
import { format, languageStore, t } from "../client/i18n.js";
import { choose, preference } from "../client/preferences.js";
import { AXES, columns, isDrawable } from "../logic/curve.js";
import { Choice } from "../parts/choice.js";
import { LineChart } from "../parts/line_chart.js";
import { ScrollTable } from "../parts/table.js";
import { html, useMemo, useState } from "../parts/html.js";
import { pure } from "../parts/pure.js";

const TABLE_POINTS = 100;
const SMOOTHINGS = [0, 0.6, 0.9, 0.98];
const AXIS_KEYS = { samples: "axis.samples", tokens: "axis.tokens", round: "axis.round", time: "axis.time" };
const LOSS_FIELDS = ["loss", "validationLoss"];

const writeX = (axis) => (value) =>
  (axis === "time" ? format.shortTime(new Date(value * 1000)) : axis === "round" ? format.number(value) : format.compact(value));

/** Whole tokens a second, unless there are very many. */
const writeSpeed = (value) => (value < 1e5 ? format.number(value) : format.compact(value));

/** A choice that this browser remembers, if it is one of `values`. */
function useChoice(name, values) {
  const stored = values.find((value) => String(value) === preference(name));
  const [value, setValue] = useState(stored ?? values[0]);
  return [value, (next) => { choose(name, String(next)); setValue(next); }];
}

function where(point, axis) {
  return axis === "time"
    ? t("chart.atTime", { round: point.round, time: format.clock(new Date(point.time * 1000)) })
    : t("chart.atRound", { round: point.round, samples: point.samples });
}

function lossSeries(smoothing) {
  const raw = smoothing
    ? { field: "loss", label: "", colour: "--train-faint", width: 1 }
    : { field: "loss", label: t("curve.loss"), colour: "--train", width: 2 };
  const smoothed = { field: "loss", isSmoothed: true, label: t("curve.smoothed"), colour: "--train", width: 2 };
  const validation = { field: "validationLoss", label: t("curve.validationLoss"), colour: "--validation", dash: [7, 4] };
  return smoothing ? [raw, smoothed, validation] : [raw, validation];
}

function LossChart({ points, axis, isLog, smoothing, tokens }) {
  const language = languageStore.state;
  const series = useMemo(() => lossSeries(smoothing), [smoothing, language]);
  const drawn = useMemo(
    () => columns(points, series, { axis, smoothing, tokensPerSample: tokens ?? 1 }), [points, series, axis, smoothing, tokens],
  );
  const describe = (index) => {
    const point = drawn.points[index];
    const values = { loss: format.number(point.loss, 3), validation: format.number(point.validationLoss, 3) };
    return `${where(point, axis)}: ${t("chart.losses", values)}`;
  };
  const newest = points.at(-1);
  const label = t("chart.lossLabel", {
    round: newest.round, loss: format.number(newest.loss, 3), validation: format.number(newest.validationLoss, 3),
  });
  return html`<${LineChart} id="loss-chart" form="${axis} ${isLog} ${smoothing > 0} ${language}" columns=${drawn.columns} series=${series}
    isTime=${axis === "time"} isLog=${isLog} writeX=${writeX(axis)} writeY=${(value) => format.significant(value, 3)}
    describe=${describe} label=${label} />`;
}

/** A small chart of one field; `write` is how its values are written, `said` the texts of a point and of the newest one. */
function FieldChart({ id, field, series: { label, colour }, points, axis, tokens, write, said }) {
  const language = languageStore.state;
  const series = useMemo(() => [{ field, label, colour }], [field, label, colour]);
  const drawn = useMemo(() => columns(points, series, { axis, tokensPerSample: tokens ?? 1 }), [points, series, axis, tokens]);
  const newest = points.at(-1);
  return html`<${LineChart} id=${id} form="${axis} ${language}" columns=${drawn.columns} series=${series}
    isTime=${axis === "time"} isLog=${false} writeX=${writeX(axis)} writeY=${write}
    describe=${(index) => `${where(drawn.points[index], axis)}: ${said.point(drawn.points[index][field])}`}
    label=${said.newest(newest.round, newest[field])} />`;
}

const speedTexts = () => ({
  point: (value) => t("chart.speed", { speed: format.number(value) }),
  newest: (round, value) => t("chart.speedLabel", { round, speed: format.number(value) }),
});
const rateTexts = () => ({
  point: (value) => t("chart.rate", { rate: format.significant(value, 3) }),
  newest: (round, value) => t("chart.rateLabel", { round, rate: format.significant(value, 3) }),
});

/** Throughput and learning rate, as far as they are known. */
function SmallCharts(props) {
  const speed = { label: t("curve.speed"), colour: "--speed" };
  const rate = { label: t("facts.learningRate"), colour: "--curve-4" };
  return html`<div class="small-charts">
    ${isDrawable(props.points, ["tokensPerSecond"]) && html`<div><h3>${t("curve.speedTitle")}</h3>
      <${FieldChart} id="speed-chart" field="tokensPerSecond" series=${speed} write=${writeSpeed} said=${speedTexts()} ...${props} />
      </div>`}
    ${isDrawable(props.points, ["learningRate"]) && html`<div><h3>${t("facts.learningRate")}</h3>
      <${FieldChart} id="rate-chart" field="learningRate" series=${rate} write=${(value) => format.significant(value, 2)}
        said=${rateTexts()} ...${props} /></div>`}</div>`;
}

function PointsTable({ points }) {
  const titles = [t("axis.round"), t("axis.samples"), t("curve.loss"), t("curve.validationLoss"), t("curve.speed"),
    t("facts.learningRate")];
  const rows = points.slice(-TABLE_POINTS).reverse().map((point) => [
    format.number(point.round), format.number(point.samples), format.number(point.loss, 3),
    format.number(point.validationLoss, 3), format.number(point.tokensPerSecond), format.significant(point.learningRate, 3),
  ]);
  return html`<details id="rounds"><summary>${t("curve.table")}</summary>
    <${ScrollTable} id="points" caption=${t("curve.table")} titles=${titles} rows=${rows} /></details>`;
}

/** `points` of the session, null before they are there; `tokens`: tokens in a sample, null where that is not fixed. */
export const SessionCurves = pure(({ points, tokens }) => {
  const axes = AXES.filter((axis) => axis !== "tokens" || tokens !== null);
  const [chosen, setAxis] = useChoice("axis", AXES);
  const [scale, setScale] = useChoice("scale", ["linear", "log"]);
  const [smoothing, setSmoothing] = useChoice("smoothing", SMOOTHINGS);
  const axis = axes.includes(chosen) ? chosen : "samples";
  const known = points ?? [];
  if (!isDrawable(known, LOSS_FIELDS)) {
    return html`<section class="panel" aria-labelledby="loss-title"><h2 id="loss-title">${t("curve.title")}</h2>
      <p id="loss-empty" class="quiet">${t("curve.empty")}</p></section>`;
  }
  const smoothed = SMOOTHINGS.map((value) => [value, value === 0 ? t("smoothing.none") : format.percent(100 * value, 0)]);
  return html`<section class="panel curves" aria-labelledby="loss-title">
    <div class="panel-head"><h2 id="loss-title">${t("curve.title")}</h2><div class="choices">
      <${Choice} id="axis" label=${t("axis.title")} value=${axis} onChange=${setAxis}
        options=${axes.map((name) => [name, t(AXIS_KEYS[name])])} />
      <${Choice} id="scale" label=${t("scale.title")} value=${scale} onChange=${setScale}
        options=${[["linear", t("scale.linear")], ["log", t("scale.log")]]} />
      <${Choice} id="smoothing" label=${t("smoothing.title")} value=${smoothing} options=${smoothed}
        onChange=${(value) => setSmoothing(Number(value))} /></div></div>
    <${LossChart} points=${known} axis=${axis} isLog=${scale === "log"} smoothing=${smoothing} tokens=${tokens} />
    <${SmallCharts} points=${known} axis=${axis} tokens=${tokens} />
    <${PointsTable} points=${known} /></section>`;
});
