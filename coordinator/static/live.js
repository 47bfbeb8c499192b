// The coordinator's API: requests, and a session's event stream that reconnects where it was.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15000;

async function answer(response) {
  const body = await response.json();
  if (response.ok) return body;
  throw new Error([body.detail, body.hint].filter(Boolean).join(": "));
}

export async function getJson(path) {
  return answer(await fetch(path));
}

export async function postJson(path) {
  return answer(await fetch(path, { method: "POST" }));
}

/** Events of one session over a WebSocket. After a break it asks for what came after the last one seen. */
export class EventStream {
  #path; #handlers; #socket = null; #timer = 0; #delay = FIRST_DELAY_MS; #seen = null; #closed = false;

  constructor(path, handlers) {
    this.#path = path;
    this.#handlers = handlers;
    this.#connect();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  #connect() {
    const url = new URL(this.#path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#seen !== null) url.searchParams.set("after", String(this.#seen));
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    this.#socket.onclose = (event) => this.#reconnect(event);
  }

  #receive(event) {
    if (this.#closed) return;
    this.#delay = FIRST_DELAY_MS;
    this.#handlers.onConnection("live");
    // a snapshot on reconnection is newer than what is still to be replayed: it is shown, not counted
    if (event.type === "snapshot") this.#seen ??= event.seq;
    else this.#seen = event.seq;
    this.#handlers.onEvent(event);
  }

  async #reconnect(event) {
    if (this.#closed) return;
    this.#handlers.onConnection("connection lost, trying again …");
    if (event.code === 1000 || event.code === 1006) {
      if (await this.#isGone()) return;
    }
    if (this.#closed) return;
    this.#timer = setTimeout(() => this.#connect(), this.#delay * (0.5 + Math.random() / 2));
    this.#delay = Math.min(LONGEST_DELAY_MS, this.#delay * 2);
  }

  /** Whether there is no such session (any more): then trying again would be in vain. */
  async #isGone() {
    let response;
    try {
      response = await fetch(this.#path.replace(/\/events$/, ""));
    } catch {
      return false; // the coordinator is away, the session may still be there
    }
    if (response.status !== 404) return false;
    this.#handlers.onConnection("");
    this.#handlers.onGone(new Error("There is no such session. It may have been deleted."));
    return true;
  }
}
