// Elements of the page. Data only ever becomes text nodes and attribute values.

export const byId = (id) => document.getElementById(id);

/** A new element with attributes and children; a string among the children is text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Give an element a text; empty text hides it. */
export function showText(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = text === "";
}

/** Show a session's or a participant's state in `target`. */
export function showState(target, state) {
  target.className = "badge";
  target.dataset.state = state;
  target.textContent = state;
  return target;
}

export const badge = (state) => showState(element("span"), state);

/** Text of any script that neither turns around nor moves what stands beside it. */
export const isolated = (text) => element("bdi", {}, text);

/** A table's row. A cell is a text or a node; `labels` name the cells where the row is shown as a card. */
export function row(cells, labels = []) {
  return element("tr", { role: "row" }, ...cells.map((cell, index) => {
    const made = element("td", { role: "cell" }, typeof cell === "string" ? element("div", {}, isolated(cell)) : cell);
    if (labels[index]) made.dataset.label = labels[index];
    return made;
  }));
}

/** Show what went wrong; null when it is over. */
export function showProblem(error) {
  showText("problem", error ? error.message : "");
}

/** Show whether what is on the page is up to date: "live", "away", or "" where neither can be said. */
export function showConnection(state) {
  const target = byId("connection");
  const words = { live: "live", away: "reconnecting …" };
  if (target.dataset.state === state) return;
  target.dataset.state = state;
  target.textContent = words[state] ?? "";
  const since = new Date().toLocaleTimeString();
  showText("away", state === "away"
    ? `The coordinator has not answered since ${since}; this page tries again by itself. Training goes on without it.`
    : "");
}
