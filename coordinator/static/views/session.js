// One session: all that its view is made of.
import { showConnection } from "../client/connection.js";
import { t } from "../client/i18n.js";
import { LiveSession } from "../client/live_session.js";
import { tokensPerSample } from "../logic/config_facts.js";
import { useStore, useTitle } from "../parts/hooks.js";
import { html, useEffect, useMemo, useState } from "../parts/html.js";
import { SessionCurves } from "./session_curves.js";
import { SessionFacts } from "./session_facts.js";
import { SessionCheckpoints, SessionConfig, SessionEvaluations, SessionJoin, SessionResult } from "./session_files.js";
import { SessionHead } from "./session_head.js";
import { SessionLog } from "./session_log.js";
import { SessionPeople, namesOf } from "./session_people.js";
import { SessionRecord } from "./session_record.js";
import { SessionRounds } from "./session_rounds.js";

function Gone() {
  useTitle("");
  return html`<p id="gone" class="notice bad" role="alert">${t("session.gone")}</p><p><a href="#/">${t("session.back")}</a></p>`;
}

function Saving({ job }) {
  return html`<p id="saving" class="notice good" role="status" hidden=${job === null}>${job ? t("save.asked") : ""}</p>`;
}

function Session({ live, state }) {
  const { session, progress, people, points, records, checkpoints, config, olderLog, isBusy } = state;
  const [job, setJob] = useState(null);
  const names = useMemo(() => namesOf(people), [people]);
  const tokens = useMemo(() => (config === null ? null : tokensPerSample(config)), [config]);
  useTitle(session.name);
  return html`<article id="session">
    <${SessionHead} live=${live} session=${session} progress=${progress} isBusy=${isBusy} onSaved=${setJob} />
    <${Saving} job=${job} />
    <${SessionFacts} state=${state} tokens=${tokens} />
    <${SessionResult} session=${session} records=${records} />
    <${SessionJoin} session=${session} />
    <div class="columns">
      <${SessionCurves} points=${points} tokens=${tokens} />
      <div class="stack"><${SessionRounds} records=${records} /><${SessionEvaluations} records=${records} />
        <${SessionCheckpoints} checkpoints=${checkpoints} /></div></div>
    <${SessionRecord} session=${session} />
    <${SessionPeople} people=${people} records=${records} />
    <${SessionLog} live=${live} records=${records} names=${names} hasOlder=${olderLog !== null} />
    <${SessionConfig} config=${config} /></article>`;
}

/** The view of the session `id`: it follows it for as long as it is shown. */
export function SessionView({ id }) {
  const [live, setLive] = useState(null);
  useEffect(() => {
    const made = new LiveSession(id);
    setLive(made);
    return () => { made.close(); showConnection(""); };
  }, [id]);
  return live === null ? null : html`<${Followed} key=${id} live=${live} />`;
}

function Followed({ live }) {
  const state = useStore(live.store);
  if (state.isGone) return html`<${Gone} />`;
  return state.session === null ? html`<p class="quiet" aria-busy="true">${t("loading")}</p>`
    : html`<${Session} live=${live} state=${state} />`;
}
