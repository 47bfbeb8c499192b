// One model: its versions, what they were measured at, who trained them, and what can be done with them.
import { deleteJson, getJson, getPages, postJson } from "../client/api.js";
import { format, languageStore, messageOf, t } from "../client/i18n.js";
import { identity, maySteer } from "../client/identity.js";
import { showProblem } from "../client/problem.js";
import { answeringVersion } from "../logic/chat.js";
import { shortAddress } from "../logic/format.js";
import { referenceOf } from "../logic/overlay.js";
import { sessionAddress } from "../logic/route.js";
import { Badge } from "../parts/badge.js";
import { CardRow, CardTable, ScrollTable } from "../parts/table.js";
import { useKept, useLoaded, useStore, useTitle } from "../parts/hooks.js";
import { html, useEffect, useMemo, useState } from "../parts/html.js";
import { Chat } from "./chat.js";
import { CompareLink, Pick, PromotedMark } from "./models.js";

const JOB_MS = 1000;
const PAGES = 4;
const ENDED = ["completed", "failed"];

const columnsOf = () => [
  { key: "pick", title: t("models.compare") }, { key: "version", title: t("models.version"), kind: "number" },
  { key: "session", title: t("models.session") }, { key: "round", title: t("axis.round"), kind: "number" },
  { key: "metrics", title: t("evaluations.metrics") }, { key: "parameters", title: t("new.parameters"), kind: "number" },
  { key: "size", title: t("checkpoints.size"), kind: "number" }, { key: "created", title: t("checkpoints.saved") },
  { key: "actions", title: t("models.actions") },
];

const written = (metrics) => Object.entries(metrics).map(([name, value]) => `${name} ${format.significant(value)}`).join(", ");

function Metrics({ version: { evaluation, lastEvaluation } }) {
  return html`${evaluation ? html`<p><bdi dir="ltr">${written(evaluation.metrics)}</bdi></p>` : "–"}
    ${lastEvaluation && html`<p class="quiet">${t("models.lastEvaluation", { dataset: lastEvaluation.dataset ?? t("models.ownData") })}
      <bdi dir="ltr">${written(lastEvaluation.metrics)}</bdi></p>`}`;
}

/** A job as it goes on: asked about until it has ended. */
function useJob(first, onEnd) {
  const [job, setJob] = useState(first);
  useEffect(() => {
    if (ENDED.includes(job.status)) {
      onEnd();
      return undefined;
    }
    const timer = setTimeout(async () => {
      try {
        setJob(await getJson(`/api/v1/jobs/${job.id}`));
      } catch (error) {
        showProblem(error);
        setJob({ ...job }); // asked again: a coordinator that is away comes back
      }
    }, JOB_MS);
    return () => clearTimeout(timer);
  }, [job]);
  return job;
}

function Job({ first, onEnd }) {
  const job = useJob(first, onEnd);
  return html`<p class="job" role="status"><${Badge} state=${job.status} />
    ${job.message && html` <span class="bad" dir="auto">${[job.message, job.hint].filter(Boolean).join(": ")}</span>`}</p>`;
}

function Actions({ version, model, onChanged, onChat }) {
  const me = useStore(identity);
  const [job, setJob] = useState(null);
  const base = `/api/v1/models/${encodeURIComponent(version.model)}`;
  const ask = async (work) => {
    try {
      await work();
    } catch (error) {
      showProblem(error);
    }
  };
  const evaluate = () => ask(async () => setJob(await postJson(`${base}/evaluate`, { version: version.version })));
  const pin = () => ask(async () => {
    const path = `${base}/versions/${version.version}/pin`;
    await (version.pinned ? deleteJson(path) : postJson(path));
    onChanged();
  });
  const promote = () => ask(async () => {
    await postJson(`${base}/promote`, { version: version.version });
    onChanged();
  });
  const isOwner = maySteer(me, model);
  if (!version.available) return html`<span class="quiet">${t("models.gone")}</span>`;
  return html`<div class="buttons tight">
      <a class="button small" href="${base}/versions/${version.version}/download" download>${t("models.download")}</a>
      ${me && html`<button type="button" class="small" disabled=${job !== null} onClick=${evaluate}>${t("models.evaluate")}</button>`}
      ${model.answersChats && version.servable && html`<button type="button" class="small" data-chat=${version.version}
        onClick=${onChat}>${t("models.chat")}</button>`}
      ${isOwner && html`<button type="button" class="small" aria-pressed=${String(version.pinned)}
        onClick=${pin}>${t("models.pin")}</button>`}
      ${isOwner && version.servable && version.version !== model.promotedVersion && html`<button type="button" class="small"
        data-promote=${version.version} onClick=${promote}>${t("models.promote")}</button>`}
    </div>${job && html`<${Job} key=${job.id} first=${job} onEnd=${() => { setJob(null); onChanged(); }} />`}`;
}

