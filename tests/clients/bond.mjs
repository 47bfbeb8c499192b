// The statement that lets a peer take part for an account, signed by the account's wallet and by the peer.
import { randomBytes } from "node:crypto";

const LIFETIME_S = 24 * 3600;

/** Unix seconds -> 2026-01-31T12:00:00Z */
const rfc3339 = (seconds) => new Date(seconds * 1000).toISOString().replace(".000Z", "Z");

function bondText({ account, peerId, session, coordinator, nonce, issuedAt, expiresAt }) {
  return [
    `Let a peer train for my account at ${coordinator}`,
    "",
    "This allows the peer below to take part in the session below in my name. It moves no money.",
    "",
    `Coordinator: ${coordinator}`,
    `Session: ${session}`,
    `Peer: ${peerId}`,
    `Account: ${account}`,
    `Nonce: ${nonce}`,
    `Issued At: ${rfc3339(issuedAt)}`,
    `Expiration Time: ${rfc3339(expiresAt)}`,
  ].join("\n");
}

/** A bond for one session, valid from now on. */
export async function makeBond(wallet, peer, { account, session, coordinator }) {
  const issuedAt = Math.floor(Date.now() / 1000);
  const terms = { coordinator, nonce: randomBytes(16).toString("hex"), issuedAt, expiresAt: issuedAt + LIFETIME_S };
  const text = bondText({ ...terms, account, peerId: peer.id, session });
  return { ...terms, ...await wallet.sign(text, terms.nonce), peerSignature: peer.sign("bond", text) };
}
