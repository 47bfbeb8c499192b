// One session: how the page follows it.
import { enableActions, showActions } from "/static/actions.js";
import { byId, showConnection, showProblem } from "/static/dom.js";
import { secondsLeft } from "/static/estimate.js";
import { identityChanges, loadIdentity, maySteer } from "/static/identity.js";
import { AwayError, EventStream, getJson, getPages, postJson } from "/static/live.js";
import { Log, LOG_RECORDS, sampleOf } from "/static/log.js";
import {
  WAITING_STATES, clearParts, renderPoints, renderProgress, renderResult, renderSession, renderSteering, watchChart,
} from "/static/parts.js";
import { namesOf, showPeople } from "/static/people.js";
import { refresher } from "/static/refresher.js";

const PEOPLE_REFRESH_MS = 5000;
const PEOPLE_PAGE = 200;
const PEOPLE_PAGES = 10;

/** One session on the page. What the event stream says is shown at once; lists are asked for again. */
class SessionView {
  #base; #stream; #loads; #unwatchChart;
  #onIdentity = () => this.#showSteering();
  #log = new Log();
  #session = null;
  #progress = null;
  #people = null;
  #points = [];
  #serverAheadS = 0;
  #closed = false;

  constructor(id) {
    this.#base = `/api/v1/sessions/${id}`;
    this.#loads = this.#makeLoads();
    this.#unwatchChart = watchChart(() => this.#points);
    identityChanges.addEventListener("change", this.#onIdentity);
    this.#stream = new EventStream(`${this.#base}/events`, {
      onEvent: (event) => this.#apply(event),
      onConnection: (state) => { showConnection(state); enableActions(state === "live"); },
      onGone: () => this.#showGone(),
    });
  }

  close() {
    this.#closed = true;
    this.#stream.close();
    this.#unwatchChart();
    identityChanges.removeEventListener("change", this.#onIdentity);
    for (const load of Object.values(this.#loads)) load.stop();
  }

  #makeLoads() {
    // that the coordinator is away is the event stream's to say
    const explain = (error) => { if (!(error instanceof AwayError)) showProblem(error); };
    const get = (part) => getJson(`${this.#base}/${part}`);
    const loadLog = () => { this.#log.startLoading(); return get(`logs?limit=${LOG_RECORDS}`); };
    const loadPeople = () => getPages(`${this.#base}/participants?limit=${PEOPLE_PAGE}`, PEOPLE_PAGES);
    return {
      people: refresher(loadPeople, (page) => this.#setPeople(page), explain, PEOPLE_REFRESH_MS),
      points: refresher(() => get("metrics"), (page) => this.#setPoints(page.items), explain),
      log: refresher(loadLog, (page) => this.#setLog(page.items), explain),
      waiting: refresher(() => getJson(this.#base), (session) => this.#setWaiting(session), explain),
    };
  }

  // ------------------------------------------------------------------------------------------ what arrives
  #apply({ type, time, data }) {
    this.#serverAheadS = time - Date.now() / 1000;
    if (type === "snapshot") this.#setAll(data);
    else if (type === "session.state") this.#setState(data);
    else if (type === "training.progress") this.#setProgress(data);
    else if (type === "training.log") this.#addRecord(data);
    else if (type === "participant.state") this.#loads.people.ask();
  }

  #setAll({ session, progress }) {
    this.#session = session;
    this.#progress = progress;
    showProblem(null);
    byId("session").hidden = false;
    this.#showSession();
    for (const load of Object.values(this.#loads)) load.ask();
  }

  #setState({ status, errorMsg, modelPath, possibleActions }) {
    Object.assign(this.#session, { status, errorMsg, modelPath, possibleActions, waitingFor: null });
    this.#showSession();
    this.#askWhyItWaits();
  }

  /** No event tells of it: what is waited for changes with others' sessions and with who comes and goes. */
  #askWhyItWaits() {
    if (WAITING_STATES.includes(this.#session.status)) this.#loads.waiting.ask();
  }

  #setWaiting({ status, waitingFor }) {
    if (status !== this.#session.status) return; // older or newer than the last event: another answer will come
    this.#session.waitingFor = waitingFor;
    this.#showProgress();
  }

  #setProgress(progress) {
    this.#progress = progress;
    this.#showProgress();
  }

  #addRecord(record) {
    this.#log.add(record);
    if (record.data.sample) this.#showResult();
    if (record.kind === "round" || record.kind === "evaluation") this.#loads.points.ask();
  }

  #setPeople(page) {
    this.#people = page;
    this.#log.setNames(namesOf(page));
    this.#showPeople();
    this.#showProgress();
    this.#askWhyItWaits();
  }

  #setPoints(points) {
    this.#points = points;
    renderPoints(points);
    this.#showProgress();
  }

  #setLog(page) {
    this.#log.load(page);
    this.#showResult();
    this.#showPeople();
  }

  async #act(action) {
    enableActions(false);
    try {
      const session = await postJson(`${this.#base}/${action}`);
      if (this.#closed) return;
      this.#session = session;
      showProblem(null);
      this.#showSession();
    } catch (error) {
      if (this.#closed) return;
      showProblem(error);
      enableActions(true);
      if (error.status === 401) await loadIdentity();
    }
  }

  // ------------------------------------------------------------------------------------------ what is shown
  #showSession() {
    renderSession(this.#session);
    this.#showSteering();
    enableActions(true);
    this.#showResult();
    this.#showProgress();
  }

  #showSteering() {
    if (this.#session === null) return;
    const isAllowed = maySteer(this.#session);
    showActions(isAllowed ? this.#session.possibleActions : [], (action) => this.#act(action));
    renderSteering(this.#session, isAllowed);
  }

  #showProgress() {
    const { participants, metrics } = this.#progress;
    const isMoving = this.#session.status === "training" && participants > 0;
    const now = Date.now() / 1000 + this.#serverAheadS;
    renderProgress(this.#session, this.#progress, isMoving ? secondsLeft(this.#points, metrics.samplesWanted, now) : null);
  }

  #showResult() {
    renderResult(this.#session, sampleOf(this.#log.records));
  }

  #showPeople() {
    if (this.#people) showPeople(this.#people, this.#log.records);
  }

  #showGone() {
    showConnection("");
    byId("session").hidden = true;
    showProblem(new Error("There is no such session. It may have been deleted."));
  }
}

/** Show a session and follow it; returns what ends that. */
export function showSession(id) {
  document.title = "cotrain";
  clearParts();
  const view = new SessionView(id);
  return () => view.close();
}
