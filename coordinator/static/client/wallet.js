// Ethereum wallets of this browser: found as EIP-6963 says, asked as EIP-1193 says.

import { SaidError } from "../logic/said.js";

const LONGEST_REASON = 200;

const REASONS = new Map([
  [4001, "wallet.declined"],
  [4100, "wallet.notAllowed"],
  [4200, "wallet.unable"],
  [4900, "wallet.disconnected"],
  [4901, "wallet.wrongNetwork"],
  [4902, "wallet.unknownNetwork"],
  [-32002, "wallet.stillAsking"],
]);

const found = new Map();
const watchers = new Set();

/** A wallet's refusal. */
export class WalletError extends SaidError {}

/** A wallet that has announced itself: a name and an icon to show, and the object that is asked. */
function walletOf({ info, provider } = {}) {
  if (typeof info?.uuid !== "string" || typeof info.name !== "string" || typeof provider?.request !== "function") return null;
  const icon = typeof info.icon === "string" && info.icon.startsWith("data:image/") ? info.icon : "";
  return { uuid: info.uuid, name: info.name, icon, provider };
}

addEventListener("eip6963:announceProvider", ({ detail }) => {
  const wallet = walletOf(detail ?? undefined);
  if (wallet === null || found.has(wallet.uuid)) return;
  found.set(wallet.uuid, wallet);
  for (const watcher of watchers) watcher(wallets());
});

/** The wallets that have announced themselves so far. */
export const wallets = () => [...found.values()];

/** Ask all wallets to announce themselves; `onChange(wallets)` for each that comes later. Returns what ends that. */
export function watchWallets(onChange) {
  dispatchEvent(new Event("eip6963:requestProvider"));
  watchers.add(onChange);
  return () => watchers.delete(onChange);
}

async function ask({ provider }, method, params = []) {
  try {
    return await provider.request({ method, params });
  } catch (error) {
    // not every wallet throws an Error
    const said = String(error?.message ?? "").slice(0, LONGEST_REASON);
    const key = REASONS.get(error?.code) ?? (said ? "wallet.says" : "wallet.failed");
    throw new WalletError(key, { said });
  }
}

/** Ask the person for an account: {address, chain}, the chain in the form of CAIP-2. Raises WalletError. */
export async function askAccount(wallet) {
  const [address] = await ask(wallet, "eth_requestAccounts") ?? [];
  if (typeof address !== "string") throw new WalletError("wallet.noAccount");
  const number = await ask(wallet, "eth_chainId");
  if (!/^0x[0-9a-f]+$/i.test(number)) throw new WalletError("wallet.noNetwork");
  return { address, chain: `eip155:${BigInt(number)}` };
}

/** Ask the person to sign a text, exactly as it is (EIP-191): the signature in hexadecimal. Raises WalletError. */
export async function askSignature(wallet, address, text) {
  const bytes = [...new TextEncoder().encode(text)];
  const data = `0x${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  return ask(wallet, "personal_sign", [data, address]);
}

/** Ask the person to go over to another chain, `eip155:1`. Raises WalletError. */
export async function askChain(wallet, chain) {
  const number = BigInt(chain.split(":")[1]);
  await ask(wallet, "wallet_switchEthereumChain", [{ chainId: `0x${number.toString(16)}` }]);
}
