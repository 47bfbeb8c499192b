// What people read: languages, numbers, estimates, addresses, filters.
import assert from "node:assert/strict";
import { test } from "node:test";
import { tokensPerSample } from "../../coordinator/static/logic/config_facts.js";
import { secondsLeft } from "../../coordinator/static/logic/estimate.js";
import { formatsOf, shortAddress } from "../../coordinator/static/logic/format.js";
import { chooseLanguage, directionOf, isolate, placeholdersOf, translate } from "../../coordinator/static/logic/message.js";
import { census, phaseOf, sharesOf } from "../../coordinator/static/logic/phase.js";
import { compareAddress, modelAddress, parseRoute, sessionAddress } from "../../coordinator/static/logic/route.js";
import { countGroups, filterSessions } from "../../coordinator/static/logic/states.js";

const catalog = { "a.name": "of {name}", "a.count": { one: "{count} peer", other: "{count} peers" }, "a.plain": "text" };
const texts = (language) => ({
  language, catalog, number: (value) => new Intl.NumberFormat(language).format(value), plural: new Intl.PluralRules(language),
});

test("texts take their values, numbers as the language writes them, and their plural form", () => {
  assert.equal(translate(texts("en"), "a.count", { count: 1 }), "1 peer");
  assert.equal(translate(texts("en"), "a.count", { count: 1234 }), "1,234 peers");
  assert.equal(translate(texts("zh"), "a.count", { count: 1 }), "1 peers");
  assert.equal(translate(texts("fa"), "a.name", { name: 12 }), "of ۱۲");
  assert.equal(translate(texts("en"), "a.name", {}), "of ");
  assert.throws(() => translate(texts("en"), "a.missing"), /no text a.missing/);
});

test("a value is isolated where it may turn the text around", () => {
  assert.equal(isolate("0x12…ab", "ltr"), "0x12…ab");
  assert.equal(isolate("0x12…ab", "rtl"), "\u20680x12…ab\u2069");
  assert.equal(isolate("شعر", "ltr"), "\u2068شعر\u2069");
  assert.equal(directionOf("fa"), "rtl");
  assert.equal(directionOf("zh"), "ltr");
});

test("placeholders are found in all plural forms", () => {
  assert.deepEqual(placeholdersOf({ one: "{b} {a}", other: "{c}" }), ["a", "b", "c"]);
});

test("the language is the chosen one, else the browser's, else English", () => {
  assert.equal(chooseLanguage("fa", ["zh-CN"]), "fa");
  assert.equal(chooseLanguage(null, ["de-DE", "zh-CN"]), "zh");
  assert.equal(chooseLanguage("xx", ["de"]), "en");
});

test("what is not known is a dash in every language", () => {
  for (const language of ["en", "fa", "zh"]) {
    const { number, percent, compact, significant, bytes, roughly, seconds } = formatsOf(language);
    for (const write of [number, percent, compact, significant, bytes, roughly, seconds]) {
      assert.equal(write(null), "–");
      assert.equal(write(undefined), "–");
      assert.equal(write(NaN), "–");
    }
  }
});

test("numbers, sizes and times are written as exactly as they deserve", () => {
  const format = formatsOf("en");
  assert.equal(format.number(1234.5, 1), "1,234.5");
  assert.equal(format.percent(12.34), "12.3%");
  assert.equal(format.bytes(0), "0 byte");
  assert.equal(format.bytes(1_234_567), "1.2 MB");
  assert.equal(format.bytes(56_000_000_000), "56 GB");
  assert.equal(format.roughly(20), "1 min");
  assert.equal(format.roughly(5400), "1.5 hr");
  assert.equal(format.roughly(4 * 86400), "4 days");
  assert.equal(format.significant(0.0004), "0.0004");
  assert.equal(format.significant(4e-8), "4E-8");
  assert.equal(format.significant(2.3456789, 3), "2.35");
  assert.equal(formatsOf("fa").number(1234), "۱٬۲۳۴");
});

test("a time of today has no date", () => {
  const noon = new Date(2030, 0, 2, 12, 0, 0);
  assert.ok(!formatsOf("en").clock(noon, noon).includes("2030"));
  assert.ok(formatsOf("en").clock(noon, new Date(2030, 0, 3)).includes("2030"));
});

test("an address is shortened in its middle", () => {
  assert.equal(shortAddress("eip155:1:0x8ba1f109551bD432803012645Ac136ddd64DBA72"), "0x8ba1…BA72");
});

