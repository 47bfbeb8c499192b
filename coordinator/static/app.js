// The page: which view is shown.
import { closeQuestion } from "/static/actions.js";
import { byId, showConnection, showProblem } from "/static/dom.js";
import { showList } from "/static/list.js";
import { showSession } from "/static/session.js";
import { offerSignIn } from "/static/signin.js";

const SESSION_ROUTE = /^#\/s\/([\w.-]+)$/;

let leave = null;

function route() {
  const moved = leave !== null;
  leave?.();
  closeQuestion();
  showProblem(null);
  showConnection("");
  const session = SESSION_ROUTE.exec(location.hash)?.[1];
  byId("list").hidden = session !== undefined;
  byId("session").hidden = true;
  leave = session === undefined ? showList() : showSession(session);
  if (moved) {
    byId("main").focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

addEventListener("hashchange", route);
offerSignIn();
route();
