// The page: which view is shown, and how it follows its session. Data only ever becomes text nodes.
import { drawChart } from "/static/chart.js";
import { EventStream, getJson, postJson } from "/static/live.js";

const LIST_REFRESH_MS = 5000;
const PEOPLE_REFRESH_MS = 5000;
const LOG_ENTRIES = 200;
const TABLE_POINTS = 10;

const byId = (id) => document.getElementById(id);
const view = { stop: () => {} };

/** A new element with attributes and text. */
function element(tag, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

const number = (value, digits = 0) =>
  value === null || value === undefined ? "–" : value.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (value) => `${number(value, 1)} %`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

function badge(state) {
  return element("span", { class: "badge", "data-state": state }, state);
}

function showProblem(error) {
  byId("problem").textContent = error ? error.message : "";
  byId("problem").hidden = !error;
}

// ------------------------------------------------------------------------------------------------ the list
function sessionCard(session) {
  const item = element("li");
  const link = element("a", { class: "card", href: `#/s/${encodeURIComponent(session.id)}` });
  const head = element("span", { class: "card-head" });
  head.append(element("span", { class: "card-name", dir: "auto" }, session.name), badge(session.status));
  const bar = element("progress", { max: "100", value: String(session.processRate), "aria-label": "Progress" });
  const peers = `${number(session.peers)} connected, round ${number(session.round)}, loss ${number(session.loss, 3)}`;
  link.append(head, bar, element("span", { class: "muted" }, `${percent(session.processRate)} · ${peers}`));
  item.append(link);
  return item;
}

function showList() {
  let pages = 1;
  let timer = 0;
  let stopped = false;
  document.title = "cotrain";
  byId("connection").textContent = "";

  async function refresh() {
    clearTimeout(timer);
    try {
      const items = [];
      let cursor = "";
      for (let page = 0; page < pages && cursor !== null; page += 1) {
        const answer = await getJson(`/api/v1/sessions${cursor ? `?cursor=${cursor}` : ""}`);
        items.push(...answer.items);
        cursor = answer.nextCursor;
      }
      if (stopped) return;
      showProblem(null);
      byId("list-items").replaceChildren(...items.map(sessionCard));
      byId("list-empty").hidden = items.length > 0;
      byId("list-more").hidden = cursor === null;
    } catch (error) {
      if (!stopped) showProblem(error);
    }
    if (!stopped) timer = setTimeout(refresh, LIST_REFRESH_MS);
  }

  byId("list-more").onclick = () => { pages += 1; refresh(); };
  refresh();
  return () => { stopped = true; clearTimeout(timer); };
}

// -------------------------------------------------------------------------------------------- one session
function fact(name, value, wide = false) {
  const group = element("div", wide ? { class: "wide" } : {});
  group.append(element("dt", {}, name), element("dd", {}, value));
  return group;
}

function renderSession(session, act) {
  document.title = `${session.name} – cotrain`;
  byId("name").textContent = session.name;
  byId("state").replaceWith(Object.assign(badge(session.status), { id: "state" }));
  byId("description").textContent = session.description;
  byId("error").textContent = session.errorMsg;
  byId("error").hidden = !session.errorMsg;
  byId("command").textContent = session.joinCommand;
  byId("join").hidden = ["stopped", "completed", "failed", "cancelled"].includes(session.status);
  byId("actions").replaceChildren(...session.possibleActions.map((action) => {
    const button = element("button", { type: "button" }, action[0].toUpperCase() + action.slice(1));
    button.onclick = () => act(action, button);
    return button;
  }));
}

function renderProgress(session, progress) {
  const metrics = progress.metrics;
  byId("bar").value = progress.progress;
  byId("percent").textContent = percent(progress.progress);
  const facts = [
    fact("Connected", number(progress.participants)),
    fact("Round", number(metrics.round)),
    fact("Samples", `${number(metrics.samplesCommitted)} / ${number(metrics.samplesWanted)}`),
    fact("Training loss", number(progress.loss, 3)),
    fact("Validation loss", number(metrics.validationLoss, 3)),
    fact("Tokens/s", number(metrics.tokensPerSecond)),
  ];
  if (session.modelPath) facts.push(fact("Final model", session.modelPath, true));
  byId("facts").replaceChildren(...facts);
}

function row(values) {
  const made = element("tr");
  made.append(...values.map((value) => {
    const cell = element("td", { dir: "auto" });
    cell.append(value);
    return cell;
  }));
  return made;
}

function renderPeople(page) {
  byId("people").replaceChildren(...page.items.map((person) => row([
    person.name || person.peerId.slice(-8), badge(person.state), person.device, number(person.step),
    number(person.loss, 3), number(person.tokensPerSecond), person.digest.slice(0, 8) || "–",
  ])));
  byId("people-empty").hidden = page.items.length > 0;
}

function renderPoints(points) {
  drawChart(byId("chart"), points);
  byId("points").replaceChildren(...points.slice(-TABLE_POINTS).reverse().map((point) => row([
    number(point.round), number(point.samples), number(point.loss, 3), number(point.validationLoss, 3),
    number(point.tokensPerSecond),
  ])));
}

function logEntry(record) {
  const item = element("li");
  item.append(
    element("time", { datetime: new Date(record.time * 1000).toISOString() }, clock(record.time)),
    element("span", { class: "source" }, record.source),
    element("span", { class: `message ${record.level}`, dir: "auto" }, record.message),
  );
  return item;
}

const recordKey = (record) => `${record.source} ${record.run} ${record.number}`;

function addLog(record) {
  byId("log").prepend(logEntry(record));
  while (byId("log").childElementCount > LOG_ENTRIES) byId("log").lastElementChild.remove();
  byId("log-empty").hidden = true;
}

/** At most one call at a time, and one more if it was asked for meanwhile. */
function oneAtATime(work) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) { again = true; return; }
    running = true;
    try {
      do { again = false; await work(); } while (again);
    } catch (error) {
      showProblem(error);
    } finally {
      running = false;
    }
  };
}