/** A point a round, from round 0 on, each 100 samples further. */
const pointsAt = (...times) => times.map((time, round) => ({ round, samples: 100 * round, time }));
const EVEN = [1000, 1010, 1020, 1030, 1040, 1050];
const TIME_LEFT = {
  "no round yet": [[], 1000, null],
  "the way to round 1 includes waiting for volunteers": [pointsAt(1000, 1010), 1010, null],
  "a round has just ended": [pointsAt(...EVEN), 1050, 50],
  "within a round": [pointsAt(...EVEN), 1054, 46],
  stalled: [pointsAt(...EVEN), 1500, null],
  "after a pause": [pointsAt(...EVEN.slice(0, 3), ...EVEN.slice(3).map((time) => time + 9000)), 10050, 50],
};
for (const [when, [points, now, expected]] of Object.entries(TIME_LEFT)) {
  test(`the time left is an honest estimate: ${when}`, () => assert.equal(secondsLeft(points, 1000, now), expected));
}

test("addresses of views are read as they are written", () => {
  assert.deepEqual(parseRoute(""), { view: "sessions" });
  assert.deepEqual(parseRoute("#/"), { view: "sessions" });
  assert.deepEqual(parseRoute(sessionAddress("a-b.1")), { view: "session", id: "a-b.1" });
  assert.deepEqual(parseRoute(modelAddress("شعر / 1")), { view: "model", id: "شعر / 1" });
  assert.deepEqual(parseRoute(compareAddress(["a:1", "b:2"])), { view: "compare", ids: "a:1,b:2" });
  assert.deepEqual(parseRoute("#/models"), { view: "models" });
  assert.deepEqual(parseRoute("#/nothing/here"), { view: "unknown" });
  assert.deepEqual(parseRoute("#/models/50%"), { view: "model", id: "50%" });
});

const session = (status, name) => ({ status, name, description: "Tales", id: `${name}-1`, owner: "eip155:1:0xAB" });

test("sessions are found by state and by every word", () => {
  const sessions = [session("training", "Ada"), session("paused", "Ben"), session("failed", "Cem"), session("draft", "Dan")];
  const found = (filter) => filterSessions(sessions, { group: "all", text: "", ...filter }).map(({ name }) => name);
  assert.deepEqual(found({ group: "running" }), ["Ada"]);
  assert.deepEqual(found({ group: "open" }), ["Ben"]);
  assert.deepEqual(found({ group: "ended" }), ["Cem"]);
  assert.deepEqual(found({ text: " tales BEN " }), ["Ben"]);
  assert.deepEqual(found({ text: "0xab" }).length, 4);
  assert.deepEqual(countGroups(sessions), { all: 4, running: 1, open: 1, draft: 1, ended: 1 });
});

const person = (id, more) => ({ id, state: "online", phase: "training", tokens: 0, credit: { samples: 0 }, ...more });

test("a session's phase is what most of those do who are there", () => {
  const people = [person("a"), person("b", { phase: "averaging" }), person("c", { phase: "averaging" }), person("d", { state: "offline" })];
  assert.equal(phaseOf(people, null), "averaging");
  assert.equal(phaseOf([], { phase: "finishing" }), "finishing");
  assert.equal(phaseOf([], null), null);
});

test("shares of the work are what is credited, and what is said only where nothing is", () => {
  const said = [person("a", { tokens: 30 }), person("b", { tokens: 10 })];
  assert.deepEqual([...sharesOf(said).values()], [0.75, 0.25]);
  const credited = [person("a", { tokens: 30, credit: { samples: 1 } }), person("b", { tokens: 10, credit: { samples: 3 } })];
  assert.deepEqual([...sharesOf(credited).values()], [0.25, 0.75]);
  assert.deepEqual([...sharesOf([person("a")]).values()], [null]);
});

test("participants are counted by state, their traffic is added up", () => {
  const found = census([person("a", { bytesSent: 2, bytesReceived: 3 }), person("b", { state: "offline", bytesSent: 5 })]);
  assert.deepEqual(found.states, { online: 1, joining: 0, unreachable: 0, offline: 1 });
  assert.deepEqual([found.bytesSent, found.bytesReceived], [7, 3]);
});

test("tokens in a sample are read from the config where they are fixed", () => {
  const toml = (model, train = "") => `schema_version = 1\n\n[model]\ntype = "${model}"\n\n[train]\n${train}lr = 1\n\n[data]\nseq_length = 64\n`;
  assert.equal(tokensPerSample(toml("llama3")), 64);
  assert.equal(tokensPerSample(toml("bert")), 64);
  assert.equal(tokensPerSample(toml("t5")), null);
  assert.equal(tokensPerSample(toml("bert", 'task = "text-classification"\n')), null);
});
