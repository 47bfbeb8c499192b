// What a view keeps up to date by asking again.
import { AwayError } from "../client/api.js";
import { showConnection } from "../client/connection.js";
import { showProblem } from "../client/problem.js";
import { refresher } from "../client/refresher.js";
import { useEffect, useRef, useState } from "./html.js";

/**
 * What `load()` answers, asked anew `everyMs` after each answer and when `inputs` change: {value, ask}, value null before the
 * first one; `ask()` asks at once. The page says meanwhile whether the coordinator answers.
 */
export function useRefreshed(load, everyMs, inputs) {
  const [value, setValue] = useState(null);
  const asking = useRef(null);
  useEffect(() => {
    const show = (answer) => { showProblem(null); showConnection("live"); setValue(answer); };
    const explain = (error) => (error instanceof AwayError ? showConnection("away") : showProblem(error));
    asking.current = refresher(load, show, explain, everyMs);
    asking.current.ask();
    return asking.current.stop;
  }, [everyMs, ...inputs]);
  useEffect(() => () => showConnection(""), []);
  return { value, ask: () => asking.current.ask() };
}
