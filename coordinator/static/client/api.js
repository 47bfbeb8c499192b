// The coordinator's API: requests and lists.
import { SaidError } from "../logic/said.js";

const NO_CONTENT = 204;

/** The coordinator could not be reached: nothing is wrong with what was asked. */
export class AwayError extends SaidError {
  constructor() {
    super("problem.away");
  }
}

/** The coordinator's refusal (problem+json): `status`, `problem` with its fields, the message for people. */
export class ProblemError extends Error {
  constructor(problem) {
    super([problem.detail, problem.hint].filter(Boolean).join(": "));
    this.status = problem.status;
    this.problem = problem;
  }
}

/** A refusal in one form: that of `/v1` is OpenAI's, {error: {message, code}}. */
export const problemOf = (status, body) => (body.error ? { status, code: body.error.code, detail: body.error.message } : body);

async function answerOf(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new AwayError();
  }
  if (response.ok || response.status === NO_CONTENT) return response;
  const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
  // a proxy in between answers for a coordinator that is away, and not in JSON
  throw isJson ? new ProblemError(problemOf(response.status, await response.json())) : new AwayError();
}

async function request(path, options) {
  const response = await answerOf(path, options);
  if (response.status === NO_CONTENT) return null;
  if (!/\bjson\b/.test(response.headers.get("Content-Type") ?? "")) throw new AwayError();
  return response.json();
}

export const getJson = (path) => request(path);

/** The text that is at `path`. */
export const getText = async (path) => (await answerOf(path)).text();

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

const JSON_BODY = { "Content-Type": "application/json" };

/** POST, with a body in JSON if there is one; null where the answer has none. `signal` calls it off. */
export function postJson(path, body, { signal } = {}) {
  if (body === undefined) return request(path, { method: "POST", signal });
  return request(path, { method: "POST", headers: JSON_BODY, body: JSON.stringify(body), signal });
}

/** POST with a body in JSON; the answer as it begins. */
export const postForStream = (path, body, signal) =>
  answerOf(path, { method: "POST", headers: JSON_BODY, body: JSON.stringify(body), signal });

/** DELETE; null where the answer has no content. */
export const deleteJson = (path) => request(path, { method: "DELETE" });
