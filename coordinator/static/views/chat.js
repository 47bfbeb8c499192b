// Talking with a version of a model. The conversation is in this page's memory only.
import { AwayError, deleteJson, postJson } from "../client/api.js";
import { postForEvents } from "../client/event_answer.js";
import { format, messageOf, t } from "../client/i18n.js";
import { choose, preference } from "../client/preferences.js";
import {
  MOST_CHARACTERS, answeringVersion, begun, bounded, errorKey, isOpen, requestOf, servableVersions, withChunk,
} from "../logic/chat.js";
import { referenceOf } from "../logic/overlay.js";
import { SaidError } from "../logic/said.js";
import { Choice } from "../parts/choice.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { Exchanges } from "./chat_exchanges.js";

const CONSENT = "chatConsent";
const TEMPERATURES = { low: 0, high: 2, step: 0.1, usual: 0.7 };
const LENGTHS = { low: 1, high: 100_000, step: 1, usual: 200 };

/** What went wrong, in words. */
const wordsOf = (error) => (errorKey(error) ? t(errorKey(error)) : messageOf(error));

/**
 * A conversation: {exchanges, isBusy, ask(question, how), stop(), clear(), rate(index, rating),
 * forget(index)}. `ask` promises whether nothing
 * went wrong; being stopped is not wrong.
 */
function useConversation() {
  const [exchanges, setExchanges] = useState([]);
  const calling = useRef(null);
  useEffect(() => () => calling.current?.abort(), []);
  const change = (place, next) => setExchanges((known) => known.map((one, index) => (index === place ? next(one) : one)));

  const converse = async (question, how, changed, signal) => {
    try {
      const events = postForEvents("/v1/chat/completions", requestOf({ ...how, exchanges, question }), signal);
      for await (const chunk of events) changed((one) => withChunk(one, chunk));
      changed((one) => (isOpen(one) ? { ...one, state: "failed", error: new AwayError() } : one));
      return true;
    } catch (error) {
      const isStopped = error.name === "AbortError";
      changed((one) => ({ ...one, ...(isStopped ? { state: "stopped" } : { state: "failed", error }) }));
      return isStopped;
    }
  };
  const ask = (question, how) => {
    const call = new AbortController();
    calling.current = call;
    const place = exchanges.length;
    const changed = (next) => { if (calling.current === call) change(place, next); };
    setExchanges([...exchanges, begun(question, how.consent)]);
    return converse(question, how, changed, call.signal);
  };
  const rate = async (place, rating) => {
    const { id, rating: before } = exchanges[place];
    change(place, (one) => ({ ...one, rating, error: null }));
    try {
      await postJson("/v1/feedback", { id, rating });
    } catch (error) {
      const said = error.status === 404 ? new SaidError("chat.notKept") : error;
      change(place, (one) => ({ ...one, rating: before, error: said }));
    }
  };
  const forget = async (place) => {
    try {
      await deleteJson(`/v1/chats/${encodeURIComponent(exchanges[place].id)}`);
      change(place, (one) => ({ ...one, isKept: false, error: null }));
    } catch (error) {
      // it has been learnt from, or others have taken its place
      const isGone = error.status === 404;
      change(place, (one) => ({ ...one, isKept: !isGone, error: isGone ? null : error }));
    }
  };
  const clear = () => {
    calling.current?.abort();
    calling.current = null;
    setExchanges([]);
  };
  return { exchanges, isBusy: exchanges.some(isOpen), ask, rate, forget, clear, stop: () => calling.current.abort() };
}

function NumberChoice({ id, label, value, limits: { low, high, step }, onChange }) {
  return html`<label class="choice" for=${id}>${label}<input id=${id} name=${id} type="number" min=${low} max=${high} step=${step}
    value=${value} onInput=${(event) => onChange(event.target.value)} /></label>`;
}

function Consent({ isGiven, onChange }) {
  return html`<div><label class="check" for="consent"><input id="consent" name="consent" type="checkbox" checked=${isGiven}
      aria-describedby="consent-what" onChange=${(event) => onChange(event.target.checked)} />${t("chat.consent")}</label>
    <p id="consent-what" class="quiet">${t("chat.consentWhat")}</p></div>`;
}

