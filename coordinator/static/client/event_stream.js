// A session's event stream over a WebSocket that opens itself again and goes on where it broke off.
import { reconnectDelay } from "../logic/backoff.js";
import { START, receive } from "../logic/resume.js";
import { getJson } from "./api.js";

/**
 * Events of one session. `handlers` are onFrame(frame, {use, reload}) as `receive` says, onConnection("live" | "away") and
 * onGone() once there is no such session.
 */
export class EventStream {
  #base; #handlers; #cursor = START; #socket = null; #timer = 0; #attempt = 0; #closed = false;
  #onOnline = () => this.#retryNow();

  /** `base`: the session's path in the API. */
  constructor(base, handlers) {
    this.#base = base;
    this.#handlers = handlers;
    addEventListener("online", this.#onOnline);
    this.#connect();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#onOnline);
    this.#socket?.close();
  }

  #connect() {
    this.#timer = 0;
    const url = new URL(`${this.#base}/events`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#cursor.seq !== null) url.searchParams.set("after", String(this.#cursor.seq));
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    this.#socket.onclose = () => this.#reconnect();
  }

  #receive(frame) {
    if (this.#closed) return;
    this.#attempt = 0;
    const { cursor, use, reload } = receive(this.#cursor, frame);
    this.#cursor = cursor;
    this.#handlers.onConnection("live");
    if (use !== "nothing") this.#handlers.onFrame(frame, { use, reload });
  }

  async #reconnect() {
    if (this.#closed) return;
    const isGone = await this.#isGone();
    if (this.#closed) return;
    if (isGone) {
      this.#handlers.onGone();
      return;
    }
    this.#handlers.onConnection("away");
    this.#timer = setTimeout(() => this.#connect(), reconnectDelay(this.#attempt, Math.random()));
    this.#attempt += 1;
  }

  #retryNow() {
    if (this.#timer === 0) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** Whether there is no such session (any more): then trying again would be in vain. */
  async #isGone() {
    try {
      await getJson(this.#base);
    } catch (error) {
      return error.status === 404;
    }
    return false;
  }
}
