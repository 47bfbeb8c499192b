// What was said in a chat. Answers are text, whatever is in them; each runs in its own direction.
import { t } from "../client/i18n.js";
import { isOpen, isRatable } from "../logic/chat.js";
import { Shape } from "../parts/badge.js";
import { html, useLayoutEffect, useRef } from "../parts/html.js";

const ENDS = { cut: "chat.cut", stopped: "chat.stopped" };
/** Pixels from the end within which a reader still follows what comes. */
const NEAR = 80;

function Rating({ exchange, onRate, onForget }) {
  const thumb = (rating, id, key) => {
    const isGiven = exchange.rating === rating;
    return html`<button type="button" class="small" data-rate=${id} aria-label=${t(key)} title=${t(key)} aria-pressed=${String(isGiven)}
      onClick=${() => onRate(isGiven ? 0 : rating)}><${Shape} name="thumb-${id}" /></button>`;
  };
  return html`<div class="buttons tight" role="group" aria-label=${t("chat.rating")}>
    ${thumb(1, "up", "chat.up")}${thumb(-1, "down", "chat.down")}
    <button type="button" class="small" data-forget="" onClick=${onForget}>${t("chat.forget")}</button></div>`;
}

/** What stands in place of an answer that has no text (yet). */
function placeholderOf({ state, answer }) {
  if (answer.trim() !== "") return "";
  if (state === "waiting" || state === "answering") return t("chat.waiting");
  return state === "done" || state === "cut" ? t("chat.silent") : "";
}

function Exchange({ exchange, wordsOf, onRate, onForget }) {
  const { question, answer, state, error } = exchange;
  const placeholder = placeholderOf(exchange);
  return html`<li class="exchange" data-state=${state}>
    <p class="who-said">${t("chat.you")}</p><p class="said" dir="auto">${question}</p>
    <p class="who-said">${t("chat.model")}</p>
    ${placeholder ? html`<p class="quiet">${placeholder}</p>` : html`<p class="said answer" dir="auto">${answer}</p>`}
    ${state in ENDS && html`<p class="quiet">${t(ENDS[state])}</p>`}
    ${error && html`<p class="bad" role="alert" dir="auto">${wordsOf(error)}</p>`}
    ${isRatable(exchange) && html`<${Rating} exchange=${exchange} onRate=${onRate} onForget=${onForget} />`}</li>`;
}

/** The newest answer once it is whole: screen readers hear it in one piece, not word by word. */
function spokenOf(exchanges) {
  const last = exchanges.at(-1);
  if (last === undefined || last.state === "failed") return "";
  return isOpen(last) ? t("chat.waiting") : t("chat.answered", { answer: last.answer });
}

/** `exchanges` as `logic/chat.js` says; `wordsOf(error)`: what went wrong; `onRate(index, rating)`, `onForget(index)`. */
export function Exchanges({ exchanges, wordsOf, onRate, onForget }) {
  const list = useRef(null);
  const isFollowing = useRef(true);
  useLayoutEffect(() => {
    if (isFollowing.current) list.current.scrollTop = list.current.scrollHeight;
  }, [exchanges]);
  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = list.current;
    isFollowing.current = scrollHeight - scrollTop - clientHeight < NEAR;
  };
  return html`<ol id="exchanges" class="exchanges" ref=${list} tabindex="0" aria-label=${t("chat.conversation")}
      hidden=${exchanges.length === 0} onScroll=${onScroll}>
      ${exchanges.map((exchange, index) => html`<${Exchange} key=${index} exchange=${exchange} wordsOf=${wordsOf}
        onRate=${(rating) => onRate(index, rating)} onForget=${() => onForget(index)} />`)}</ol>
    <p id="chat-said" class="for-readers" role="status" dir="auto">${spokenOf(exchanges)}</p>`;
}
