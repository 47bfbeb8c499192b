// The participants of a session, and whether they hold the same outer state.
import { format, languageStore, t } from "../client/i18n.js";
import { agreedDigests, compareDigests, heldDigest } from "../logic/digests.js";
import { census, sharesOf } from "../logic/phase.js";
import { CHECKPOINTER } from "../logic/records.js";
import { shortAddress } from "../logic/format.js";
import { Badge } from "../parts/badge.js";
import { CardRow, CardTable } from "../parts/table.js";
import { html, useMemo } from "../parts/html.js";
import { pure } from "../parts/pure.js";
import { phaseWord } from "./session_facts.js";

const DIGEST_LENGTH = 8;
const NOTHING = "–";
const CONNECTIONS = { direct: "people.direct", relayed: "people.relayed", outgoing: "people.outgoing" };

export const nameOf = (person) => person.name || person.peerId.slice(-DIGEST_LENGTH);

/** Participant id -> name. */
export const namesOf = (people) => new Map((people?.items ?? []).map((person) => [person.id, nameOf(person)]));

const columnsOf = () => [
  { key: "name", title: t("people.name") }, { key: "state", title: t("people.state") },
  { key: "device", title: t("people.device") }, { key: "share", title: t("people.share"), kind: "number" },
  { key: "steps", title: t("people.steps"), kind: "number" }, { key: "loss", title: t("people.loss"), kind: "number" },
  { key: "speed", title: t("people.speed"), kind: "number" },
  { key: "traffic", title: t("people.traffic"), kind: "number" }, { key: "digest", title: t("people.digest") },
];

function Doing({ person }) {
  if (person.state === "online") {
    const phase = person.status === "paused" ? t("state.paused") : person.phase && phaseWord(person.phase);
    return phase && html` <span class="quiet">${phase}</span>`;
  }
  if (!person.lastSeenAt) return null;
  return html` <span class="quiet">${t("people.lastSeen", { time: format.clock(new Date(person.lastSeenAt)) })}</span>`;
}

function StateCell({ person }) {
  return html`<${Badge} state=${person.state} /><${Doing} person=${person} />
    ${person.state === "online" && person.waitingFor && html`<p class="quiet" dir="auto">${person.waitingFor}</p>`}
    ${person.errorMsg && html`<p class="bad" dir="auto">${person.errorMsg}</p>`}`;
}

/** What it trains on, and how others connect to it. */
function DeviceCell({ person }) {
  const word = person.connection in CONNECTIONS ? t(CONNECTIONS[person.connection]) : "";
  return html`<bdi>${person.device || NOTHING}</bdi>${word && html` <span class="quiet connected">${word}</span>`}`;
}

function DigestCell({ held: { digest, round, differs }, syncedAt }) {
  if (!digest) return NOTHING;
  return html`<code title=${digest} dir="ltr">${digest.slice(0, DIGEST_LENGTH)}</code>
    ${round !== null && html` <span class="quiet">${t("people.atRound", { round })}</span>`}
    ${syncedAt && html` <span class="quiet synced">${t("people.lastSync", { time: format.clock(new Date(syncedAt)) })}</span>`}
    ${differs && html` <strong class="bad">${t("people.differs")}</strong>`}`;
}

/** A participant; `shown` is a text of {person, held, share}, so that only a row is drawn again that has changed. */
const PersonRow = pure(({ shown, columns }) => {
  const { person, held, share } = JSON.parse(shown);
  // what somebody last reported is no longer true of a machine that is away
  const now = person.state === "online" ? person : {};
  const traffic = { sent: format.bytes(person.bytesSent), received: format.bytes(person.bytesReceived) };
  const name = html`<bdi>${nameOf(person)}</bdi> <bdi class="quiet address" dir="ltr" title=${person.account}
    >${person.account && shortAddress(person.account)}</bdi>`;
  const cells = [
    name, html`<${StateCell} person=${person} />`, html`<${DeviceCell} person=${person} />`,
    format.percent(share === null ? null : 100 * share), format.number(person.step), format.number(now.loss, 3),
    format.number(now.status === "training" ? now.tokensPerSecond : null), t("facts.sentReceived", traffic),
    html`<${DigestCell} held=${held} syncedAt=${person.lastSyncAt} />`,
  ];
  return html`<${CardRow} columns=${columns} cells=${cells} className=${person.state === "offline" ? "offline" : ""} />`;
});