function showSession(id) {
  const base = `/api/v1/sessions/${encodeURIComponent(id)}`;
  let session = null;
  let points = [];
  let shownRecords = new Set();
  let stopped = false;
  const ifShown = (render) => (value) => { if (!stopped) render(value); };

  const loadPeople = oneAtATime(async () => ifShown(renderPeople)(await getJson(`${base}/participants`)));
  const loadPoints = oneAtATime(async () => ifShown((page) => { points = page.items; renderPoints(points); })(await getJson(`${base}/metrics`)));
  const loadLog = oneAtATime(async () => ifShown((page) => {
    shownRecords = new Set(page.items.map(recordKey));
    byId("log").replaceChildren(...page.items.map(logEntry));
    byId("log-empty").hidden = page.items.length > 0;
  })(await getJson(`${base}/logs?limit=${LOG_ENTRIES}`)));

  async function act(action, button) {
    button.disabled = true;
    try {
      session = await postJson(`${base}/${action}`);
      if (!stopped) { showProblem(null); renderSession(session, act); }
    } catch (error) {
      button.disabled = false;
      showProblem(error);
    }
  }

  const handlers = {
    snapshot: ({ session: newest, progress }) => {
      session = newest;
      showProblem(null);
      renderSession(session, act);
      renderProgress(session, progress);
      loadPeople(); loadPoints(); loadLog();
    },
    "session.state": (data) => {
      Object.assign(session, { status: data.status, errorMsg: data.errorMsg, modelPath: data.modelPath, possibleActions: data.possibleActions });
      renderSession(session, act);
    },
    "training.progress": (data) => renderProgress(session, data),
    "training.log": (data) => {
      // after a reconnection the log is loaded anew and then replayed
      if (shownRecords.has(recordKey(data))) return;
      shownRecords.add(recordKey(data));
      addLog(data);
      if (data.kind === "round" || data.kind === "evaluation") loadPoints();
    },
    "participant.state": () => loadPeople(),
  };
  const stream = new EventStream(`${base}/events`, {
    onEvent: ({ type, data }) => handlers[type]?.(data),
    onConnection: (text) => { byId("connection").textContent = text; },
    onGone: showProblem,
  });
  const redraw = () => drawChart(byId("chart"), points);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const timer = setInterval(loadPeople, PEOPLE_REFRESH_MS);
  addEventListener("resize", redraw);
  dark.addEventListener("change", redraw);
  return () => {
    stopped = true;
    stream.close();
    clearInterval(timer);
    removeEventListener("resize", redraw);
    dark.removeEventListener("change", redraw);
  };
}

byId("copy").onclick = async () => {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    button.textContent = "Copied";
  } catch {
    // no clipboard without a secure context: select the text, so that the keyboard can copy it
    getSelection().selectAllChildren(byId("command"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
};

function route() {
  view.stop();
  showProblem(null);
  const match = /^#\/s\/([^/]+)$/.exec(location.hash);
  byId("list").hidden = Boolean(match);
  byId("session").hidden = !match;
  view.stop = match ? showSession(decodeURIComponent(match[1])) : showList();
}

addEventListener("hashchange", route);
route();
