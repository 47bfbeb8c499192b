// The participants' table.
import { badge, byId, element, row } from "/static/dom.js";
import { agreedDigests, heldDigest } from "/static/digests.js";
import { clock, number } from "/static/format.js";

const DIGEST_LENGTH = 8;
const LABELS = ["Name", "State", "Device", "Steps", "Loss", "Tokens/s", "Outer state"];

const nameOf = (person) => person.name || person.peerId.slice(-DIGEST_LENGTH);

function stateCell(person) {
  const cell = element("div", {}, badge(person.state));
  const doing = person.status === "paused" ? "paused" : person.phase;
  if (person.state === "online" && doing) cell.append(" ", element("span", { class: "muted" }, doing));
  if (person.state !== "online" && person.lastSeenAt) {
    cell.append(" ", element("span", { class: "muted" }, `last seen ${clock(new Date(person.lastSeenAt))}`));
  }
  if (person.errorMsg) cell.append(element("p", { class: "bad" }, person.errorMsg));
  return cell;
}

function digestCell({ digest, round, differs }) {
  if (!digest) return "–";
  const cell = element("div", {}, element("code", { title: digest }, digest.slice(0, DIGEST_LENGTH)));
  if (round !== null) cell.append(" ", element("span", { class: "muted" }, `round ${number(round)}`));
  if (differs) cell.append(" ", element("strong", { class: "bad" }, "differs"));
  return cell;
}

function personRow(person, held) {
  // what somebody last reported is no longer true of a machine that is away
  const now = person.state === "online" ? person : {};
  const speed = now.status === "training" ? now.tokensPerSecond : null;
  const made = row([
    nameOf(person), stateCell(person), person.device || "–", number(person.step), number(now.loss, 3), number(speed),
    digestCell(held),
  ], LABELS);
  if (person.state === "offline") made.className = "offline";
  return made;
}

/** Show the participants of `page`; `records` of the log tell which of them hold the swarm's outer state. */
export function showPeople(page, records) {
  const agreed = agreedDigests(records);
  const held = page.items.map((person) => heldDigest(person.id, person.digest, records, agreed));
  const rows = page.items.map((person, index) => personRow(person, held[index]));
  if (page.checkpointer.digest) {
    const own = heldDigest("checkpointer", page.checkpointer.digest, records, agreed);
    const about = element("span", { class: "muted" }, "the coordinator's own peer: trains nothing");
    const made = row(["checkpointer", about, "–", "–", "–", "–", digestCell(own)], LABELS);
    made.className = "checkpointer";
    rows.push(made);
  }
  byId("people").replaceChildren(...rows);
  byId("people-table").hidden = rows.length === 0;
  byId("people-empty").hidden = page.items.length > 0;
  byId("people-more").hidden = page.nextCursor === null;
  byId("people-more").textContent = `Only the first ${number(page.items.length)} are shown.`;
  byId("people-differ").hidden = !held.some(({ differs }) => differs);
}

/** Participant id -> name. */
export const namesOf = (page) => new Map(page.items.map((person) => [person.id, nameOf(person)]));
