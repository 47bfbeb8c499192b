// The page: which view is shown.
import { loadLanguage, languageStore, t } from "./client/i18n.js";
import { watchIdentity } from "./client/identity.js";
import { showProblem } from "./client/problem.js";
import { parseRoute } from "./logic/route.js";
import { useStore } from "./parts/hooks.js";
import { html, render, useEffect, useRef, useState } from "./parts/html.js";
import { CompareView } from "./views/compare.js";
import { ContributorsView } from "./views/contributors.js";
import { Frame } from "./views/frame.js";
import { LearningView } from "./views/learning.js";
import { ModelView } from "./views/model.js";
import { ModelsView } from "./views/models.js";
import { NewSessionView } from "./views/new_session.js";
import { SessionView } from "./views/session.js";
import { SessionsView } from "./views/sessions.js";

const VIEWS = {
  sessions: SessionsView, session: SessionView, new: NewSessionView, models: ModelsView, model: ModelView, compare: CompareView,
  learning: LearningView, contributors: ContributorsView,
};

function Unknown() {
  return html`<p class="notice bad">${t("page.unknown")}</p><p><a href="#/">${t("session.back")}</a></p>`;
}

function App() {
  useStore(languageStore);
  const main = useRef(null);
  const isFirst = useRef(true);
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const go = () => { showProblem(null); setRoute(parseRoute(location.hash)); };
    addEventListener("hashchange", go);
    return () => removeEventListener("hashchange", go);
  }, []);
  useEffect(() => {
    // whoever uses no mouse goes on reading where the new view begins
    if (!isFirst.current) {
      main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    isFirst.current = false;
  }, [route]);
  const { view, ...parameters } = route;
  const View = VIEWS[view] ?? Unknown;
  return html`<${Frame} view=${view} main=${main}><${View} key=${location.hash} ...${parameters} /></${Frame}>`;
}

await loadLanguage();
watchIdentity();
render(html`<${App} />`, document.getElementById("app"));
