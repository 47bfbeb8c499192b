// What a session is doing now, as its peers say. Pure.

/** The phase that most participants who are online are in (the later one of a tie), else the checkpointer's; null if none. */
export function phaseOf(participants, checkpointer) {
  const order = ["starting", "joining", "downloading", "training", "averaging", "finishing", "done"];
  const counts = new Map();
  for (const { state, phase } of participants) {
    if ((state === "online" || state === "joining") && phase) counts.set(phase, (counts.get(phase) ?? 0) + 1);
  }
  const [most] = [...counts].sort((a, b) => b[1] - a[1] || order.indexOf(b[0]) - order.indexOf(a[0]));
  return most?.[0] ?? checkpointer?.phase ?? null;
}

/** How many participants are in each of the four states, and the sums of what those say who are online. */
export function census(participants) {
  const states = { online: 0, joining: 0, unreachable: 0, offline: 0 };
  let [tokens, sent, received] = [0, 0, 0];
  for (const person of participants) {
    states[person.state] += 1;
    tokens += person.tokens ?? 0;
    sent += person.bytesSent ?? 0;
    received += person.bytesReceived ?? 0;
  }
  return { states, tokens, bytesSent: sent, bytesReceived: received };
}

/** Share, 0 to 1, that each participant has of all samples credited; by its tokens where nothing is credited yet. */
export function sharesOf(participants) {
  const isCredited = participants.some(({ credit }) => credit.samples > 0);
  const given = participants.map((person) => (isCredited ? person.credit.samples : person.tokens));
  const total = given.reduce((sum, value) => sum + value, 0);
  return new Map(participants.map((person, index) => [person.id, total > 0 ? given[index] / total : null]));
}
