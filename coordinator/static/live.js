// The coordinator's API: requests, and a session's event stream that opens itself again.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15000;
const NO_CONTENT = 204;

/** The coordinator could not be reached: nothing is wrong with what was asked. */
export class AwayError extends Error {}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new AwayError("The coordinator does not answer. Try again in a moment.");
  }
  if (response.status === NO_CONTENT) return null;
  const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
  // a proxy in between answers for a coordinator that is away, and not in JSON
  if (!isJson) throw new AwayError(`The coordinator cannot be reached (HTTP ${response.status}). Try again in a moment.`);
  const body = await response.json();
  if (response.ok) return body;
  const said = [body.detail, body.hint].filter(Boolean).join(": ");
  throw Object.assign(new Error(said), { status: response.status, problem: body });
}

export const getJson = (path) => request(path);

/** The first pages of a list, at most `most`, as one: all their items, `nextCursor` of the last, the rest of the first. */
export async function getPages(path, most) {
  const whole = await getJson(path);
  const joint = path.includes("?") ? "&" : "?";
  for (let count = 1; count < most && whole.nextCursor !== null; count += 1) {
    const page = await getJson(`${path}${joint}cursor=${encodeURIComponent(whole.nextCursor)}`);
    whole.items.push(...page.items);
    whole.nextCursor = page.nextCursor;
  }
  return whole;
}

/** POST, with a body in JSON if there is one; null where the answer has none. */
export function postJson(path, body) {
  if (body === undefined) return request(path, { method: "POST" });
  return request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/**
 * Events of one session over a WebSocket. After a break it begins anew: a snapshot comes first and holds all that was
 * missed. `handlers` are onEvent(event), onConnection("live" | "away") and onGone() once there is no such session.
 */
export class EventStream {
  #path; #handlers; #socket = null; #timer = 0; #delay = FIRST_DELAY_MS; #closed = false;

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
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    this.#socket.onclose = () => this.#reconnect();
  }

  #receive(event) {
    if (this.#closed) return;
    this.#delay = FIRST_DELAY_MS;
    this.#handlers.onConnection("live");
    this.#handlers.onEvent(event);
  }

  async #reconnect() {
    if (this.#closed) return;
    if (await this.#isGone()) {
      if (!this.#closed) this.#handlers.onGone();
      return;
    }
    if (this.#closed) return;
    this.#handlers.onConnection("away");
    // spread out, so that a coordinator that comes back is not met by everybody at once
    this.#timer = setTimeout(() => this.#connect(), this.#delay * (0.5 + Math.random() / 2));
    this.#delay = Math.min(LONGEST_DELAY_MS, this.#delay * 2);
  }

  /** Whether there is no such session (any more): then trying again would be in vain. */
  async #isGone() {
    try {
      await getJson(this.#path.replace(/\/events$/, ""));
    } catch (error) {
      return error.status === 404;
    }
    return false;
  }
}