function CheckpointerRow({ held, columns }) {
  const empty = Array(columns.length - 3).fill(NOTHING);
  const cells = [t("people.checkpointer"), html`<span class="quiet">${t("people.checkpointerIs")}</span>`, ...empty];
  return html`<${CardRow} columns=${columns} className="checkpointer" cells=${[...cells, html`<${DigestCell} held=${held} />`]} />`;
}

function DigestSummary({ peers }) {
  const { kind, round, digest, names } = compareDigests(peers);
  const short = digest.slice(0, DIGEST_LENGTH);
  const texts = {
    none: () => t("digests.none"), apart: () => t("digests.apart"),
    equal: () => (round === null ? t("digests.equalNow", { digest: short }) : t("digests.equal", { round, digest: short })),
    differ: () => t("digests.differ", { names: names.join(", ") }),
  };
  const isBad = kind === "differ";
  return html`<p id="digests" class=${kind === "equal" ? "agree" : "quiet"} hidden=${isBad}>${isBad ? "" : texts[kind]()}</p>
    <p id="people-differ" class="notice bad" role="status" hidden=${!isBad}>${isBad ? texts.differ() : ""}</p>`;
}

function Census({ people }) {
  const { states } = census(people.items);
  const words = { online: "census.online", joining: "census.joining", unreachable: "census.unreachable", offline: "census.offline" };
  const said = Object.keys(words).filter((state) => states[state] > 0).map((state) => t(words[state], { count: states[state] }));
  return said.length > 0 && html`<p id="census" class="quiet">${said.join(" · ")}</p>`;
}

/** `people`: the API's page of participants, null before it is there; `records` tell who holds the swarm's outer state. */
export const SessionPeople = pure(({ people, records }) => {
  const language = languageStore.state;
  const columns = useMemo(columnsOf, [language]);
  const rows = useMemo(() => {
    const items = people?.items ?? [];
    const known = records ?? [];
    const agreed = agreedDigests(known);
    const shares = sharesOf(items);
    const all = items.map((person) => {
      const held = heldDigest(person.id, person.digest, known, agreed);
      return { person, held, shown: JSON.stringify({ person, held, share: shares.get(person.id) }) };
    });
    const digest = people?.checkpointer.digest;
    return { all, checkpointer: digest ? heldDigest(CHECKPOINTER, digest, known, agreed) : null };
  }, [people, records]);
  if (people === null) return html`<section class="panel" aria-labelledby="people-title" aria-busy="true">
    <h2 id="people-title">${t("people.title")}</h2></section>`;

  const peers = rows.all.filter(({ person }) => person.state !== "offline")
    .map(({ person, held }) => ({ name: nameOf(person), held }));
  if (rows.checkpointer) peers.push({ name: t("people.checkpointer"), held: rows.checkpointer });
  const isEmpty = rows.all.length === 0 && rows.checkpointer === null;
  return html`<section class="panel" aria-labelledby="people-title"><div class="panel-head">
      <h2 id="people-title">${t("people.title")}</h2><${Census} people=${people} /></div>
    <p id="people-empty" class="quiet" hidden=${rows.all.length > 0}>${t("people.empty")}</p>
    ${peers.length > 0 && html`<${DigestSummary} peers=${peers} />`}
    ${!isEmpty && html`<${CardTable} id="people" caption=${t("people.title")} columns=${columns} className="people">
      ${rows.all.map(({ person, shown }) => html`<${PersonRow} key=${person.id} columns=${columns} shown=${shown} />`)}
      ${rows.checkpointer && html`<${CheckpointerRow} key="checkpointer" held=${rows.checkpointer} columns=${columns} />`}
    </${CardTable}>`}
    <p id="people-more" class="quiet" hidden=${people.nextCursor === null}>${t("people.more", { count: people.items.length })}</p>
  </section>`;
});
