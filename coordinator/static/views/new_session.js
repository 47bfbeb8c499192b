// The form for a new session: filled in at the left, worked out by the coordinator at the right.
import { getJson, getPages, postJson } from "../client/api.js";
import { format, messageOf, t } from "../client/i18n.js";
import { identity } from "../client/identity.js";
import { showProblem } from "../client/problem.js";
import { FIELDS, GROUPS, fieldFacts, problemsByField, requestOf, tomlKey, tomlValues } from "../logic/request_form.js";
import { sessionAddress } from "../logic/route.js";
import { useLoaded, useStore, useTitle } from "../parts/hooks.js";
import { html, useEffect, useMemo, useRef, useState } from "../parts/html.js";
import { FieldGroup } from "./new_fields.js";

const PAUSE_MS = 1000;
const CATALOG_PAGES = 6;
const GB = 1e9;

/** The API's document and the catalogs. */
async function loadForm() {
  const [document, models, datasets] = await Promise.all([
    getJson("/openapi.json"), getPages("/api/v1/catalog/models?limit=200", CATALOG_PAGES),
    getPages("/api/v1/catalog/datasets?limit=200", CATALOG_PAGES),
  ]);
  return { facts: fieldFacts(document), catalogs: { models: models.items, datasets: datasets.items } };
}

/** What the coordinator makes of the request: {preview, problems, error}, asked for when somebody has stopped typing. */
function usePreview(values, memoryBytes) {
  const [state, setState] = useState({ preview: null, problems: new Map(), error: null });
  const isFirst = useRef(true);
  const request = JSON.stringify({ ...requestOf(values), name: values.name?.trim() || t("new.unnamed") });
  useEffect(() => {
    const calling = new AbortController();
    const ask = async () => {
      try {
        const query = memoryBytes > 0 ? `?memoryBytes=${memoryBytes}` : "";
        const preview = await postJson(`/api/v1/configs/preview${query}`, JSON.parse(request), { signal: calling.signal });
        setState({ preview, problems: new Map(), error: null });
      } catch (error) {
        if (calling.signal.aborted) return;
        const problems = error.problem?.status === 422 ? problemsByField(error.problem) : new Map();
        setState((known) => ({ preview: known.preview, problems, error: problems.size > 0 ? null : error }));
      }
    };
    const timer = setTimeout(ask, isFirst.current ? 0 : PAUSE_MS);
    isFirst.current = false;
    return () => { clearTimeout(timer); calling.abort(); };
  }, [request, memoryBytes]);
  return state;
}

/** Path -> what it has if it is left empty: the schema's own default, else what the first TOML has. */
function useDefaults(facts, preview) {
  const first = useRef(null);
  if (first.current === null && preview !== null) first.current = tomlValues(preview.config);
  return useMemo(() => new Map(FIELDS.map(({ path }) => {
    const initial = facts.get(path).initial;
    return [path, initial ?? first.current?.get(tomlKey(path)) ?? null];
  })), [facts, first.current]);
}

