// The list of sessions.
import { badge, byId, element, showConnection, showProblem } from "/static/dom.js";
import { clock, number, percent } from "/static/format.js";
import { AwayError, getPages } from "/static/live.js";
import { refresher } from "/static/refresher.js";

const REFRESH_MS = 5000;

function summary(session) {
  if (session.status === "draft") return "not started yet";
  const facts = [
    percent(session.processRate), `${number(session.peers)} connected`, `round ${number(session.round)}`,
  ];
  if (session.loss !== null) facts.push(`training loss ${number(session.loss, 3)}`);
  if (session.validationLoss !== null) facts.push(`validation loss ${number(session.validationLoss, 3)}`);
  return facts.join(" · ");
}

function card(session) {
  const created = new Date(session.createdAt);
  return element("li", {}, element("a", { class: "card", href: `#/s/${session.id}` },
    element("span", { class: "card-head" },
      element("span", { class: "card-name", dir: "auto" }, session.name), badge(session.status)),
    element("progress", { max: "100", value: String(session.processRate), "aria-label": `Progress of ${session.name}` }),
    element("span", { class: "card-facts muted" }, element("span", {}, summary(session)),
      element("time", { datetime: created.toISOString() }, `opened ${clock(created)}`))));
}

/** Keep the item that has the keyboard's focus focused, also when it is made anew. */
function replaceItems(target, items) {
  const focused = document.activeElement?.getAttribute("href");
  target.replaceChildren(...items);
  const links = focused ? [...target.querySelectorAll("a")] : [];
  links.find((link) => link.getAttribute("href") === focused)?.focus();
}

/** Show the list and keep it up to date; returns what ends that. */
export function showList() {
  let pages = 1;
  document.title = "cotrain";

  function show({ items, nextCursor }) {
    showProblem(null);
    showConnection("live");
    replaceItems(byId("list-items"), items.map(card));
    byId("list-empty").hidden = items.length > 0;
    byId("list-more").hidden = nextCursor === null;
  }

  function explain(error) {
    if (error instanceof AwayError) showConnection("away");
    else showProblem(error);
  }

  const list = refresher(() => getPages("/api/v1/sessions", pages), show, explain, REFRESH_MS);
  byId("list-more").onclick = () => { pages += 1; list.ask(); };
  list.ask();
  return list.stop;
}
