// The page /link: a wallet lets a node in that has none.
import { loadLanguage } from "./client/i18n.js";
import { html, render } from "./parts/html.js";
import { LinkPage } from "./views/link.js";

await loadLanguage();
render(html`<${LinkPage} />`, document.getElementById("app"));
