// The buttons of a session: what may be done in its state, with a question before what cannot be undone.
import { byId, element } from "/static/dom.js";

const ACTIONS = {
  start: { label: "Start", style: "primary" },
  resume: { label: "Resume", style: "primary" },
  pause: { label: "Pause" },
  stop: {
    label: "Stop and save",
    question: "Stop this session?",
    consequence: "Everybody ends the present round, then the model is saved as it is. A stopped session cannot go on.",
  },
  cancel: {
    label: "Cancel session",
    style: "danger",
    question: "Cancel this session?",
    consequence: "Everybody breaks off at once, and no model is saved. A cancelled session cannot go on.",
  },
};

/** Ask in a dialog; resolves to whether the person wants it. */
function isConfirmed({ label, style, question, consequence }) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = question;
  byId("confirm-text").textContent = consequence;
  byId("confirm-yes").textContent = label;
  byId("confirm-yes").className = style ?? "";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

// Not by the dialog's close event: it comes later, when the next question may be open already.
let answer = () => {};

function settle(isWanted) {
  byId("confirm").close();
  answer(isWanted);
}

/** Close the question unanswered. */
export function closeQuestion() {
  settle(false);
}

/** Show a button for each of `possible`; `act(action)` is called once it is clicked and confirmed. */
export function showActions(possible, act) {
  const focused = document.activeElement?.dataset.action;
  const buttons = possible.filter((action) => action in ACTIONS).map((action) => {
    const { label, style = "", question } = ACTIONS[action];
    const button = element("button", { type: "button", class: style, "data-action": action }, label);
    button.onclick = async () => {
      if (!question || await isConfirmed(ACTIONS[action])) act(action);
    };
    return button;
  });
  byId("actions").replaceChildren(...buttons);
  byId("actions").hidden = buttons.length === 0;
  buttons.find((button) => button.dataset.action === focused)?.focus();
}

/** While the coordinator is away or an action is on its way, no button can be clicked. */
export function enableActions(enabled) {
  byId("actions").disabled = !enabled;
}

byId("confirm-yes").onclick = () => settle(true);
byId("confirm-no").onclick = () => settle(false);
byId("confirm").oncancel = () => settle(false); // Escape
