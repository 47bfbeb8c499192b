// Components that cost something to draw, and are drawn only when they must be: a session changes several times a second.
import { languageStore } from "../client/i18n.js";
import { Component, html } from "./html.js";

/** The component, drawn again when one of its properties is another one, or the language. */
export function pure(View) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const names = new Set([...Object.keys(next), ...Object.keys(this.props)]);
      return this.language !== languageStore.state || [...names].some((name) => next[name] !== this.props[name]);
    }

    render(properties) {
      this.language = languageStore.state;
      return html`<${View} ...${properties} />`;
    }
  };
}
