// node join.mjs ethereum|aptos URL SESSION
// Signs in, tries the same nonce a second time, registers a peer, signs out; prints what happened as one line of JSON.
import { aptosWallet } from "./aptos.mjs";
import { makeBond } from "./bond.mjs";
import { call, callWell } from "./coordinator.mjs";
import { ethereumWallet } from "./ethereum.mjs";
import { newPeer } from "./peer.mjs";

const PROTOCOL = 5;
const WALLETS = { ethereum: ethereumWallet, aptos: aptosWallet };

const [kind, url, session] = process.argv.slice(2);
const wallet = WALLETS[kind]();

async function signIn() {
  const { address, chain } = wallet;
  const challenge = await callWell(url, "POST", "/auth/challenge", { body: { address, chain } });
  const answer = { nonce: challenge.nonce, ...await wallet.signIn(challenge.message) };
  const login = await callWell(url, "POST", "/auth/login", { body: answer });
  const again = await call(url, "POST", "/auth/login", { body: answer });
  return { challenge, login, again };
}

async function register({ token, account }) {
  const peer = newPeer();
  const bond = await makeBond(wallet, peer, { account, session, coordinator: url });
  const body = { protocol: PROTOCOL, peerId: peer.id, bond, name: `${kind} client` };
  const path = `/sessions/${session}/participants`;
  const registered = await callWell(url, "POST", path, { token, body });
  const again = await call(url, "POST", path, { token, body });
  return { peer, registered, again };
}

const { challenge, login, again } = await signIn();
const { token, account } = login;
const me = await callWell(url, "GET", "/auth/me", { token });
const registration = await register(login);
const logout = await call(url, "POST", "/auth/logout", { token });
const afterwards = await call(url, "GET", "/auth/me", { token });

console.log(JSON.stringify({
  address: wallet.address,
  account,
  me: me.account,
  fields: wallet.fieldsOf(challenge.message),
  nonce: challenge.nonce,
  challengeExpiresAt: challenge.expiresAt,
  secondLogin: { status: again.status, code: again.body.code },
  peerId: registration.peer.id,
  participant: registration.registered.participant,
  membership: registration.registered.membership,
  secondRegistration: registration.again.status,
  logout: logout.status,
  afterLogout: afterwards.status,
}));
