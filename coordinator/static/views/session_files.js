// What a session is made from and what it leaves: join command, config, checkpoints, evaluations, the model.
import { format, t } from "../client/i18n.js";
import { evaluationsOf, sampleOf } from "../logic/records.js";
import { isFinal } from "../logic/states.js";
import { CopyRow } from "../parts/copy.js";
import { ScrollTable } from "../parts/table.js";
import { html, useMemo } from "../parts/html.js";
import { pure } from "../parts/pure.js";

const DIGEST_LENGTH = 8;

/** How to take part; nothing once the session has ended. */
export function SessionJoin({ session }) {
  if (isFinal(session.status)) return null;
  const text = session.status === "draft" ? t("join.later") : t("join.now");
  return html`<section class="panel" id="join" aria-labelledby="join-title"><h2 id="join-title">${t("join.title")}</h2>
    <p class="quiet">${text}</p>
    <${CopyRow} id="copy" textId="command" text=${session.joinCommand} /></section>`;
}

/** Where the model is, and what it wrote; nothing until there is one. */
export function SessionResult({ session, records }) {
  const sample = sampleOf(records ?? []);
  if (!session.modelPath) return null;
  return html`<section class="panel" id="result" aria-labelledby="result-title"><h2 id="result-title">${t("result.title")}</h2>
    <p class="quiet">${t("result.where")} <code dir="ltr">from_pretrained</code>:</p>
    <p><code id="model-path" dir="ltr">${session.modelPath}</code></p>
    ${sample && html`<p class="quiet">${t("result.sample")}</p><pre id="sample" class="sample" dir="auto">${sample}</pre>`}
  </section>`;
}

const metricsOf = ({ metrics }) =>
  Object.entries(metrics).map(([name, value]) => `${name} ${format.significant(value)}`).join(", ");

/** The evaluations that the log has at hand, newest first. */
export const SessionEvaluations = pure(({ records }) => {
  const found = useMemo(() => evaluationsOf(records ?? []), [records]);
  if (found.length === 0) return null;
  const rows = found.map((one) => [
    format.number(one.round), format.clock(new Date(one.time * 1000)), format.number(one.samples), metricsOf(one),
  ]);
  const titles = [t("axis.round"), t("evaluations.time"), t("axis.samples"), t("evaluations.metrics")];
  return html`<section class="panel" aria-labelledby="evaluations-title"><h2 id="evaluations-title">${t("evaluations.title")}</h2>
    <${ScrollTable} id="evaluations" caption=${t("evaluations.title")} titles=${titles} rows=${rows} /></section>`;
});

/** The checkpoints on the coordinator's disk, newest first. */
export const SessionCheckpoints = pure(({ checkpoints }) => {
  if (checkpoints === null) return null;
  const rows = checkpoints.map((one) => [
    format.number(one.round), format.number(one.validationLoss, 3), format.bytes(one.sizeBytes),
    format.clock(new Date(one.savedAt)), html`<code dir="ltr" title=${one.digest}>${one.digest.slice(0, DIGEST_LENGTH)}</code>`,
  ]);
  const titles = [
    t("axis.round"), t("curve.validationLoss"), t("checkpoints.size"), t("checkpoints.saved"), t("people.digest"),
  ];
  return html`<section class="panel" aria-labelledby="checkpoints-title"><h2 id="checkpoints-title">${t("checkpoints.title")}</h2>
    ${rows.length === 0 ? html`<p class="quiet">${t("checkpoints.empty")}</p>`
      : html`<${ScrollTable} id="checkpoints" caption=${t("checkpoints.title")} titles=${titles} rows=${rows} />`}</section>`;
});

/** The TOML that the runs train from. */
export const SessionConfig = pure(({ config }) => {
  if (config === null) return null;
  return html`<section class="panel" aria-labelledby="config-title"><h2 id="config-title">${t("config.title")}</h2>
    <details id="config"><summary>${t("config.show")}</summary>
      <pre class="sample tall" dir="ltr" tabindex="0" aria-label=${t("config.title")}>${config}</pre></details></section>`;
});
