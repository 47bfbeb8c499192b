// Signing in and out: the buttons at the top of the page, and the dialog that leads through it.
import { messageOf, t } from "../client/i18n.js";
import { askChallenge, identity, signIn, signOut } from "../client/identity.js";
import { showProblem } from "../client/problem.js";
import { shortAddress } from "../logic/format.js";
import { Dialog } from "../parts/dialog.js";
import { useStore } from "../parts/hooks.js";
import { html, useLayoutEffect, useRef, useState } from "../parts/html.js";
import { SwitchButton, Wallets, useSigning, useWallets } from "./signing.js";

const challengeFor = ({ address, chain }) => askChallenge(address, chain);

/** The dialog; `onClose(isSignedIn)`. */
function SignInDialog({ isOpen, onClose }) {
  const list = useWallets(isOpen);
  const closeButton = useRef(null);
  const signing = useSigning(challengeFor, async ({ asked, signature }) => {
    await signIn(asked.nonce, signature);
    close(true);
  });
  const { step, error, wallet } = signing;
  const close = (isSignedIn) => { signing.cancel(); onClose(isSignedIn); };
  const start = (chosen, chain) => {
    closeButton.current.focus();
    signing.start(chosen, chain);
  };
  const text = step ? t(step.key, step.values) : t(list.length > 0 ? "signIn.choose" : "signIn.noWallet");
  return html`<${Dialog} id="sign-in-dialog" title=${t("signIn.title")} isOpen=${isOpen} onClose=${() => close(false)}>
    <p id="sign-in-text" role="status">${isOpen ? text : ""}</p>
    ${isOpen && step === null && html`<${Wallets} list=${list} takesFocus onChoose=${(chosen) => start(chosen)} />`}
    <p id="sign-in-problem" class="notice bad" role="alert" hidden=${error === null}>${error ? messageOf(error) : ""}</p>
    <div class="buttons end">
      <button id="sign-in-close" type="button" ref=${closeButton} onClick=${() => close(false)}>${t("action.close")}</button>
      <${SwitchButton} id="sign-in-switch" error=${error} onSwitch=${(chain) => start(wallet, chain)} /></div></${Dialog}>`;
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
