// Signing in and out: the buttons at the top of the page, and the dialog that leads through it.
import { messageOf, t } from "../client/i18n.js";
import { askChallenge, identity, signIn, signOut } from "../client/identity.js";
import { showProblem } from "../client/problem.js";
import { askAccount, askChain, askSignature, wallets, watchWallets } from "../client/wallet.js";
import { shortAddress } from "../logic/format.js";
import { SaidError } from "../logic/said.js";
import { Dialog } from "../parts/dialog.js";
import { useStore } from "../parts/hooks.js";
import { html, useLayoutEffect, useRef, useState } from "../parts/html.js";

const ICON_PIXELS = 28;
const CHAIN_NAMES = new Map([["eip155:1", "Ethereum"], ["eip155:11155111", "Sepolia"]]);
const chainName = (chain) => CHAIN_NAMES.get(chain) ?? t("signIn.chain", { number: chain.split(":")[1] });

/** The coordinator takes no accounts of the wallet's chain; `wanted` is one that it takes. */
class WrongChainError extends SaidError {
  constructor(chain, wanted) {
    super("signIn.wrongChain", { chain: chainName(chain), wanted: chainName(wanted) });
    this.wanted = wanted;
  }
}

async function challengeFor({ address, chain }) {
  try {
    return await askChallenge(address, chain);
  } catch (error) {
    const wanted = error.problem?.field === "chain" && error.problem.allowed?.find((one) => one.startsWith("eip155:"));
    throw wanted ? new WrongChainError(chain, wanted) : error;
  }
}

/**
 * Ask the wallet, then the coordinator; resolves to whether somebody is signed in now. `tell(key, values)` says each step;
 * `isWanted()` whether the question is still open: an answer that comes later must not sign anybody in.
 */
async function proveAccount(wallet, chain, tell, isWanted) {
  if (chain !== null) {
    tell("signIn.asksChain", { wallet: wallet.name, chain: chainName(chain) });
    await askChain(wallet, chain);
    if (!isWanted()) return false;
  }
  tell("signIn.asksAccount", { wallet: wallet.name });
  const account = await askAccount(wallet);
  if (!isWanted()) return false;
  const { nonce, message } = await challengeFor(account);
  if (!isWanted()) return false;
  tell("signIn.showsText", { wallet: wallet.name });
  const signature = await askSignature(wallet, account.address, message);
  if (!isWanted()) return false;
  tell("signIn.checks", {});
  await signIn(nonce, signature);
  return true;
}

function Wallets({ list, onChoose }) {
  const first = useRef(null);
  useLayoutEffect(() => { first.current?.focus(); }, [list.length > 0]);
  return html`<ul id="wallets" class="wallets">${list.map((wallet, index) => html`<li key=${wallet.uuid}>
    <button type="button" data-wallet=${wallet.uuid} ref=${index === 0 ? first : null} onClick=${() => onChoose(wallet)}>
      ${wallet.icon && html`<img src=${wallet.icon} alt="" width=${ICON_PIXELS} height=${ICON_PIXELS} />`}<bdi>${wallet.name}</bdi>
    </button></li>`)}</ul>`;
}

/** The wallets that there are while the dialog is open. */
function useWallets(isOpen) {
  const [list, setList] = useState([]);
  useLayoutEffect(() => {
    if (!isOpen) return undefined;
    const unwatch = watchWallets(setList);
    setList(wallets());
    return unwatch;
  }, [isOpen]);
  return list;
}

/** Focused when `error` asks for another chain: the way on is a switch. */
function SwitchButton({ error, onSwitch }) {
  const button = useRef(null);
  const wanted = error instanceof WrongChainError ? error.wanted : null;
  useLayoutEffect(() => { if (wanted) button.current.focus(); }, [wanted]);
  return html`<button id="sign-in-switch" type="button" class="primary" ref=${button} hidden=${wanted === null}
    onClick=${() => onSwitch(wanted)}>${wanted ? t("signIn.switch", { chain: chainName(wanted) }) : ""}</button>`;
}

/** The dialog; `onClose(isSignedIn)`. */
function SignInDialog({ isOpen, onClose }) {
  const list = useWallets(isOpen);
  const question = useRef(0);
  const closeButton = useRef(null);
  const [{ step, error, wallet }, setState] = useState({ step: null, error: null, wallet: null });
  useLayoutEffect(() => { if (isOpen) setState({ step: null, error: null, wallet: null }); }, [isOpen]);
  const close = (isSignedIn) => { question.current += 1; onClose(isSignedIn); };
  const start = async (chosen, chain = null) => {
    question.current += 1;
    const own = question.current;
    const isWanted = () => own === question.current;
    const tell = (key, values) => setState({ step: { key, values }, error: null, wallet: chosen });
    closeButton.current.focus();
    try {
      if (await proveAccount(chosen, chain, tell, isWanted)) close(true);
    } catch (failure) {
      if (isWanted()) setState({ step: null, error: failure, wallet: chosen });
    }
  };
  const text = step ? t(step.key, step.values) : t(list.length > 0 ? "signIn.choose" : "signIn.noWallet");
  return html`<${Dialog} id="sign-in-dialog" title=${t("signIn.title")} isOpen=${isOpen} onClose=${() => close(false)}>
    <p id="sign-in-text" role="status">${isOpen ? text : ""}</p>
    ${isOpen && step === null && html`<${Wallets} list=${list} onChoose=${(chosen) => start(chosen)} />`}
    <p id="sign-in-problem" class="notice bad" role="alert" hidden=${error === null}>${error ? messageOf(error) : ""}</p>
    <div class="buttons end">
      <button id="sign-in-close" type="button" ref=${closeButton} onClick=${() => close(false)}>${t("action.close")}</button>
      <${SwitchButton} error=${error} onSwitch=${(chain) => start(wallet, chain)} /></div></${Dialog}>`;
}

/** Who is signed in, and the way in or out. */
export function Account() {
  const me = useStore(identity);
  const [isOpen, setOpen] = useState(false);
  const [focusOn, setFocusOn] = useState(null);
  const buttons = { in: useRef(null), out: useRef(null) };
  useLayoutEffect(() => {
    // once the button that is meant is there
    if (focusOn === null || !buttons[focusOn].current || buttons[focusOn].current.hidden) return;
    buttons[focusOn].current.focus();
    setFocusOn(null);
  }, [focusOn, me]);
  const leave = async () => {
    try {
      await signOut();
      showProblem(null);
      setFocusOn("in");
    } catch (error) {
      showProblem(error);
    }
  };
  const closed = (isSignedIn) => { setOpen(false); setFocusOn(isSignedIn ? "out" : "in"); };
  return html`<code id="account" dir="ltr" hidden=${!me} title=${me?.account}>${me ? shortAddress(me.account) : ""}</code>
    ${me?.operator && html`<span class="badge quiet">${t("signIn.operator")}</span>`}
    <button id="sign-out" type="button" class="small" ref=${buttons.out} hidden=${!me} onClick=${leave}>${t("signIn.out")}</button>
    <button id="sign-in" type="button" class="small" ref=${buttons.in} hidden=${me !== null}
      onClick=${() => setOpen(true)}>${t("signIn.in")}</button>
    <${SignInDialog} isOpen=${isOpen} onClose=${closed} />`;
}
