// Who gave how much, over several sessions. Pure.

function added(known, { person, session, tokensPerSample }) {
  const { samples, rounds } = person.credit;
  const tokens = tokensPerSample === null ? null : samples * tokensPerSample;
  const before = known.sessions.get(session.id) ?? { id: session.id, name: session.name, samples: 0, rounds: 0, tokens: null };
  known.sessions.set(session.id, {
    ...before, samples: before.samples + samples, rounds: before.rounds + rounds,
    tokens: tokens === null ? before.tokens : (before.tokens ?? 0) + tokens,
  });
  if (person.name) known.names.add(person.name);
  return known;
}

const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);

/**
 * Wallets, those that gave the most samples first: {account, names, sessions, samples, rounds, tokens}. `entries` are {session,
 * participants, tokensPerSample}; tokens are counted where samples have a fixed length (null where none has). What is given is
 * what the rounds' decisions bear out, not what participants say.
 */
export function contributionsOf(entries) {
  const byAccount = new Map();
  for (const { session, participants, tokensPerSample } of entries) {
    for (const person of participants) {
      const known = byAccount.get(person.account) ?? { names: new Set(), sessions: new Map() };
      byAccount.set(person.account, added(known, { person, session, tokensPerSample }));
    }
  }
  const all = [...byAccount].map(([account, { names, sessions }]) => {
    const list = [...sessions.values()];
    const counted = list.filter(({ tokens }) => tokens !== null);
    return {
      account, names: [...names], sessions: list, samples: sum(list.map(({ samples }) => samples)),
      rounds: sum(list.map(({ rounds }) => rounds)),
      tokens: counted.length === 0 ? null : sum(counted.map(({ tokens }) => tokens)),
    };
  });
  return all.sort((a, b) => b.samples - a.samples || a.account.localeCompare(b.account));
}
