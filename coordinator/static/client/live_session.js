// One session as it is followed: what the event stream says counts at once, lists are asked for again.
import { AwayError, getJson, getPages, getText, postJson } from "./api.js";
import { showConnection } from "./connection.js";
import { EventStream } from "./event_stream.js";
import { loadIdentity } from "./identity.js";
import { showProblem } from "./problem.js";
import { refresher } from "./refresher.js";
import { Store } from "./store.js";
import { PAGE_POINTS, exactRanges, resumeRound } from "../logic/curve.js";
import {
  EMPTY, withEvent, withLogAsked, withLogPage, withOlderLog, withPoints, withSession, withSnapshot, withWaiting,
  withoutSession,
} from "../logic/session_state.js";
import { mayWait } from "../logic/states.js";

const PEOPLE_REFRESH_MS = 5000;
const PEOPLE_PAGE = 200;
const PEOPLE_PAGES = 10;
const LOG_PAGE = 200;

/** Follows a session from the moment it is made until `close()`; `store` holds what is known, `busy` an action under way. */
export class LiveSession {
  #base; #stream; #loads; #closed = false;

  constructor(id) {
    this.#base = `/api/v1/sessions/${encodeURIComponent(id)}`;
    this.store = new Store({ ...EMPTY, isBusy: false });
    this.#loads = this.#makeLoads();
    this.#stream = new EventStream(this.#base, {
      onFrame: (frame, { use, reload }) => this.#apply(frame, use, reload),
      onConnection: showConnection,
      onGone: () => { showConnection(""); this.store.update(withoutSession); },
    });
  }

  close() {
    this.#closed = true;
    this.#stream.close();
    for (const load of Object.values(this.#loads)) load.stop();
  }

  #makeLoads() {
    // that the coordinator is away is the event stream's to say
    const explain = (error) => { if (!(error instanceof AwayError)) showProblem(error); };
    const get = (part) => getJson(`${this.#base}/${part}`);
    const put = (field) => (value) => this.store.update((state) => ({ ...state, [field]: value }));
    const loadLog = () => { this.store.update(withLogAsked); return get(`logs?limit=${LOG_PAGE}`); };
    const loadPeople = () => getPages(`${this.#base}/participants?limit=${PEOPLE_PAGE}`, PEOPLE_PAGES);
    return {
      people: refresher(loadPeople, (page) => this.#setPeople(page), explain, PEOPLE_REFRESH_MS),
      log: refresher(loadLog, (page) => this.store.update((state) => withLogPage(state, page)), explain),
      curve: refresher(() => get("metrics"), ({ items }) => this.#setCurve(items), explain),
      points: refresher(() => this.#loadNewPoints(), (page) => this.#setNewPoints(page), explain),
      waiting: refresher(() => getJson(this.#base), (session) => this.#setWaiting(session), explain),
      checkpoints: refresher(() => get("checkpoints"), ({ items }) => put("checkpoints")(items), explain),
      config: refresher(() => getText(`${this.#base}/config`), put("config"), explain),
    };
  }

  // ------------------------------------------------------------------------------------------ what arrives
  #apply(frame, use, reload) {
    const clientTime = Date.now() / 1000;
    if (use === "snapshot") {
      this.store.update((state) => withSnapshot(state, frame.data, frame.time - clientTime));
      showProblem(null);
      // whatever no event tells of may have changed in a break
      for (const name of ["people", "checkpoints", "waiting", "points"]) this.#loads[name].ask();
    } else {
      this.store.update((state) => withEvent(state, frame, { isPast: use === "past", clientTime }));
      this.#askAfter(frame);
    }
    if (reload) for (const name of ["log", "curve", "config"]) this.#loads[name].ask();
  }

  /** Ask for what an event only hints at. */
  #askAfter({ type, data }) {
    if (type === "participant.state") this.#loads.people.ask();
    if (type === "session.state") this.#askWhyItWaits();
    if (type === "session.state") this.#loads.checkpoints.ask();
    if (type !== "training.log") return;
    if (data.kind === "round" || data.kind === "evaluation") this.#loads.points.ask();
    if (data.kind === "evaluation") this.#loads.checkpoints.ask();
  }

  /** No event tells of it: what is waited for changes with others' sessions and with who comes and goes. */
  #askWhyItWaits() {
    const { session } = this.store.state;
    if (session !== null && mayWait(session.status)) this.#loads.waiting.ask();
  }

  #setWaiting(session) {
    this.store.update((state) => withWaiting(state, session));
  }

  #setPeople(people) {
    this.store.update((state) => ({ ...state, people }));
    this.#askWhyItWaits();
  }

  /** The newest points; nothing before there is a curve, which holds them. */
  async #loadNewPoints() {
    const { points } = this.store.state;
    return points === null ? null : getJson(`${this.#base}/metrics?from=${resumeRound(points)}`);
  }

  #setNewPoints(page) {
    if (page === null) return;
    this.#addPoints(page.items);
    // more than one answer holds came in a break: some between them were left out
    if (page.items.length >= PAGE_POINTS) this.#loads.curve.ask();
  }

  #addPoints(items) {
    if (items.length > 0) this.store.update((state) => withPoints(state, items));
  }

  async #setCurve(items) {
    this.store.update((state) => withPoints(state, items, { isWhole: true }));
    try {
      for (const [from, to] of exactRanges(items)) {
        const page = await getJson(`${this.#base}/metrics?from=${from}&to=${to}`);
        if (this.#closed) return;
        this.#addPoints(page.items);
      }
    } catch (error) {
      if (!(error instanceof AwayError)) showProblem(error);
    }
  }

  // ------------------------------------------------------------------------------------------ what is asked for
  /** Older records of the log. */
  async loadOlderLog() {
    const { olderLog } = this.store.state;
    if (olderLog === null) return;
    try {
      const page = await getJson(`${this.#base}/logs?limit=${LOG_PAGE}&cursor=${encodeURIComponent(olderLog)}`);
      if (!this.#closed) this.store.update((state) => withOlderLog(state, page));
    } catch (error) {
      if (!this.#closed) showProblem(error);
    }
  }

  /** Start, pause, resume, stop, cancel; what goes wrong is shown. */
  act(action) {
    return this.#ask(action, (session) => this.store.update((state) => withSession(state, session)));
  }

  /** Save a version of the model in the middle; resolves to the job, null if it was refused (that is shown). */
  save() {
    return this.#ask("save", (job) => job);
  }

  async #ask(action, use) {
    this.store.update((state) => ({ ...state, isBusy: true }));
    try {
      const answer = await postJson(`${this.#base}/${action}`);
      if (this.#closed) return null;
      showProblem(null);
      return use(answer);
    } catch (error) {
      if (this.#closed) return null;
      showProblem(error);
      if (error.status === 401) await loadIdentity();
      return null;
    } finally {
      this.store.update((state) => ({ ...state, isBusy: false }));
    }
  }
}
