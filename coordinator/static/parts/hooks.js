// What components share: stores, the time, the page's title.
import { useEffect, useLayoutEffect, useState } from "./html.js";

/** The present state of a store; the component is drawn again when it changes. */
export function useStore(store) {
  const [state, setState] = useState(store.state);
  useEffect(() => {
    // as a function that answers: a state may be a function itself
    setState(() => store.state);
    return store.subscribe((next) => setState(() => next));
  }, [store]);
  return state;
}

/** The time in Unix seconds, anew every `everyMs`. */
export function useNow(everyMs) {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

/** Give the page this title, together with what it stands for: a screen reader reads it out as soon as that is there. */
export function useTitle(title) {
  useLayoutEffect(() => { document.title = title ? `${title} – cotrain` : "cotrain"; }, [title]);
}

/** What `load()` answers: {value, error}; asked anew when `inputs` change, and never shown once it is outdated. */
export function useLoaded(load, inputs) {
  const [loaded, setLoaded] = useState({ value: null, error: null });
  useEffect(() => {
    let isWanted = true;
    setLoaded({ value: null, error: null });
    load().then(
      (value) => { if (isWanted) setLoaded({ value, error: null }); },
      (error) => { if (isWanted) setLoaded({ value: null, error }); },
    );
    return () => { isWanted = false; };
  }, inputs);
  return loaded;
}

/** The last value that was not null: what is shown while something newer is asked for. */
export function useKept(value) {
  const [kept, setKept] = useState(value);
  useEffect(() => { if (value !== null) setKept(value); }, [value]);
  return value ?? kept;
}
