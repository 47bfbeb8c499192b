// The page on which a wallet lets a node in that has none: the code, what would be signed, the signature.
import { postJson } from "../client/api.js";
import { format, languageStore, t } from "../client/i18n.js";
import { showProblem } from "../client/problem.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../parts/html.js";
import { useStore, useTitle } from "../parts/hooks.js";
import { ProblemNotice } from "../parts/notices.js";
import { LanguageChoice, ThemeChoice } from "./choices.js";
import { SwitchButton, Wallets, useSigning, useWallets } from "./signing.js";

const LINKS = "/api/v1/links";
const ENDS = {
  signed: { title: "link.signed", text: "link.signedText" },
  declined: { title: "link.declined", text: "link.declinedText" },
};

/** A link may have the code in it: what stands behind the # is sent to nobody, and stays in no history. */
function useCodeOfAddress(use) {
  useEffect(() => {
    const take = () => {
      const given = location.hash.slice(1);
      if (given === "") return;
      history.replaceState(null, "", location.pathname);
      use(given);
    };
    take();
    addEventListener("hashchange", take);
    return () => removeEventListener("hashchange", take);
  }, []);
}

/** Asks for the code; `typed` is one that was no good. */
function CodeForm({ typed, onLook }) {
  const field = useRef(null);
  useLayoutEffect(() => {
    field.current.value = typed;
    field.current.select();
  }, [typed]);
  const submit = async (event) => {
    event.preventDefault();
    if (!await onLook(field.current.value)) field.current.select();
  };
  return html`<form id="code-form" class="panel field" onSubmit=${submit}>
    <label for="code">${t("link.code")}</label>
    <div class="copy-row"><input id="code" name="code" ref=${field} dir="ltr" autocomplete="off" autocapitalize="characters"
      spellcheck="false" maxlength="40" placeholder="BCDF-GHJK" required />
      <button type="submit" class="primary">${t("link.goOn")}</button></div></form>`;
}

function Facts({ view }) {
  const facts = [
    ["link.itsCode", view.userCode], ["link.session", view.sessionName], ["link.sessionId", view.session],
    ["link.node", view.name || "–"], ["link.peer", view.peerId], ["link.coordinator", view.coordinator],
    ["link.until", format.dayAndTime(new Date(view.statementExpiresAt))],
  ];
  return html`<dl id="facts" class="facts wide">${facts.map(([key, value]) => html`<div key=${key}><dt>${t(key)}</dt>
    <dd><bdi>${value}</bdi></dd></div>`)}</dl>`;
}

/** What would be signed, and the wallets to sign it with; `onEnd(name)` once it is signed or declined. */
function Request({ view, onEnd }) {
  const { userCode } = view;
  const title = useRef(null);
  const list = useWallets(true);
  const { step, error, wallet, start, cancel } = useSigning(
    (account) => postJson(`${LINKS}/statement`, { userCode, ...account }),
    async ({ account, signature }) => {
      await postJson(`${LINKS}/sign`, { userCode, ...account, signature });
      onEnd("signed");
    },
  );
  useLayoutEffect(() => title.current.focus(), []);
  useEffect(() => showProblem(error), [error]);
  const decline = async () => {
    cancel();
    try {
      await postJson(`${LINKS}/decline`, { userCode });
      onEnd("declined");
    } catch (failure) {
      showProblem(failure);
    }
  };
  const text = step ? t(step.key, step.values) : t(list.length > 0 ? "link.choose" : "link.noWallet");
  return html`<section id="request" class="panel" aria-labelledby="request-title">
    <h2 id="request-title" tabindex="-1" ref=${title}>${t("link.request")}</h2>
    <${Facts} view=${view} />
    <p class="notice wait">${t("link.warning")}</p>
    <p id="step" role="status">${text}</p>
    ${step === null && html`<${Wallets} list=${list} onChoose=${(chosen) => start(chosen)} />`}
    ${step?.message && html`<pre id="statement" class="sample" dir="ltr" tabindex="0">${step.message}</pre>`}
    <div class="buttons end"><button id="decline" type="button" class="danger" onClick=${decline}>${t("link.decline")}</button>
      <${SwitchButton} id="switch" error=${error} onSwitch=${(chain) => start(wallet, chain)} /></div></section>`;
}

function End({ name }) {
  const title = useRef(null);
  useLayoutEffect(() => title.current.focus(), []);
  return html`<section id="end" class="panel"><h2 id="end-title" tabindex="-1" ref=${title}>${t(ENDS[name].title)}</h2>
    <p id="end-text">${t(ENDS[name].text)}</p></section>`;
}

/** The code at first, then what its node wants to have signed, then how it ended. */
function Steps() {
  const [{ typed, view, end }, setState] = useState({ typed: "", view: null, end: null });
  const look = async (userCode) => {
    try {
      setState({ typed: userCode, view: await postJson(`${LINKS}/look`, { userCode }), end: null });
      showProblem(null);
      return true;
    } catch (error) {
      setState({ typed: userCode, view: null, end: null });
      showProblem(error);
      return false;
    }
  };
  useCodeOfAddress(look);
  if (end !== null) return html`<${End} name=${end} />`;
  if (view === null) return html`<${CodeForm} typed=${typed} onLook=${look} />`;
  return html`<${Request} key=${view.userCode} view=${view} onEnd=${(name) => setState({ typed, view, end: name })} />`;
}

/** The whole page: nothing leads away from it but the coordinator's name. */
export function LinkPage() {
  useStore(languageStore);
  useTitle(t("link.short"));
  return html`<header class="top"><a class="brand" href="/"><img src="/static/icon.svg" alt="" width="26" height="26" />cotrain</a>
      <div class="who"><${LanguageChoice} /><${ThemeChoice} /></div></header>
    <main id="main" class="narrow stack"><${ProblemNotice} /><h1>${t("link.title")}</h1><${Steps} /></main>`;
}
