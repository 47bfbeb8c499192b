// The few facts that the page takes from a session's TOML, in the canonical form that the coordinator writes. Pure.

const PACKED_TASKS = ["causal-lm", "masked-lm"];

/** The value of `key` in `[section]` as it stands there; null if it is not given. */
function valueOf(toml, section, key) {
  const body = toml.split(/^\[/m).find((part) => part.startsWith(`${section}]`)) ?? "";
  return new RegExp(`^${key} = (.+)$`, "m").exec(body)?.[1] ?? null;
}

const PRETRAINING = { bert: "masked-lm", roberta: "masked-lm", albert: "masked-lm", t5: "seq2seq-lm" };

/**
 * Tokens in every sample; null where samples are texts of different lengths. A task that is not named is the one that the
 * architecture was made for.
 */
export function tokensPerSample(toml) {
  const architecture = JSON.parse(valueOf(toml, "model", "type") ?? '""');
  const task = JSON.parse(valueOf(toml, "train", "task") ?? '""') || (PRETRAINING[architecture] ?? "causal-lm");
  const length = Number(valueOf(toml, "data", "seq_length"));
  return PACKED_TASKS.includes(task) && Number.isInteger(length) && length > 0 ? length : null;
}