function Contributors({ version }) {
  if (version.contributors.length === 0) return null;
  const rows = version.contributors.map((one) => [
    html`<bdi dir="ltr" title=${one.account}>${shortAddress(one.account)}</bdi>`, one.names.join(", "),
    format.number(one.samples), format.number(one.rounds), format.number(one.tokens),
  ]);
  const titles = [t("contributors.wallet"), t("people.name"), t("axis.samples"), t("contributors.rounds"), t("contributors.saidTokens")];
  return html`<section class="panel" aria-labelledby="contributors-title">
    <h2 id="contributors-title">${t("models.contributors", { version: version.version })}</h2>
    <${ScrollTable} caption=${t("nav.contributors")} titles=${titles} rows=${rows} /></section>`;
}

function Versions({ model, onChanged, onChat }) {
  const [picked, setPicked] = useState([]);
  const columns = useMemo(columnsOf, [languageStore.state]);
  const row = (version) => [
    html`<${Pick} reference=${referenceOf(version)} picked=${picked} onPick=${setPicked} />`,
    html`${format.number(version.version)}${version.version === answeringVersion(model) && html` <${PromotedMark} />`}`,
    version.sessionId ? html`<a href=${sessionAddress(version.sessionId)} dir="ltr">${version.sessionId}</a>` : "–",
    format.number(version.round), html`<${Metrics} version=${version} />`, format.compact(version.parameters || null),
    format.bytes(version.sizeBytes || null), format.clock(new Date(version.createdAt)),
    html`<${Actions} version=${version} model=${model} onChanged=${onChanged} onChat=${() => onChat(version.version)} />`,
  ];
  return html`<${CompareLink} picked=${picked} /><div class="panel">
    <${CardTable} id="versions" caption=${t("models.versions")} columns=${columns}>
      ${model.items.map((version) => html`<${CardRow} key=${version.version} columns=${columns} cells=${row(version)} />`)}
    </${CardTable}></div>`;
}

/** The view of the model `id`. */
export function ModelView({ id }) {
  const [count, setCount] = useState(0);
  const [chosen, setChosen] = useState(null);
  const { value, error } = useLoaded(() => getPages(`/api/v1/models/${encodeURIComponent(id)}`, PAGES), [id, count]);
  const model = useKept(value);
  useTitle(model?.name ?? t("nav.models"));
  const [calls, setCalls] = useState(0);
  const chat = (version) => {
    setChosen(version);
    setCalls(calls + 1);
  };
  return html`<section id="model" aria-labelledby="model-title"><p class="back"><a href="#/models">${t("models.all")}</a></p>
    <h1 id="model-title" dir="auto">${model?.name ?? id}</h1>
    ${error && html`<p class="notice bad" role="alert">${messageOf(error)}</p>`}
    ${model && html`<${Versions} model=${model} onChanged=${() => setCount((known) => known + 1)} onChat=${chat} />
      <${Chat} model=${model} version=${chosen ?? answeringVersion(model)} onVersion=${setChosen} calls=${calls} />
      ${model.items.length > 0 && html`<${Contributors} version=${model.items[0]} />`}`}</section>`;
}
