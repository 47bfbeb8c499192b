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
  context.textAlign = "left";
  context.fillText("round", 0, box.bottom + 8);
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

const lossesOf = (points) =>
  points.flatMap((point) => SERIES.map(({ field }) => point[field])).filter((value) => value !== null);

/** Whether there is a line to draw: round 0 alone is the untrained model. */
export const isDrawable = (points) => points.some((point) => point.round > 0) && lossesOf(points).length > 0;

/** Where things lie on a canvas of this size, in CSS pixels. */
function layout(canvas, points) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const rounds = range(points.map((point) => point.round), 0);
  const [first, last] = rounds;
  const scaleX = (round) => box.left + ((round - first) / (last - first || 1)) * (box.right - box.left);
  return { width, height, box, rounds, scaleX };
}

/** The point nearest to `x` CSS pixels from the canvas's left edge, null if there is none. */
export function nearestPoint(canvas, points, x) {
  if (points.length === 0) return null;
  const { scaleX } = layout(canvas, points);
  const distance = (point) => Math.abs(scaleX(point.round) - x);
  return points.reduce((nearest, point) => (distance(point) < distance(nearest) ? point : nearest));
}

/** Draw `points` ({round, loss, validationLoss}, those that are drawable) in the page's present colours. */
export function drawChart(canvas, points) {
  if (!isDrawable(points)) return;
  const ratio = devicePixelRatio || 1;
  const { width, height, box, rounds, scaleX } = layout(canvas, points);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  context.scale(ratio, ratio);

  const [low, high] = range(lossesOf(points), 0.05);
  const scaleY = (loss) => box.bottom - ((loss - low) / (high - low)) * (box.bottom - box.top);
  drawAxes(context, box, scaleX, scaleY, [rounds, [low, high]], style);
  for (const { field, colour, dash } of SERIES) {
    const places = points.filter((point) => point[field] !== null).map((point) => [scaleX(point.round), scaleY(point[field])]);
    drawLine(context, places, style.getPropertyValue(colour), dash);
  }
}
