// The form of a new session: its fields, and what is sent for them. Pure.
//
// What a field may hold and what it holds by default is not said here: the choices are those of the API's own document, the
// defaults those of the TOML that the coordinator would write, and the coordinator judges what is typed.

const text = (path, label) => ({ path, label, kind: "text" });
const number = (path, label) => ({ path, label, kind: "number" });
const choice = (path, label) => ({ path, label, kind: "choice" });
const flag = (path, label) => ({ path, label, kind: "flag" });

/** Groups of fields in the order of the form; `isBasic`: it is open from the start. `list`: a catalog to choose from. */
export const GROUPS = [
  { title: "new.about", isBasic: true, fields: [
    { ...text("name", "field.name"), isRequired: true },
    { path: "description", label: "field.description", kind: "long" },
    choice("visibility", "field.visibility"),
  ] },
  { title: "new.model", isBasic: true, fields: [
    choice("model.type", "field.modelType"), choice("model.size", "field.modelSize"),
    { ...text("model.source", "field.modelSource"), list: "models" }, choice("model.precision", "field.precision"),
  ] },
  { title: "new.data", isBasic: true, fields: [
    { ...text("data.dataset", "field.dataset"), list: "datasets" }, choice("training.task", "field.task"),
    number("data.seqLength", "field.seqLength"), number("training.validationSplit", "field.validationSplit"),
  ] },
  { title: "new.nodes", isBasic: true, fields: [
    number("distributed.nodes", "field.nodes"), number("distributed.minPeers", "field.minPeers"),
    number("distributed.gpusPerNode", "field.gpusPerNode"), choice("distributed.strategy", "field.strategy"),
    choice("distributed.aggregation", "field.aggregation"),
  ] },
  { title: "new.training", isBasic: true, fields: [
    number("training.epochs", "field.epochs"), number("training.maxSteps", "field.maxSteps"),
    number("training.batchSize", "field.batchSize"), number("training.gradientAccumulationSteps", "field.accumulation"),
    number("training.learningRate", "field.learningRate"), choice("training.optimizer", "field.optimizer"),
  ] },
  { title: "new.schedule", isBasic: false, fields: [
    choice("training.lrScheduler", "field.scheduler"), number("training.warmupSteps", "field.warmupSteps"),
    number("training.weightDecay", "field.weightDecay"), number("training.maxGradNorm", "field.maxGradNorm"),
    number("training.beta2", "field.beta2"), flag("training.mixedPrecision", "field.mixedPrecision"),
    flag("training.enableEarlyStopping", "field.earlyStopping"), number("training.earlyStoppingPatience", "field.patience"),
    number("training.saveCheckpointEvery", "field.checkpointEvery"), number("seed", "field.seed"),
  ] },
  { title: "new.rounds", isBasic: false, fields: [
    number("diloco.innerSteps", "field.innerSteps"), number("diloco.fragments", "field.fragments"),
    choice("diloco.codec", "field.codec"), number("diloco.overlapSteps", "field.overlapSteps"),
    choice("diloco.outerOptimizer", "field.outerOptimizer"), number("diloco.outerLearningRate", "field.outerLearningRate"),
    number("diloco.outerMomentum", "field.outerMomentum"), number("diloco.momentumRamp", "field.momentumRamp"),
  ] },
  { title: "new.distillation", isBasic: false, fields: [
    flag("training.enableDistillation", "field.distillation"),
    { ...text("distillation.teacher", "field.teacher"), list: "models" },
    number("distillation.temperature", "field.temperature"), number("distillation.alpha", "field.alpha"),
  ] },
  { title: "new.more", isBasic: false, fields: [
    text("data.tokenizer", "field.tokenizer"), text("data.dataPath", "field.dataPath"),
    choice("data.normalization", "field.normalization"), number("model.dropout", "field.dropout"),
    flag("model.activationCheckpointing", "field.activationCheckpointing"), flag("model.compile", "field.compile"),
    number("monitoring.evaluationRounds", "field.evaluationRounds"),
    number("monitoring.evaluationBatches", "field.evaluationBatches"),
    number("schedule.priority", "field.priority"), flag("schedule.allowSameDataset", "field.allowSameDataset"),
  ] },
];

