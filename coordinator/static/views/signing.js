// Having a text signed by a wallet: which wallets there are, what is asked of the chosen one, and what it answers.
import { t } from "../client/i18n.js";
import { askAccount, askChain, askSignature, wallets, watchWallets } from "../client/wallet.js";
import { SaidError } from "../logic/said.js";
import { html, useLayoutEffect, useRef, useState } from "../parts/html.js";

const ICON_PIXELS = 28;
const CHAIN_NAMES = new Map([["eip155:1", "Ethereum"], ["eip155:11155111", "Sepolia"]]);
const IDLE = { step: null, error: null, wallet: null };
const chainName = (chain) => CHAIN_NAMES.get(chain) ?? t("signIn.chain", { number: chain.split(":")[1] });

/** The coordinator takes no accounts of the wallet's chain; `wanted` is one that it takes. */
class WrongChainError extends SaidError {
  constructor(chain, wanted) {
    super("signIn.wrongChain", { chain: chainName(chain), wanted: chainName(wanted) });
    this.wanted = wanted;
  }
}

/** What `ask` answers about an account of this chain. Raises WrongChainError where the coordinator takes others. */
async function onTakenChain(chain, ask) {
  try {
    return await ask();
  } catch (error) {
    const wanted = error.problem?.field === "chain" && error.problem.allowed?.find((one) => one.startsWith("eip155:"));
    throw wanted ? new WrongChainError(chain, wanted) : error;
  }
}

/**
 * Ask the wallet for its account, the coordinator for a text, the wallet for its signature: {account, asked, signature}; null
 * once `isWanted()` no longer holds. `textFor(account)` answers `asked`, with the text in `message`; `tell(step)` hears each step.
 */
async function signature(wallet, chain, { textFor, tell, isWanted }) {
  if (chain !== null) {
    tell({ key: "signIn.asksChain", values: { wallet: wallet.name, chain: chainName(chain) } });
    await askChain(wallet, chain);
    if (!isWanted()) return null;
  }
  tell({ key: "signIn.asksAccount", values: { wallet: wallet.name } });
  const account = await askAccount(wallet);
  if (!isWanted()) return null;
  const asked = await onTakenChain(account.chain, () => textFor(account));
  if (!isWanted()) return null;
  tell({ key: "signIn.showsText", values: { wallet: wallet.name }, message: asked.message });
  const signed = await askSignature(wallet, account.address, asked.message);
  return isWanted() ? { account, asked, signature: signed } : null;
}

/**
 * One question to a wallet at a time: `start(wallet, chain)` asks, `cancel()` forgets it, so that an answer that comes later does
 * nothing. `finish({account, asked, signature})` sends what was signed. `step` ({key, values, message}) says what is awaited;
 * `error` what went wrong with `wallet`.
 */
export function useSigning(textFor, finish) {
  const question = useRef(0);
  const [state, setState] = useState(IDLE);
  const cancel = () => {
    question.current += 1;
    setState(IDLE);
  };
  // whoever leaves wants no answer any more
  useLayoutEffect(() => () => { question.current += 1; }, []);
  const start = async (wallet, chain = null) => {
    question.current += 1;
    const own = question.current;
    const isWanted = () => own === question.current;
    const tell = (step) => setState({ step, error: null, wallet });
    try {
      const signed = await signature(wallet, chain, { textFor, tell, isWanted });
      if (signed === null) return;
      tell({ key: "signIn.checks", values: {} });
      await finish(signed);
    } catch (error) {
      if (isWanted()) setState({ step: null, error, wallet });
    }
  };
  return { ...state, start, cancel };
}

/** The wallets that there are while somebody is asked to choose one. */
export function useWallets(isAsked) {
  const [list, setList] = useState([]);
  useLayoutEffect(() => {
    if (!isAsked) return undefined;
    const unwatch = watchWallets(setList);
    setList(wallets());
    return unwatch;
  }, [isAsked]);
  return list;
}

/** `takesFocus`: the first wallet has the focus once there is one. */
export function Wallets({ list, takesFocus = false, onChoose }) {
  const first = useRef(null);
  useLayoutEffect(() => { if (takesFocus) first.current?.focus(); }, [takesFocus, list.length > 0]);
  return html`<ul id="wallets" class="wallets">${list.map((wallet, index) => html`<li key=${wallet.uuid}>
    <button type="button" data-wallet=${wallet.uuid} ref=${index === 0 ? first : null} onClick=${() => onChoose(wallet)}>
      ${wallet.icon && html`<img src=${wallet.icon} alt="" width=${ICON_PIXELS} height=${ICON_PIXELS} />`}<bdi>${wallet.name}</bdi>
    </button></li>`)}</ul>`;
}

/** Focused when `error` asks for another chain: the way on is a switch. */
export function SwitchButton({ id, error, onSwitch }) {
  const button = useRef(null);
  const wanted = error instanceof WrongChainError ? error.wanted : null;
  useLayoutEffect(() => { if (wanted) button.current.focus(); }, [wanted]);
  return html`<button id=${id} type="button" class="primary" ref=${button} hidden=${wanted === null}
    onClick=${() => onSwitch(wanted)}>${wanted ? t("signIn.switch", { chain: chainName(wanted) }) : ""}</button>`;
}