function Estimate({ estimate }) {
  if (estimate === null) return html`<p class="quiet">${t("new.noEstimate")}</p>`;
  const { memory, traffic, parameters } = estimate;
  const facts = [
    ["new.parameters", format.compact(parameters)], ["new.memory", format.bytes(memory.totalBytes)],
    ...(memory.gpuBytes > 0 ? [["new.gpuMemory", format.bytes(memory.gpuBytes)]] : []),
    ["new.perRound", t("facts.sentReceived", { sent: format.bytes(traffic.sentBytes), received: format.bytes(traffic.receivedBytes) })],
    ["new.onJoining", format.bytes(traffic.joinBytes)],
  ];
  return html`<dl id="estimate" class="facts">${facts.map(([key, value]) =>
    html`<div key=${key}><dt>${t(key)}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Advice({ advice }) {
  return advice.length > 0 && html`<ul id="advices" class="advices">${advice.map(({ field, message, hint }) =>
    html`<li key=${field + message} dir="auto">${field && html`<code dir="ltr">${field}</code> `}
      ${[message, hint].filter(Boolean).join(": ")}</li>`)}</ul>`;
}

function Preview({ state: { preview, problems, error }, memory, onMemory }) {
  const isOutdated = problems.size > 0 || error !== null;
  const why = error ? messageOf(error) : isOutdated ? t("new.invalid", { count: problems.size }) : "";
  return html`<aside class="panel preview" aria-label=${t("new.preview")}><h2>${t("new.preview")}</h2>
    <p class="notice bad" role="status" hidden=${!isOutdated}>${why}</p>
    ${problems.has("") && html`<p class="bad" dir="auto">${problems.get("")}</p>`}
    <label class="choice" for="memory">${t("new.myMemory")}
      <input id="memory" name="memory" type="number" min="0" step="any" dir="ltr" value=${memory}
        onInput=${(event) => onMemory(event.target.value)} /></label>
    ${preview && html`<div class=${isOutdated ? "outdated" : ""}>
      ${preview.shortage && html`<p id="shortage" class="notice wait" dir="auto">${preview.shortage}</p>`}
      <h3>${t("new.ofANode")}</h3><${Estimate} estimate=${preview.estimate} /><${Advice} advice=${preview.advice} />
      <h3>${t("config.title")}</h3>
      <pre id="toml" class="sample tall" dir="ltr" tabindex="0" aria-label=${t("config.title")}>${preview.config}</pre></div>`}</aside>`;
}

function Catalogs({ catalogs }) {
  return Object.entries(catalogs).map(([name, entries]) => html`<datalist id="list-${name}" key=${name}>
    ${entries.map(({ id, name: title, licence }) => html`<option key=${id} value=${id}>${title}, ${licence}</option>`)}</datalist>`);
}

function Submit({ isBusy, startsAtOnce, onStartsAtOnce }) {
  const me = useStore(identity);
  return html`<div class="buttons submit">
    <button id="open" type="submit" class="primary" disabled=${isBusy || !me}>${t("new.open")}</button>
    <label class="check"><input id="starts" name="starts" type="checkbox" checked=${startsAtOnce}
      onChange=${(event) => onStartsAtOnce(event.target.checked)} />${t("new.startAtOnce")}</label>
    <p id="sign-in-first" class="quiet" hidden=${Boolean(me)}>${t("new.signInFirst")}</p></div>`;
}

/** Opens the session and shows it, also where it is open but could not be started: then with the reason. */
async function open(values, startsAtOnce) {
  const { id } = await postJson("/api/v1/sessions", requestOf(values));
  try {
    if (startsAtOnce) await postJson(`/api/v1/sessions/${id}/start`);
  } catch (error) {
    // a new view begins without a problem
    addEventListener("hashchange", () => showProblem(error), { once: true });
  }
  location.hash = sessionAddress(id);
}

function Form({ facts, catalogs }) {
  const [values, setValues] = useState({});
  const [memory, setMemory] = useState("");
  const [startsAtOnce, setStartsAtOnce] = useState(true);
  const [isBusy, setBusy] = useState(false);
  const [refused, setRefused] = useState(new Map());
  const state = usePreview(values, Math.round(Number(memory) * GB));
  const defaults = useDefaults(facts, state.preview);
  const problems = new Map([...refused, ...state.problems]);
  const change = (path, typed) => { setRefused(new Map()); setValues((known) => ({ ...known, [path]: typed })); };
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await open(values, startsAtOnce);
    } catch (error) {
      if (error.problem?.errors || error.problem?.field) setRefused(problemsByField(error.problem));
      showProblem(error);
      setBusy(false);
    }
  };
  return html`<form id="new" class="split" onSubmit=${submit}><div class="groups">
      ${GROUPS.map((group) => html`<${FieldGroup} key=${group.title} group=${group} values=${values} facts=${facts}
        defaults=${defaults} problems=${problems} onChange=${change} />`)}
      <${Submit} isBusy=${isBusy} startsAtOnce=${startsAtOnce} onStartsAtOnce=${setStartsAtOnce} /></div>
    <${Preview} state=${state} memory=${memory} onMemory=${setMemory} /><${Catalogs} catalogs=${catalogs} /></form>`;
}

/** The view of the form. */
export function NewSessionView() {
  useTitle(t("nav.new"));
  const { value, error } = useLoaded(loadForm, []);
  return html`<section aria-labelledby="new-title"><p class="back"><a href="#/">${t("session.back")}</a></p>
    <h1 id="new-title">${t("nav.new")}</h1>
    ${error && html`<p class="notice bad" role="alert">${messageOf(error)}</p>`}
    ${value === null && error === null && html`<p class="quiet" aria-busy="true">${t("loading")}</p>`}
    ${value && html`<${Form} ...${value} />`}</section>`;
}
