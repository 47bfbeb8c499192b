// A text to copy, and the button that does it.
import { t } from "../client/i18n.js";
import { html, useEffect, useRef, useState } from "./html.js";

const SHOWN_MS = 2000;

/** `id` is that of the button; the text's is `textId`. */
export function CopyRow({ id, textId, text }) {
  const code = useRef(null);
  const [told, setTold] = useState("copy.copy");
  useEffect(() => {
    if (told === "copy.copy") return undefined;
    const timer = setTimeout(() => setTold("copy.copy"), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [told]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setTold("copy.copied");
    } catch {
      // no clipboard without a secure context: select the text, so that the keyboard can copy it
      getSelection().selectAllChildren(code.current);
      setTold("copy.selected");
    }
  };
  return html`<div class="copy-row"><code id=${textId} ref=${code} dir="ltr">${text}</code>
    <button id=${id} type="button" onClick=${copy}>${t(told)}</button></div>`;
}
