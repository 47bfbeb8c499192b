// What the page makes of a chat: its stream, its conversation, its errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  STATES, answeringVersion, begun, bounded, errorKey, isOpen, isRatable, messagesOf, requestOf, servableVersions, withChunk,
} from "../../coordinator/static/logic/chat.js";
import { readEvents } from "../../coordinator/static/logic/sse.js";

const STREAM = 'data: {"a":1}\r\n\r\n: still here\r\n\r\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\nid: 7\r\n\r\ndata: [DONE]\r\n\r\n';
const EVENTS = ['{"a":1}', "two\nlines", "[DONE]"];

function readAll(pieces) {
  const events = [];
  let rest = "";
  for (const piece of pieces) {
    const found = readEvents(rest, piece);
    rest = found.rest;
    events.push(...found.events);
  }
  return { events, rest };
}

test("events are the same wherever the stream is cut, whichever of both ends its lines have", () => {
  for (const end of ["\r\n", "\n"]) {
    const text = STREAM.replaceAll("\r\n", end);
    for (let place = 0; place <= text.length; place += 1) {
      assert.deepEqual(readAll([text.slice(0, place), text.slice(place)]).events, EVENTS, `${JSON.stringify(end)} ${place}`);
    }
    assert.deepEqual(readAll([...text]).events, EVENTS);
  }
});

test("an event that has not ended waits for its end", () => {
  assert.deepEqual(readAll(["data: a\n\ndata: b\n"]), { events: ["a"], rest: "data: b\n" });
  assert.deepEqual(readAll(["data: a\n\ndata: b\n", "\n"]).events, ["a", "b"]);
  assert.deepEqual(readAll([]), { events: [], rest: "" });
});

const chunk = (content, finish = null) => ({ id: "chatcmpl-1", choices: [{ delta: { content }, finish_reason: finish }] });

test("an answer grows by its pieces, and says how it ended", () => {
  const first = withChunk(begun("Why?", true), { id: "chatcmpl-1", choices: [{ delta: { role: "assistant" }, finish_reason: null }] });
  assert.equal(first.state, "answering");
  const whole = [chunk("Be"), chunk("cause."), chunk(undefined, "stop")].reduce(withChunk, first);
  assert.equal(whole.answer, "Because.");
  assert.equal(whole.state, "done");
  assert.equal(whole.id, "chatcmpl-1");
  assert.equal(withChunk(whole, { id: "chatcmpl-1", choices: [] }).state, "done");
  assert.equal(withChunk(first, chunk("", "length")).state, "cut");
});

test("only an exchange that is kept, and has come to its end, can be rated", () => {
  const answered = withChunk(begun("q", true), chunk("a", "stop"));
  assert.equal(isRatable(answered), true);
  assert.equal(isRatable({ ...answered, isKept: false }), false);
  assert.equal(isRatable({ ...answered, state: "stopped" }), false);
  assert.equal(isRatable({ ...answered, answer: " " }), false);
  assert.deepEqual(STATES.filter((state) => isOpen({ state })), ["waiting", "answering"]);
});

test("the model is told what was said before, but nothing that failed", () => {
  const said = [
    { question: "1", answer: "one", state: "done" }, { question: "2", answer: "", state: "failed" },
    { question: "3", answer: "thr", state: "stopped" }, { question: "4", answer: "fo", state: "failed" },
  ];
  assert.deepEqual(messagesOf(said, "5").map(({ role, content }) => `${role} ${content}`),
    ["user 1", "assistant one", "user 3", "assistant thr", "user 5"]);
  const long = Array.from({ length: 300 }, (_, number) => ({ question: `${number}`, answer: "a", state: "done" }));
  const told = messagesOf(long, "last");
  assert.ok(told.length <= 256);
  assert.equal(told[0].role, "user");
  assert.equal(told.at(-2).content, "a");
});

test("a request says no more than was chosen", () => {
  const asked = { reference: "tales:2", exchanges: [], question: "Why?", temperature: 0.5, most: null, consent: false };
  assert.deepEqual(requestOf(asked), {
    model: "tales:2", messages: [{ role: "user", content: "Why?" }], stream: true, temperature: 0.5,
  });
  assert.equal(requestOf({ ...asked, most: 9 }).max_tokens, 9);
  assert.equal(requestOf({ ...asked, consent: true }).consent, true);
});

test("the promoted version answers, else the newest one that can", () => {
  const items = [{ version: 3, servable: false }, { version: 2, servable: true }, { version: 1, servable: true }];
  assert.equal(answeringVersion({ items, promotedVersion: 1 }), 1);
  assert.equal(answeringVersion({ items, promotedVersion: null }), 2);
  assert.equal(answeringVersion({ items, promotedVersion: 3 }), 2);
  assert.equal(answeringVersion({ items: items.slice(0, 1), promotedVersion: null }), null);
  assert.deepEqual(servableVersions({ items }).map(({ version }) => version), [2, 1]);
});

test("a field's number stays within its bounds", () => {
  assert.deepEqual(["", "x", "-1", "0.7", "9"].map((text) => bounded(text, 0, 2, 1)), [1, 1, 0, 0.7, 2]);
});

test("errors are told by what they mean, the others as they came", () => {
  assert.equal(errorKey({ status: 429 }), "chat.busy");
  assert.equal(errorKey({ status: 400, problem: { code: "context_length_exceeded" } }), "chat.tooLong");
  assert.equal(errorKey({ status: 503, problem: { code: "model-unavailable" } }), "chat.unavailable");
  assert.equal(errorKey({ status: 400, problem: { code: "invalid" } }), null);
  assert.equal(errorKey(new Error("away")), null);
});
