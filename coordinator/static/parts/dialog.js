// Modal dialogs, and the question before what cannot be undone.
import { t } from "../client/i18n.js";
import { html, useLayoutEffect, useRef } from "./html.js";

/** A modal dialog. `onClose` is called when Escape is pressed; whoever uses it sets `isOpen`. */
export function Dialog({ id, title, isOpen, onClose, children }) {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    if (isOpen && !dialog.current.open) dialog.current.showModal();
    if (!isOpen && dialog.current.open) dialog.current.close();
  }, [isOpen]);
  const cancel = (event) => { event.preventDefault(); onClose(); };
  return html`<dialog id=${id} ref=${dialog} aria-labelledby="${id}-title" onCancel=${cancel}>
    <h2 id="${id}-title">${title}</h2>${children}</dialog>`;
}

/**
 * Asks `question` ({title, text, label, style}; null: nothing is asked); `onAnswer(isWanted)` hears what the person wants.
 * The way back has the focus first.
 */
export function Question({ question, onAnswer }) {
  const no = useRef(null);
  useLayoutEffect(() => { if (question !== null) no.current.focus(); }, [question !== null]);
  const { title = "", text = "", label = "", style = "" } = question ?? {};
  return html`<${Dialog} id="confirm" title=${title} isOpen=${question !== null} onClose=${() => onAnswer(false)}>
    <p id="confirm-text">${text}</p>
    <div class="buttons end">
      <button id="confirm-no" type="button" ref=${no} onClick=${() => onAnswer(false)}>${t("action.back")}</button>
      <button id="confirm-yes" type="button" class=${style} onClick=${() => onAnswer(true)}>${label}</button>
    </div></${Dialog}>`;
}
