// Answers that come in events, from a real server.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { AwayError, ProblemError } from "../../coordinator/static/client/api.js";
import { postForEvents } from "../../coordinator/static/client/event_answer.js";

const event = (value) => `data: ${JSON.stringify(value)}\n\n`;

/** What comes of a question to a server that answers with `answer(request, response)`: its events, and the error at their end. */
async function asked(answer, onEvent = () => {}) {
  const server = createServer(answer);
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const call = new AbortController();
  const events = [];
  try {
    for await (const one of postForEvents(`http://127.0.0.1:${server.address().port}/`, { model: "m" }, call.signal)) {
      events.push(one);
      onEvent(call);
    }
    return { events, error: null };
  } catch (error) {
    return { events, error };
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => { server.close(resolve); });
  }
}

test("events come one by one, letters that were cut in two among them, until the last one", async () => {
  const bytes = Buffer.from(`${event({ text: "گل 花" })}: alive\n\n${event({ n: 2 })}data: [DONE]\n\n`);
  const { events, error } = await asked(async (request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    for (const byte of bytes) await new Promise((resolve) => { response.write(Buffer.from([byte]), resolve); });
    response.end();
  });
  assert.deepEqual(events, [{ text: "گل 花" }, { n: 2 }]);
  assert.equal(error, null);
});

test("an answer that ends without its last event is not whole", async () => {
  const { events, error } = await asked((request, response) => response.end(event({ n: 1 })));
  assert.deepEqual(events, [{ n: 1 }]);
  assert.ok(error instanceof AwayError);
});

test("a connection that breaks off is the coordinator's absence", async () => {
  const { error } = await asked((request, response) => {
    response.write(event({ n: 1 }), () => response.destroy());
  });
  assert.ok(error instanceof AwayError);
});

test("a refusal in the middle, and one at the beginning, say why", async () => {
  const refusal = { error: { message: "the model's process has ended", type: "server_error", code: "model-unavailable", param: null } };
  const broken = await asked((request, response) => response.end(event({ n: 1 }) + event(refusal)));
  assert.ok(broken.error instanceof ProblemError);
  assert.equal(broken.error.problem.code, "model-unavailable");
  const refused = await asked((request, response) => {
    response.writeHead(429, { "Content-Type": "application/json" });
    response.end(JSON.stringify(refusal));
  });
  assert.equal(refused.error.status, 429);
  assert.equal(refused.error.message, "the model's process has ended");
});

test("an answer that is called off ends at once", async () => {
  const { events, error } = await asked((request, response) => response.write(event({ n: 1 })), (call) => call.abort());
  assert.equal(events.length, 1);
  assert.equal(error.name, "AbortError");
});
