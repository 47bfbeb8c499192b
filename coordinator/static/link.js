// The page on which a wallet lets a node in that has none: the code, what would be signed, the signature.
import { chainName, onTakenChain, walletItem, WrongChainError } from "/static/choice.js";
import { byId, element, isolated, showProblem, showText } from "/static/dom.js";
import { postJson } from "/static/live.js";
import { askAccount, askChain, askSignature, wallets, watchWallets } from "/static/wallet.js";

const CHOOSE = "Your wallet will show you a text to sign. It costs nothing and moves no money. Choose a wallet:";
const NO_WALLET = "No wallet was found in this browser. Install one as an extension of your browser, then load this page "
  + "again; or type the code in the browser that has your wallet.";

let userCode = "";
// An answer of the wallet to a question that is over must not be sent.
let question = 0;

/** Ask about a code, and show what its node wants to have signed. */
async function look(typed) {
  try {
    const view = await postJson("/api/v1/links/look", { userCode: typed });
    userCode = view.userCode;
    showProblem(null);
    showRequest(view);
  } catch (error) {
    showProblem(error);
    byId("code").select();
  }
}

/** Ask the wallet for its account, the coordinator for the text, the wallet for its signature. */
async function sign(wallet, chain, isWanted) {
  if (chain !== null) {
    showStep(`${wallet.name} asks whether to switch to ${chainName(chain)}.`);
    await askChain(wallet, chain);
    if (!isWanted()) return;
  }
  showStep(`${wallet.name} asks which account to use.`);
  const account = await askAccount(wallet);
  if (!isWanted()) return;
  const asked = { userCode, ...account };
  const { message } = await onTakenChain(account.chain, () => postJson("/api/v1/links/statement", asked));
  if (!isWanted()) return;
  showText("statement", message);
  showStep(`${wallet.name} shows this text to sign:`);
  const signature = await askSignature(wallet, account.address, message);
  if (!isWanted()) return;
  showStep("The coordinator checks the signature.");
  await postJson("/api/v1/links/sign", { ...asked, signature });
  showEnd("Signed", "Your node goes on by itself. You can close this page.");
}

async function signWith(wallet, chain = null) {
  question += 1;
  const own = question;
  const isWanted = () => own === question;
  showAsking();
  try {
    await sign(wallet, chain, isWanted);
  } catch (error) {
    if (isWanted()) showChoice(error, wallet);
  }
}

async function decline() {
  question += 1;
  try {
    await postJson("/api/v1/links/decline", { userCode });
    showEnd("Declined", "Nothing has been signed, and the node is told so. You can close this page.");
  } catch (error) {
    showChoice(error);
  }
}

// ---------------------------------------------------------------------------------------------- what is shown
function showStep(text) {
  byId("step").textContent = text;
}

function showRequest(view) {
  const facts = [
    ["Code", view.userCode], ["Session", view.sessionName], ["Its id", view.session], ["Node", view.name || "–"],
    ["Peer", view.peerId], ["Coordinator", view.coordinator],
    ["Holds until", new Date(view.statementExpiresAt).toLocaleDateString()],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value]) => (
    element("div", {}, element("dt", {}, name), element("dd", {}, isolated(value))))));
  byId("code-form").hidden = true;
  byId("request").hidden = false;
  watchWallets(showWallets);
  showChoice(null);
}

/** The wallet has a question open: no other can be asked meanwhile. */
function showAsking() {
  byId("wallets").hidden = true;
  byId("switch").hidden = true;
  showText("statement", "");
  showProblem(null);
}

/** The wallets to choose from, and what went wrong with `wallet` just now. */
function showChoice(error, wallet) {
  byId("wallets").hidden = false;
  showText("statement", "");
  showWallets(wallets());
  showProblem(error);
  const button = byId("switch");
  button.hidden = !(error instanceof WrongChainError);
  if (button.hidden) return;
  button.textContent = `Switch to ${chainName(error.wanted)}`;
  button.onclick = () => signWith(wallet, error.wanted);
}

function showWallets(list) {
  byId("wallets").replaceChildren(...list.map((wallet) => walletItem(wallet, signWith)));
  if (!byId("wallets").hidden) showStep(list.length > 0 ? CHOOSE : NO_WALLET);
}

function showEnd(title, text) {
  showProblem(null);
  byId("request").hidden = true;
  byId("end").hidden = false;
  byId("end-title").textContent = title;
  byId("end-text").textContent = text;
  byId("end-title").focus();
}

byId("decline").onclick = decline;
byId("code-form").onsubmit = (event) => {
  event.preventDefault();
  look(byId("code").value);
};

/** A link may have the code in it: what stands behind the # is sent to nobody, and stays in no history. */
function lookAtAddress() {
  const given = location.hash.slice(1);
  if (given === "") return;
  history.replaceState(null, "", location.pathname);
  byId("code").value = given;
  look(given);
}

byId("code-form").hidden = false; // not before: until now its button would have done nothing
byId("code").focus();
addEventListener("hashchange", lookAtAddress);
lookAtAddress();
