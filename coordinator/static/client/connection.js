// Whether what is on the page is up to date: "live", "away" (and since when), or "" where neither can be said.
import { Store } from "./store.js";

export const connection = new Store({ state: "", since: null });

/** Say so; `since` is kept for as long as the coordinator is away. */
export function showConnection(state) {
  connection.update((known) => (known.state === state ? known : { state, since: state === "away" ? new Date() : null }));
}
