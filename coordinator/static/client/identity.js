// Who is signed in, and what they may do. The token is in a cookie that no script can read; the coordinator is asked.
import { AwayError, getJson, postJson } from "./api.js";
import { Store } from "./store.js";
import { SaidError } from "../logic/said.js";

const CHECK_MS = 60 * 1000;
const RETRY_MS = 10 * CHECK_MS;
const RENEW_AT = "cotrain.renewAt";

/** Who is signed in: {account, operator, expiresAt}; null: nobody; undefined: that is not known yet. */
export const identity = new Store(undefined);
const otherTabs = new BroadcastChannel("cotrain.identity");

/** Whether `me` may start, pause, resume, stop, cancel and save a session. */
export const maySteer = (me, { owner }) => Boolean(me) && (me.operator || me.account === owner);

function set(me) {
  identity.update((known) => {
    const isSame = known?.account === me?.account && known?.operator === me?.operator;
    return isSame && known !== undefined ? known : me;
  });
}

/** Ask the coordinator who is signed in. Raises AwayError if it does not answer; all stays as it is then. */
export async function loadIdentity() {
  try {
    set(await getJson("/api/v1/auth/me"));
  } catch (error) {
    if (error.status !== 401) throw error;
    set(null);
  }
}

/** Note when the token that the cookie now holds is to be replaced: when half its life is over. */
function noteRenewal({ expiresAt }) {
  const life = Date.parse(expiresAt) - Date.now();
  localStorage.setItem(RENEW_AT, String(Date.now() + Math.max(life / 2, RETRY_MS)));
}

/** A text for an account to sign: {nonce, message}. */
export const askChallenge = (address, chain) => postJson("/api/v1/auth/challenge", { address, chain });

/** Sign in with the signature of a challenge. Raises an Error that says why not. */
export async function signIn(nonce, signature) {
  noteRenewal(await postJson("/api/v1/auth/login", { nonce, signature }));
  await loadIdentity();
  if (identity.state === null) throw new SaidError("signIn.noCookie");
  otherTabs.postMessage("changed");
}

/** Sign out: the token is dead then, not only forgotten. */
export async function signOut() {
  try {
    await postJson("/api/v1/auth/logout");
  } catch (error) {
    if (error.status !== 401) throw error; // it had ended before
  }
  localStorage.removeItem(RENEW_AT);
  await loadIdentity();
  otherTabs.postMessage("changed");
}

async function renew() {
  // other tabs look at this, too: it keeps them from renewing the same token meanwhile
  localStorage.setItem(RENEW_AT, String(Date.now() + RETRY_MS));
  try {
    noteRenewal(await postJson("/api/v1/auth/rotate"));
  } catch (error) {
    if (error.status !== 401) throw error;
    await loadIdentity();
  }
}

/** Find out what a coordinator that was away could not say, and replace the token in time. */
async function check() {
  if (identity.state === undefined) await loadIdentity();
  if (!identity.state) return;
  const renewAt = localStorage.getItem(RENEW_AT);
  if (renewAt === null) noteRenewal(identity.state);
  else if (Date.now() > Number(renewAt)) await renew();
}

/** A coordinator that is away or refuses changes nothing here: the next check tries again. */
async function later(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof AwayError) && error.status === undefined) throw error;
  }
}

/** Find out who is signed in, and stay signed in for as long as the page is open. */
export function watchIdentity() {
  otherTabs.onmessage = () => later(loadIdentity);
  setInterval(() => later(check), CHECK_MS);
  return later(check);
}
