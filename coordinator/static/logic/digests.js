// Who holds the swarm's outer state: digests compared at the same round. Pure.
//
// Taken from the "round" records of the log: only there are a round and its digest sure to belong together.

import { CHECKPOINTER } from "./records.js";

const roundRecords = (records) =>
  records.filter((record) => record.kind === "round" && typeof record.data.digest === "string" && record.data.digest !== "");

/** Round -> the digest that most peers have at it; the checkpointer's where there are as many of another. */
export function agreedDigests(records) {
  const votes = new Map();
  for (const { source, data } of roundRecords(records)) {
    const ofRound = votes.get(data.round) ?? new Map();
    const weight = source === CHECKPOINTER ? 1.5 : 1;
    votes.set(data.round, ofRound.set(data.digest, (ofRound.get(data.digest) ?? 0) + weight));
  }
  return new Map([...votes].map(([round, ofRound]) => {
    const [digest] = [...ofRound].reduce((most, vote) => (vote[1] > most[1] ? vote : most));
    return [round, digest];
  }));
}

/**
 * What is known of the digest that `source` holds now: {digest, round, differs}. `round` is null where its record is
 * no longer at hand; then nothing is said against it.
 */
export function heldDigest(source, digest, records, agreed) {
  const own = roundRecords(records).find((record) => record.source === source && record.data.digest === digest);
  if (!own) return { digest, round: null, differs: false };
  return { digest, round: own.data.round, differs: agreed.get(own.data.round) !== digest };
}

/**
 * How the peers stand to each other, from {name, held} of each: {kind, round, digest, names}. `kind` is "none" (nobody has said),
 * "differ" (`names` hold another state at the same round), "equal" (all hold `digest` of `round`) or "apart" (they are at
 * different rounds, which no digest compares).
 */
export function compareDigests(peers) {
  const holders = peers.filter(({ held }) => held.digest);
  if (holders.length === 0) return { kind: "none", round: null, digest: "", names: [] };
  const differing = holders.filter(({ held }) => held.differs).map(({ name }) => name);
  const [{ held: first }] = holders;
  const areEqual = holders.every(({ held }) => held.digest === first.digest);
  const kind = differing.length > 0 ? "differ" : areEqual ? "equal" : "apart";
  const round = holders.find(({ held }) => held.digest === first.digest && held.round !== null)?.held.round ?? null;
  return { kind, round, digest: first.digest, names: differing };
}
