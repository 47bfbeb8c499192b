// The training log, newest first.
import { byId, element, isolated } from "/static/dom.js";
import { clock } from "/static/format.js";

/** How many records are kept; also the most that the API answers at once. */
export const LOG_RECORDS = 200;

const keyOf = (record) => `${record.source} ${record.run} ${record.number}`;

/** The records on the page. They come from a page of the API and, one by one, from the event stream. */
export class Log {
  #records = []; #fresh = []; #names = new Map();

  /** The records shown, newest first. */
  get records() {
    return this.#records;
  }

  /** Call it before a page is asked for: what comes meanwhile may be missing in the page. */
  startLoading() {
    this.#fresh = [];
  }

  /** Show a page of the API, newest first, and what has come since it was asked for. */
  load(page) {
    const known = new Set(page.map(keyOf));
    this.#records = [...this.#fresh.filter((record) => !known.has(keyOf(record))), ...page].slice(0, LOG_RECORDS);
    byId("log").replaceChildren(...this.#records.map((record) => this.#entry(record)));
    this.#showWhetherEmpty();
  }

  /** Add a record of the event stream. */
  add(record) {
    this.#fresh = [record, ...this.#fresh].slice(0, LOG_RECORDS);
    if (this.#records.some((shown) => keyOf(shown) === keyOf(record))) return;
    this.#records = [record, ...this.#records].slice(0, LOG_RECORDS);
    byId("log").prepend(this.#entry(record));
    while (byId("log").childElementCount > LOG_RECORDS) byId("log").lastElementChild.remove();
    this.#showWhetherEmpty();
  }

  /** Show participants by name instead of by id. */
  setNames(names) {
    this.#names = names;
    for (const shown of byId("log").querySelectorAll(".source")) shown.replaceChildren(this.#name(shown.dataset.source));
  }

  #name(source) {
    return isolated(this.#names.get(source) ?? source);
  }

  #entry(record) {
    const date = new Date(record.time * 1000);
    return element("li", {},
      element("time", { datetime: date.toISOString() }, clock(date)),
      element("span", { class: "source", "data-source": record.source }, this.#name(record.source)),
      element("span", { class: `message ${record.level}`, dir: "auto" }, record.message));
  }

  #showWhetherEmpty() {
    byId("log").hidden = this.#records.length === 0;
    byId("log-empty").hidden = this.#records.length > 0;
  }
}

/** What the finished model wrote when the checkpointer tried it; empty if it has not. */
export function sampleOf(records) {
  const sample = records.find((record) => record.source === "checkpointer" && record.data.sample)?.data.sample;
  return typeof sample === "string" ? sample.trim() : "";
}
