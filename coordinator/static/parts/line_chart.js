// A line chart: uPlot on a canvas, with a readout, zoom by mouse and keyboard, and colours that follow the theme.
//
// It runs from left to right in every language. The canvas says nothing to screen readers: `label` does, the readout, and the
// table that the view puts beside it.
import uPlot from "../vendor/uplot/uplot.js";
import { t } from "../client/i18n.js";
import { colourOf, themeChanges } from "../client/theme.js";
import { isolate } from "../logic/message.js";
import { nearestIndex, select, shown, zoom } from "../logic/zoom.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";

const FONT = "12px system-ui, sans-serif";
/** The least room for a label of the x axis: a time has a day before it. */
const [NUMBER_PX, TIME_PX] = [80, 150];

function axis(write, { size, side, space }) {
  return {
    side, size, space, font: FONT, stroke: colourOf("--muted"), gap: 6,
    grid: { stroke: colourOf("--grid"), width: 1 }, ticks: { show: false },
    values: (_, splits) => splits.map((value) => (value === null ? null : isolate(write(value), "ltr"))),
  };
}

function line({ colour, dash, width }) {
  return { stroke: colourOf(colour), width: width ?? 2, dash, spanGaps: true, points: { show: false } };
}

/** uPlot's options; `on` are its callbacks: onCursor(x or null), onSelect(low, high), onReset(). */
function optionsOf({ series, isTime, isLog, writeX, writeY }, [width, height], on) {
  const chosen = (plot) => {
    const { left, width: selected } = plot.select;
    if (selected > 0) on.onSelect(plot.posToVal(left, "x"), plot.posToVal(left + selected, "x"));
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  };
  const moved = ({ cursor, data }) => on.onCursor(typeof cursor.idx === "number" ? data[0][cursor.idx] : null);
  return {
    width, height, legend: { show: false }, padding: [10, 12, 0, 0],
    scales: { x: { time: isTime }, y: { distr: isLog ? 3 : 1 } },
    axes: [axis(writeX, { side: 2, size: 30, space: isTime ? TIME_PX : NUMBER_PX }), axis(writeY, { side: 3, size: 56, space: 36 })],
    series: [{}, ...series.map(line)],
    cursor: {
      y: false, drag: { x: true, y: false, setScale: false }, points: { size: 7 },
      bind: { dblclick: () => () => { on.onReset(); return null; } },
    },
    hooks: { setSelect: [chosen], setCursor: [moved] },
  };
}

/**
 * The drawing itself: made anew when its form, the theme or the language changes, and fed with data otherwise. What it does by
 * itself leaves the cursor on the point where it is.
 */
function usePlot(box, { columns, window, cursor, form, ...look }, on) {
  const plot = useRef(null);
  const isOwnDoing = useRef(false);
  const [drawn, setDrawn] = useState(0);
  const latest = useRef({});
  latest.current = { on, cursor };

  const change = (work) => {
    isOwnDoing.current = true;
    plot.current.batch(work);
    const { cursor: place } = latest.current;
    if (place !== null) plot.current.setCursor({ left: plot.current.valToPos(place, "x"), top: 0 }, false);
    isOwnDoing.current = false;
  };
  // with the layout: it must end before its element is gone, and only such effects do
  useLayoutEffect(() => {
    const size = () => [Math.max(box.current.clientWidth, 80), Math.max(box.current.clientHeight, 80)];
    const calls = {
      onCursor: (x) => { if (!isOwnDoing.current) latest.current.on.onCursor(x); },
      onSelect: (low, high) => latest.current.on.onSelect(low, high), onReset: () => latest.current.on.onReset(),
    };
    plot.current = new uPlot(optionsOf(look, size(), calls), columns, box.current);
    const observer = new ResizeObserver(() => change(() => {
      const [width, height] = size();
      plot.current.setSize({ width, height });
    }));
    observer.observe(box.current);
    const redraw = () => setDrawn((count) => count + 1);
    themeChanges.addEventListener("change", redraw);
    return () => {
      themeChanges.removeEventListener("change", redraw);
      observer.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [form, drawn]);

  useEffect(() => {
    const [min, max] = shown(window, wholeOf(columns));
    change(() => {
      if (plot.current.data !== columns) plot.current.setData(columns, false);
      plot.current.setScale("x", { min, max });
    });
  }, [columns, window, form, drawn]);
  return plot;
}

const wholeOf = ([xs]) => [xs[0], xs.at(-1)];

function Legend({ series, readout }) {
  return html`<p class="legend">
    ${series.filter(({ label }) => label).map(({ label, colour, dash }) => html`<span key=${label}>
      <svg class="key" viewBox="0 0 24 8" width="24" height="8" aria-hidden="true"><path d="M0 4H24"
        style=${{ stroke: `var(${colour})`, strokeDasharray: dash?.join(" ") }} /></svg>${label}</span>`)}
    <output class="readout" aria-live="polite">${readout}</output></p>`;
}

/**
 * `columns`: [x, y…] as uPlot takes them, x rising, not empty; `series`: {label, colour, dash, width} for each y; `form`: a text
 * that changes when the chart must be made anew; `describe(index)`: the readout of a point; `label`: what the chart shows.
 */
export function LineChart({ id, label, describe, ...props }) {
  const box = useRef(null);
  const [window, setWindow] = useState(null);
  const [cursor, setCursor] = useState(null);
  const { columns, series, form } = props;
  const whole = wholeOf(columns);
  useEffect(() => { setWindow(null); setCursor(null); }, [form]);
  const plot = usePlot(box, { ...props, window, cursor }, {
    onCursor: setCursor, onReset: () => setWindow(null), onSelect: (low, high) => setWindow(select(low, high, whole)),
  });

  const index = cursor === null ? -1 : nearestIndex(columns[0], cursor);
  const go = (to) => {
    const place = Math.min(Math.max(to, 0), columns[0].length - 1);
    plot.current.setCursor({ left: plot.current.valToPos(columns[0][place], "x"), top: 0 }, false);
    setCursor(columns[0][place]);
  };
  const leave = () => {
    plot.current.setCursor({ left: -10, top: -10 }, false);
    setCursor(null);
  };
  const change = (direction) => setWindow(zoom(window, whole, direction, cursor));
  const keys = {
    ArrowLeft: () => go(index < 0 ? columns[0].length - 1 : index - 1), ArrowRight: () => go(index + 1),
    Home: () => go(0), End: () => go(columns[0].length - 1),
    "+": () => change(1), "=": () => change(1), "-": () => change(-1),
    Escape: () => { setWindow(null); leave(); },
  };
  const onKeyDown = (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  return html`<div class="chart">
    <div class="chart-head"><${Legend} series=${series} readout=${index < 0 ? "" : describe(index)} />
      <span class="buttons tight" role="group" aria-label=${t("chart.zoom")}>
        <button type="button" class="small" aria-label=${t("chart.in")} title=${t("chart.in")} onClick=${() => change(1)}>+</button>
        <button type="button" class="small" aria-label=${t("chart.out")} title=${t("chart.out")} disabled=${window === null}
          onClick=${() => change(-1)}>−</button>
        <button type="button" class="small" disabled=${window === null} onClick=${() => setWindow(null)}>${t("chart.all")}</button>
      </span></div>
    <div id=${id} class="plot" dir="ltr" ref=${box} data-window=${window?.join() ?? null} tabindex="0" role="group"
      aria-label=${label} aria-description=${t("chart.keys")} onKeyDown=${onKeyDown}></div>
  </div>`;
}
