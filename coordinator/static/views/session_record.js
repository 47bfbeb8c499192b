// What of a session stands on a chain.
import { getJson } from "../client/api.js";
import { t } from "../client/i18n.js";
import { html, useEffect, useState } from "../parts/html.js";

const LOOK_EVERY_MS = 15_000;
const SHOWN_DIGITS = 10;
const STATUSES = {
  waiting: "record.waiting", opened: "record.opened", closing: "record.closing", closed: "record.closed",
  failed: "record.failed",
};

/** The record, asked for anew when the session's state changes, and for as long as something is on its way. */
function useRecord({ id, status }) {
  const [record, setRecord] = useState(null);
  const isMoving = record !== null && ["waiting", "closing"].includes(record.status);
  useEffect(() => {
    let isWanted = true;
    // a coordinator that is away is told of elsewhere on the page: what was known stays
    const look = () => getJson(`/api/v1/sessions/${id}/record`).then((found) => { if (isWanted) setRecord(found); }, () => null);
    look();
    const timer = isMoving ? setInterval(look, LOOK_EVERY_MS) : null;
    return () => { isWanted = false; clearInterval(timer); };
  }, [id, status, isMoving]);
  return record;
}

function Transaction({ hash }) {
  return hash && html` <code dir="ltr" title=${hash}>${hash.slice(0, SHOWN_DIGITS)}…</code>`;
}

/** Nothing where nothing is recorded. */
export function SessionRecord({ session }) {
  const record = useRecord(session);
  if (record === null || !(record.status in STATUSES)) return null;
  return html`<section class="panel" id="record" aria-labelledby="record-title"><h2 id="record-title">${t("record.title")}</h2>
    <p>${t(STATUSES[record.status])} <bdi dir="ltr" class="quiet" title=${record.contract}>${record.chain}</bdi>
      <${Transaction} hash=${record.openTx} /><${Transaction} hash=${record.closeTx} /></p>
    ${record.message && html`<p class="quiet" dir="auto">${record.message}</p>`}</section>`;
}
