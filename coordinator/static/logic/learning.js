// Learning cycles: what they came to, in words and as a curve. Pure.

const TRIGGERS = { hand: "learning.byHand", timer: "learning.byTimer", request: "learning.byRequest" };

/** Why `cotrain.learn` refuses a chat; where another reason comes, it is shown as it is. */
const REASONS = {
  "rated down": "refused.ratedDown", "not valid text": "refused.notText", empty: "refused.empty",
  "too large": "refused.tooLarge", "prompt injection": "refused.injection", "other language": "refused.otherLanguage",
  "another language": "refused.answersInAnother", "too short": "refused.tooShort", "too long": "refused.tooLong",
  repetitive: "refused.repetitive", unfinished: "refused.unfinished", "asks instead of answering": "refused.asksBack",
  "answers nothing": "refused.answersNothing", "not natural prose": "refused.notProse",
  "not about the question": "refused.offTopic", "repeats the question": "refused.echo", "low score": "refused.lowScore",
};

/** The key of the text that says who began a cycle. */
export const triggerKey = (trigger) => TRIGGERS[trigger];

/** [count, key or null, reason] of each reason for which chats were refused, the most frequent first. */
export function refusals({ refused }) {
  const listed = Object.entries(refused).filter(([, count]) => count > 0);
  listed.sort(([one, a], [other, b]) => b - a || (one < other ? -1 : 1));
  return listed.map(([reason, count]) => [count, REASONS[reason] ?? null, reason]);
}

/** What a cycle came to; its stage, where that is not known yet. */
export const stateOf = ({ outcome, stage }) => (outcome === null ? stage : outcome);

/** Whether the cycle has made something of the data yet: before that all its figures are 0. */
export const hasFigures = ({ datasetVersion }) => datasetVersion !== null;

/** By how many percent the data have grown; null where there were none before. */
export const growthPercentOf = ({ originalSize, growthPercent }) => (originalSize === 0 ? null : growthPercent);

/** What share of the chats that a cycle needs has come, 0 to 1. */
export const readiness = ({ chats, minChats }) => Math.min(1, chats / minChats);

/** The cycles that made a version of the data, oldest first, and columns [Unix seconds, samples for training, held out]. */
export function growthOf(cycles) {
  const made = new Map();
  for (const cycle of [...cycles].reverse().filter(hasFigures)) made.set(Date.parse(cycle.startedAt) / 1000, cycle);
  const places = [...made.keys()].sort((a, b) => a - b);
  const drawn = places.map((place) => made.get(place));
  const columns = [places, drawn.map(({ finalSize }) => finalSize), drawn.map(({ heldOut }) => heldOut)];
  return { cycles: drawn, columns };
}

/** What tells two answers about learning apart: once it changes, the list of cycles is asked for again. */
export const markOf = ({ last, running }) => [last?.id, last?.updatedAt, last?.stage, running].join();
