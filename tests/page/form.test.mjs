// The form of a new session, comparisons and contributions: what is made of what people choose and of what the API answers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { curveOf, overlay, referenceOf, toggled } from "../../coordinator/static/logic/overlay.js";
import { FIELDS, fieldFacts, problemsByField, requestOf, tomlKey, tomlValues } from "../../coordinator/static/logic/request_form.js";

test("what was left empty is not sent; numbers and flags are sent as such", () => {
  const typed = {
    name: " Tales ", "training.batchSize": "8", "training.learningRate": "1e-3", "model.compile": "true",
    "training.enableEarlyStopping": "false", "model.type": "gpt2", "data.dataset": "", description: "  ",
  };
  assert.deepEqual(requestOf(typed), {
    name: "Tales", model: { type: "gpt2", compile: true },
    training: { batchSize: 8, learningRate: 0.001, enableEarlyStopping: false },
  });
  assert.deepEqual(requestOf({}), {});
});

test("no field stands in the form twice", () => {
  assert.equal(new Set(FIELDS.map(({ path }) => path)).size, FIELDS.length);
});

test("values are read from the TOML by section and key", () => {
  const values = tomlValues('schema_version = 1\n\n# about\n[train]\nbatch_size = 32\noptimizer = "adamw"\n\n[data.fields]\ntext = "text"\n');
  assert.equal(values.get(tomlKey("training.batchSize")), "32");
  assert.equal(values.get(tomlKey("training.optimizer")), "adamw");
  assert.equal(values.get("data.fields.text"), "text");
  assert.equal(tomlKey("schedule.priority"), null);
});

test("choices and defaults are the API's, through references and alternatives", () => {
  const document = { components: { schemas: {
    SessionRequest: { properties: {
      visibility: { enum: ["public", "private"], default: "public" },
      model: { $ref: "#/components/schemas/ModelRequest" },
    } },
    ModelRequest: { properties: { precision: { anyOf: [{ enum: ["fp32", "bf16"] }, { type: "null" }], default: null } } },
  } } };
  const facts = fieldFacts(document);
  assert.deepEqual(facts.get("visibility"), { choices: ["public", "private"], initial: "public" });
  assert.deepEqual(facts.get("model.precision"), { choices: ["fp32", "bf16"], initial: null });
  assert.deepEqual(facts.get("training.epochs"), { choices: [], initial: null });
});

test("a refusal is told at its fields, and what has none is told on its own", () => {
  const errors = [
    { field: "training.batchSize", message: "too large", hint: "at most 65536" }, { field: "data.fields.text", message: "bad", hint: "" },
  ];
  assert.deepEqual([...problemsByField({ errors })], [
    ["training.batchSize", "too large: at most 65536"], ["", "data.fields.text: bad"],
  ]);
  assert.deepEqual([...problemsByField({ errors: [], field: "name", detail: "is missing", hint: "" })], [["name", "is missing"]]);
});

test("curves of different lengths share one axis", () => {
  const columns = overlay([
    [{ samples: 10, validationLoss: 3 }, { samples: 30, validationLoss: 2 }], [{ samples: 20, validationLoss: 4 }, { samples: 30 }],
  ], "validationLoss");
  assert.deepEqual(columns, [[10, 20, 30], [3, null, 2], [null, 4, null]]);
});

test("a version that was saved in the middle has the curve up to there", () => {
  const points = [{ round: 0 }, { round: 4 }, { round: 8 }];
  assert.deepEqual(curveOf({ round: 4 }, points), [{ round: 0 }, { round: 4 }]);
  assert.deepEqual(curveOf({ round: null }, points), points);
});

test("versions are chosen and named as the API names them", () => {
  assert.equal(referenceOf({ model: "tales", version: 3 }), "tales:3");
  assert.deepEqual(toggled(["a", "b"], "a"), ["b"]);
  assert.deepEqual(toggled(["a"], "b"), ["a", "b"]);
});
