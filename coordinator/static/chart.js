// A small line chart: training and validation loss by round.

const MARGIN = { left: 48, right: 12, top: 10, bottom: 26 };
const TICKS = 5;
const SERIES = [
  { field: "loss", colour: "--train", dash: [] },
  { field: "validationLoss", colour: "--validation", dash: [6, 4] },
];

/** Round numbers from `low` to `high`, about `count` of them. */
export function ticks(low, high, count = TICKS) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= count);
  const found = [];
  for (let index = Math.ceil(low / step); index * step <= high + step * 1e-9; index += 1) found.push(index * step);
  return found;
}

function range(values, padding) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const extra = (high - low || 1) * padding;
  return [low - extra, high + extra];
}

function drawAxes(context, box, scaleX, scaleY, [rounds, losses], style) {
  context.font = "12px system-ui, sans-serif";
  context.strokeStyle = style.getPropertyValue("--line");
  context.fillStyle = style.getPropertyValue("--muted");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of ticks(...losses)) {
    const y = Math.round(scaleY(value)) + 0.5;
    context.beginPath();
    context.moveTo(box.left, y);
    context.lineTo(box.right, y);
    context.stroke();
    context.fillText(value.toPrecision(3), box.left - 6, y);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const value of ticks(...rounds).filter(Number.isInteger)) context.fillText(String(value), scaleX(value), box.bottom + 8);
}

function drawLine(context, places, colour, dash) {
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.setLineDash(dash);
  context.beginPath();
  places.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
  context.setLineDash([]);
  if (places.length === 0) return;
  context.beginPath();
  context.arc(...places.at(-1), 3.5, 0, 2 * Math.PI);
  context.fill();
}

/** Draw `points` ({round, loss, validationLoss}) in the page's present colours. */
export function drawChart(canvas, points) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  context.scale(ratio, ratio);

  const losses = points.flatMap((point) => SERIES.map(({ field }) => point[field])).filter((value) => value !== null);
  if (losses.length === 0) {
    context.font = "14px system-ui, sans-serif";
    context.fillStyle = style.getPropertyValue("--muted");
    context.textAlign = "center";
    context.fillText("The first round has not ended yet", width / 2, height / 2);
    return;
  }
  const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const ranges = [range(points.map((point) => point.round), 0), range(losses, 0.05)];
  const [[first, last], [low, high]] = ranges;
  const scaleX = (round) => box.left + ((round - first) / (last - first || 1)) * (box.right - box.left);
  const scaleY = (loss) => box.bottom - ((loss - low) / (high - low)) * (box.bottom - box.top);
  drawAxes(context, box, scaleX, scaleY, ranges, style);
  for (const { field, colour, dash } of SERIES) {
    const places = points.filter((point) => point[field] !== null).map((point) => [scaleX(point.round), scaleY(point[field])]);
    drawLine(context, places, style.getPropertyValue(colour), dash);
  }
}
