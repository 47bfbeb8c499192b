// Choosing a wallet: how each is shown, and what is said of one on a chain that the coordinator does not take.
import { element, isolated } from "/static/dom.js";

const ICON_PIXELS = 28;
const CHAIN_NAMES = new Map([["eip155:1", "Ethereum"], ["eip155:11155111", "Sepolia"]]);

export const chainName = (chain) => CHAIN_NAMES.get(chain) ?? `chain ${chain.split(":")[1]}`;

/** The coordinator takes no accounts of the wallet's chain; `wanted` is one that it takes. */
export class WrongChainError extends Error {
  constructor(chain, wanted) {
    super(`The wallet is on ${chainName(chain)}; this coordinator takes accounts of ${chainName(wanted)}.`);
    this.wanted = wanted;
  }
}

/** What `ask` answers about an account of this chain. Raises WrongChainError where the coordinator takes others. */
export async function onTakenChain(chain, ask) {
  try {
    return await ask();
  } catch (error) {
    const wanted = error.problem?.field === "chain" && error.problem.allowed?.find((one) => one.startsWith("eip155:"));
    throw wanted ? new WrongChainError(chain, wanted) : error;
  }
}

/** An item of the list of wallets; `choose(wallet)` follows a click. */
export function walletItem(wallet, choose) {
  const button = element("button", { type: "button", "data-wallet": wallet.uuid });
  if (wallet.icon) button.append(element("img", { src: wallet.icon, alt: "", width: ICON_PIXELS, height: ICON_PIXELS }));
  button.append(isolated(wallet.name));
  button.onclick = () => choose(wallet);
  return element("li", {}, button);
}
