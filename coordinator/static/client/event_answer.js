// Answers that come as server-sent events, as OpenAI's form has them.
import { readEvents } from "../logic/sse.js";
import { AwayError, ProblemError, postForStream, problemOf } from "./api.js";

/** Data of the last event, which is no JSON. */
const END = "[DONE]";

async function pieceOf(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new AwayError();
  }
}

/**
 * POST with a body in JSON; each event of the answer as JSON, as it comes. Raises AwayError if it breaks off, ProblemError for a
 * refusal, at the beginning or in the middle, and AbortError once `signal` calls it off.
 */
export async function* postForEvents(path, body, signal) {
  const response = await postForStream(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await pieceOf(reader);
    if (done) throw new AwayError(); // without its last event the answer is not whole
    const found = readEvents(rest, value);
    rest = found.rest;
    for (const data of found.events) {
      if (data === END) return;
      const event = JSON.parse(data);
      if (event.error) throw new ProblemError(problemOf(response.status, event));
      yield event;
    }
  }
}
