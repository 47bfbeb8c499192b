// What went wrong last, for people; null when it is over.
import { Store } from "./store.js";

export const problem = new Store(null);

export const showProblem = (error) => problem.update(() => error);