/** Where the question is written. Enter sends it, except where it ends a word that is still being composed. */
function Writing({ isBusy, calls, onSend, onStop }) {
  const field = useRef(null);
  const [text, setText] = useState("");
  useEffect(() => { if (calls > 0) field.current.focus(); }, [calls]);
  const send = async () => {
    const question = text.trim();
    if (isBusy || question === "") return;
    setText("");
    // what could not be answered need not be written again
    if (!(await onSend(question))) setText((written) => written || question);
  };
  const onKeyDown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return html`<form class="chat-form" onSubmit=${(event) => { event.preventDefault(); send(); }}>
    <label class="for-readers" for="question">${t("chat.question")}</label>
    <textarea id="question" name="question" rows="2" dir="auto" maxlength=${MOST_CHARACTERS} ref=${field}
      placeholder=${t("chat.question")} aria-describedby="chat-hint" value=${text} onKeyDown=${onKeyDown}
      onInput=${(event) => setText(event.target.value)}></textarea>
    ${isBusy
      ? html`<button id="chat-stop" key="stop" type="button" onClick=${onStop}>${t("chat.stop")}</button>`
      : html`<button id="chat-send" key="send" type="submit" class="primary" disabled=${text.trim() === ""}>${t("chat.send")}</button>`}
    <p id="chat-hint" class="quiet">${t("chat.hint")}</p></form>`;
}

function Conversation({ model, version, calls, onVersion }) {
  const [temperature, setTemperature] = useState(String(TEMPERATURES.usual));
  const [length, setLength] = useState(String(LENGTHS.usual));
  const [consent, setConsent] = useState(preference(CONSENT) === "yes");
  const { exchanges, isBusy, ask, rate, forget, clear, stop } = useConversation();
  const send = (question) => ask(question, {
    reference: referenceOf({ model: model.id, version }), consent,
    temperature: bounded(temperature, TEMPERATURES.low, TEMPERATURES.high, TEMPERATURES.usual),
    most: Math.round(bounded(length, LENGTHS.low, LENGTHS.high, LENGTHS.usual)),
  });
  const answering = answeringVersion(model);
  const versions = servableVersions(model).map((one) => [one.version, one.version === answering
    ? t("chat.answeringVersion", { version: one.version }) : format.number(one.version)]);
  const agree = (isGiven) => { choose(CONSENT, isGiven ? "yes" : null); setConsent(isGiven); };
  return html`<div class="choices">
      <${Choice} id="chat-version" label=${t("models.version")} value=${version} options=${versions}
        onChange=${(text) => onVersion(Number(text))} />
      <${NumberChoice} id="temperature" label=${t("field.temperature")} value=${temperature} limits=${TEMPERATURES}
        onChange=${setTemperature} />
      <${NumberChoice} id="length" label=${t("chat.length")} value=${length} limits=${LENGTHS} onChange=${setLength} />
      <button id="chat-new" type="button" class="small" disabled=${exchanges.length === 0} onClick=${clear}>${t("chat.new")}</button></div>
    <${Exchanges} exchanges=${exchanges} wordsOf=${wordsOf} onRate=${rate} onForget=${forget} />
    <${Writing} isBusy=${isBusy} calls=${calls} onSend=${send} onStop=${stop} />
    <${Consent} isGiven=${consent} onChange=${agree} />`;
}

/** Why there is nothing to talk with. */
function whyNot({ items, answersChats }) {
  if (!answersChats) return t("chat.off");
  return items.some(({ available }) => available) ? t("chat.otherKind") : t("chat.noFiles");
}

/**
 * `model` as the API tells it; `version`: its number, null where none can be chatted with; `onVersion(number)` chooses; `calls`: how often
 * somebody has asked for the chat elsewhere on the page.
 */
export function Chat({ model, version, calls, onVersion }) {
  return html`<section class="panel" id="chat" aria-labelledby="chat-title"><h2 id="chat-title">${t("chat.title")}</h2>
    ${version === null || !model.answersChats
      ? html`<p id="chat-none" class="quiet">${whyNot(model)}</p>`
      : html`<${Conversation} model=${model} version=${version} calls=${calls} onVersion=${onVersion} />`}</section>`;
}