export const FIELDS = GROUPS.flatMap(({ fields }) => fields);

/** What stands elsewhere in the TOML than its path says. */
const MOVED = {
  "training.enableEarlyStopping": "train.early_stopping", "training.saveCheckpointEvery": "checkpoint.interval",
  "training.validationSplit": "data.validation_split", "training.enableDistillation": "distillation.enabled",
  "distributed.minPeers": "swarm.min_peers", "distributed.aggregation": "swarm.aggregation",
};
const SECTIONS = { training: "train" };

/** `training.batchSize` -> `train.batch_size`; null for what the TOML does not have. */
export function tomlKey(path) {
  if (path in MOVED) return MOVED[path];
  const [part, name] = path.includes(".") ? path.split(".") : ["session", path];
  if (part === "schedule" || path === "visibility") return null;
  return `${SECTIONS[part] ?? part}.${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`;
}

/** Key -> value as it is written, for each `key = value` of a canonical TOML. */
export function tomlValues(toml) {
  const values = new Map();
  let section = "";
  for (const line of toml.split("\n")) {
    const [, header] = /^\[([\w.]+)\]$/.exec(line) ?? [];
    const [, key, value] = /^(\w+) = (.+)$/.exec(line) ?? [];
    if (header) section = header;
    else if (key) values.set(`${section}.${key}`, value.replace(/^"(.*)"$/, "$1"));
  }
  return values;
}

/** The schema that `schema` stands for: references are followed, and of alternatives the one that is not null is taken. */
function resolved(api, schema) {
  if (schema === undefined) return {};
  if (schema.$ref) return resolved(api, api.components.schemas[schema.$ref.split("/").at(-1)]);
  const alternatives = (schema.anyOf ?? []).filter(({ type }) => type !== "null");
  if (alternatives.length === 0) return schema;
  return { ...resolved(api, alternatives[0]), ...("default" in schema ? { default: schema.default } : {}) };
}

/** Path -> {choices, initial} as the API's document says of a SessionRequest; `initial` null where the config decides. */
export function fieldFacts(api) {
  return new Map(FIELDS.map(({ path }) => {
    let schema = { $ref: "#/components/schemas/SessionRequest" };
    for (const name of path.split(".")) schema = resolved(api, schema).properties?.[name];
    const found = resolved(api, schema);
    return [path, { choices: found.enum ?? (found.const === undefined ? [] : [found.const]), initial: found.default ?? null }];
  }));
}

const READ = { number: Number, flag: (value) => value === "true", text: String, long: String, choice: String };

/** The body of a request from what was typed, path -> text; what was left empty is left out. */
export function requestOf(values) {
  const request = {};
  for (const { path, kind } of FIELDS) {
    const typed = (values[path] ?? "").trim();
    if (typed === "") continue;
    const names = path.split(".");
    const part = names.length === 1 ? request : (request[names[0]] ??= {});
    part[names.at(-1)] = READ[kind](typed);
  }
  return request;
}

/** Path -> what is wrong there, from a refusal of the API; under "" what belongs to no field of the form. */
export function problemsByField({ errors, field, detail, hint }) {
  const paths = new Set(FIELDS.map(({ path }) => path));
  const all = errors?.length > 0 ? errors : [{ field, message: detail, hint }];
  const found = new Map();
  for (const { field: place, message, hint: way } of all) {
    const path = paths.has(place) ? place : "";
    const said = [path === "" && place ? `${place}: ${message}` : message, way].filter(Boolean).join(": ");
    found.set(path, [found.get(path), said].filter(Boolean).join(" "));
  }
  return found;
}
