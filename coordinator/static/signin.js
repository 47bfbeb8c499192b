// Signing in and out: the buttons at the top of the page, and the dialog that leads through it.
import { chainName, onTakenChain, walletItem, WrongChainError } from "/static/choice.js";
import { byId, showProblem, showText } from "/static/dom.js";
import { shortAddress } from "/static/format.js";
import { askChallenge, identityChanges, signedIn, signIn, signOut, watchIdentity } from "/static/identity.js";
import { askAccount, askChain, askSignature, wallets, watchWallets } from "/static/wallet.js";

const CHOOSE = "Your wallet will show you a text to sign. It proves that the account is yours; it costs nothing and moves "
  + "no money.";
const NO_WALLET = "No wallet was found in this browser. Watching sessions needs none; steering your own needs one: "
  + "install a wallet as an extension of your browser, then load this page again.";

// An answer of the wallet to a question that has been closed since must not sign anybody in.
let question = 0;
let unwatch = () => {};

/** Ask the wallet, then the coordinator; resolves to whether somebody is signed in now. */
async function proveAccount(wallet, chain, isWanted) {
  if (chain !== null) {
    showStep(`${wallet.name} asks whether to switch to ${chainName(chain)}.`);
    await askChain(wallet, chain);
    if (!isWanted()) return false;
  }
  showStep(`${wallet.name} asks which account to use.`);
  const account = await askAccount(wallet);
  if (!isWanted()) return false;
  const { nonce, message } = await onTakenChain(account.chain, () => askChallenge(account.address, account.chain));
  if (!isWanted()) return false;
  showStep(`${wallet.name} shows the text to sign.`);
  const signature = await askSignature(wallet, account.address, message);
  if (!isWanted()) return false;
  showStep("The coordinator checks the signature.");
  await signIn(nonce, signature);
  return true;
}

/** Sign in with a wallet, after it has gone over to `chain` where one is named. */
async function signInWith(wallet, chain = null) {
  question += 1;
  const own = question;
  const isWanted = () => own === question;
  showAsking();
  try {
    if (!await proveAccount(wallet, chain, isWanted)) return;
    closeDialog();
    byId("sign-out").focus();
  } catch (error) {
    if (isWanted()) showChoice(error, wallet);
  }
}

async function leave() {
  try {
    await signOut();
    showProblem(null);
  } catch (error) {
    showProblem(error);
  }
}

// ---------------------------------------------------------------------------------------------- what is shown
function showStep(text) {
  byId("sign-in-text").textContent = text;
}

/** The wallet has a question open: nothing can be chosen meanwhile. */
function showAsking() {
  byId("wallets").hidden = true;
  byId("sign-in-switch").hidden = true;
  showText("sign-in-problem", "");
  byId("sign-in-close").focus();
}

/** The wallets to choose from, and what went wrong with `wallet` just now. */
function showChoice(error, wallet) {
  byId("wallets").hidden = false;
  showWallets(wallets());
  showText("sign-in-problem", error?.message ?? "");
  const button = byId("sign-in-switch");
  button.hidden = !(error instanceof WrongChainError);
  if (button.hidden) return;
  button.textContent = `Switch to ${chainName(error.wanted)}`;
  button.onclick = () => signInWith(wallet, error.wanted);
  button.focus();
}

function showWallets(list) {
  byId("wallets").replaceChildren(...list.map((wallet) => walletItem(wallet, signInWith)));
  if (!byId("wallets").hidden) showStep(list.length > 0 ? CHOOSE : NO_WALLET);
}

function openDialog() {
  unwatch = watchWallets(showWallets);
  showChoice(null);
  byId("sign-in-dialog").showModal();
}

function closeDialog() {
  unwatch();
  question += 1;
  byId("sign-in-dialog").close();
}

function showIdentity() {
  const me = signedIn();
  const wasFocused = [byId("sign-in"), byId("sign-out")].includes(document.activeElement);
  byId("sign-in").hidden = me !== null;
  byId("sign-out").hidden = me === null;
  showText("account", me ? `${shortAddress(me.account)}${me.operator ? " (operator)" : ""}` : "");
  byId("account").title = me?.account ?? "";
  if (wasFocused) byId(me ? "sign-out" : "sign-in").focus();
}

/** Show who is signed in, and the way in or out. */
export function offerSignIn() {
  byId("sign-in").onclick = openDialog;
  byId("sign-out").onclick = leave;
  byId("sign-in-close").onclick = closeDialog;
  byId("sign-in-dialog").oncancel = closeDialog; // Escape
  identityChanges.addEventListener("change", showIdentity);
  return watchIdentity();
}
