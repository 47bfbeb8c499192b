// A conversation with a model: what is sent, what has come, what may be said about it. Pure.
//
// An exchange is {question, answer, state, id, isKept, rating, error}: `state` one of STATES, `id` that of the answer, `isKept`
// whether its writer allows learning from it, `rating` 1, 0 or -1, `error` what went wrong.

/** waiting: nothing has come yet; cut: it is as long as was allowed; stopped: by whoever asked. */
export const STATES = ["waiting", "answering", "done", "cut", "stopped", "failed"];

/** Characters of a question. */
export const MOST_CHARACTERS = 8000;
/** Exchanges that are told to the model again: a request has room for 256 messages. */
const MOST_EXCHANGES = 100;
const FINISHED = { stop: "done", length: "cut" };
const ERRORS = { 404: "chat.notThere", 413: "chat.tooLong", 429: "chat.busy", 503: "chat.unavailable" };
const CONTEXT_FULL = "context_length_exceeded";

/** The versions of a model (as the API tells it, with its `items`) that can be chatted with, newest first. */
export const servableVersions = ({ items }) => items.filter(({ servable }) => servable);

/** The number of the version that answers chats: the promoted one, else the newest that can; null if none can. */
export function answeringVersion(model) {
  const numbers = servableVersions(model).map(({ version }) => version);
  return numbers.includes(model.promotedVersion) ? model.promotedVersion : numbers[0] ?? null;
}

/** A question that is just being asked. */
export const begun = (question, isKept) =>
  ({ question, answer: "", state: "waiting", id: "", isKept, rating: 0, error: null });

/** With a piece of the answer (`chat.completion.chunk`) behind it. */
export function withChunk(exchange, chunk) {
  const [choice] = chunk.choices;
  const { content } = choice?.delta ?? {};
  return {
    ...exchange, id: chunk.id, answer: exchange.answer + (content ?? ""),
    state: FINISHED[choice?.finish_reason] ?? (exchange.state === "waiting" ? "answering" : exchange.state),
  };
}

export const isOpen = ({ state }) => state === "waiting" || state === "answering";

/** Whether it is kept, and so can be rated: what is empty or was not answered to its end is not. */
export const isRatable = ({ state, isKept, answer }) => isKept && answer.trim() !== "" && (state === "done" || state === "cut");

/** What the model is told: the earlier exchanges that have an answer, and a question. */
export function messagesOf(exchanges, question) {
  const told = exchanges.filter(({ answer, state }) => answer !== "" && state !== "failed").slice(-MOST_EXCHANGES);
  const earlier = told.flatMap((one) =>
    [{ role: "user", content: one.question }, { role: "assistant", content: one.answer }]);
  return [...earlier, { role: "user", content: question }];
}

/** The body of a request for a streamed answer. `most`: tokens of it; null: as many as fit. */
export function requestOf({ reference, exchanges, question, temperature, most, consent }) {
  return {
    model: reference, messages: messagesOf(exchanges, question), stream: true, temperature,
    ...(most === null ? {} : { max_tokens: most }), ...(consent ? { consent: true } : {}),
  };
}

/** The number in a field, between `low` and `high`; `otherwise` where there is none. */
export function bounded(text, low, high, otherwise) {
  const value = Number(text);
  return text.trim() === "" || !Number.isFinite(value) ? otherwise : Math.min(Math.max(value, low), high);
}

/** The key of the text that says why there is no answer; null: the coordinator's own words are better. */
export function errorKey({ status, problem }) {
  return problem?.code === CONTEXT_FULL ? "chat.tooLong" : ERRORS[status] ?? null;
}
