// The states that a session can be in, and what a page makes of them. Pure.

const RUNNING = ["training"];
const OPEN = ["pending", "waiting", "paused", "stopping"];
const FINAL = ["stopped", "completed", "failed", "cancelled"];

export const isRunning = (status) => RUNNING.includes(status);
export const isFinal = (status) => FINAL.includes(status);

/** The states in which a session may wait for something, as `waitingFor` says. */
export const mayWait = (status) => ["pending", "waiting"].includes(status);

/** The states in which a version of its model can be saved. */
export const isSavable = (status) => ["waiting", "training", "paused"].includes(status);

/** Groups for filtering a list. */
export const GROUPS = ["all", "running", "open", "draft", "ended"];

const MEMBERS = { running: RUNNING, open: OPEN, draft: ["draft"], ended: FINAL };

/** Sessions of a group whose name, description, id or owner has every word of `text`. */
export function filterSessions(sessions, { group, text }) {
  const words = text.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  return sessions.filter((session) => {
    if (group !== "all" && !MEMBERS[group].includes(session.status)) return false;
    const said = [session.name, session.description, session.id, session.owner].join(" ").toLocaleLowerCase();
    return words.every((word) => said.includes(word));
  });
}

/** How many sessions each group has. */
export function countGroups(sessions) {
  return Object.fromEntries(GROUPS.map((group) => [group, filterSessions(sessions, { group, text: "" }).length]));
}
