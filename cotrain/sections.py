"""The tables of a config file: each key with its meaning, unit, limits and default where it is declared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cotrain.described import DescribedModel

ModelType = Literal["llama2", "llama3", "gpt2", "bert", "roberta", "albert", "t5"]
ModelSize = Literal["nano", "tiny", "small", "7B", "8B", "13B", "70B"]
TaskName = Literal[
    "causal-lm", "masked-lm", "seq2seq-lm", "text-classification", "token-classification", "question-answering"
]
Precision = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["adam", "sgd", "adamw", "muon"]
Scheduler = Literal["cosine", "linear", "constant", "wsd"]
Strategy = Literal["diloco", "ddp", "fsdp"]
Codec = Literal["int4", "int8", "fp32"]
OuterRule = Literal["nesterov", "average"]
Aggregation = Literal["filter", "centered-clip", "median", "mean"]
SessionId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]

PRETRAINING_TASK: dict[ModelType, TaskName] = {
    "llama2": "causal-lm", "llama3": "causal-lm", "gpt2": "causal-lm",
    "bert": "masked-lm", "roberta": "masked-lm", "albert": "masked-lm", "t5": "seq2seq-lm",
}  # fmt: skip
"""What each architecture was made to learn from raw text: its task when none is named."""

UNDERSTANDING_TASKS: tuple[TaskName, ...] = ("text-classification", "token-classification", "question-answering")
"""Tasks that put a small head on any architecture."""

_SMALL_SIZES: tuple[ModelSize, ...] = ("nano", "tiny", "small")
SIZES: dict[ModelType, tuple[ModelSize, ...]] = {
    "llama2": (*_SMALL_SIZES, "7B", "13B", "70B"), "llama3": (*_SMALL_SIZES, "8B", "70B"),
    "gpt2": _SMALL_SIZES, "bert": _SMALL_SIZES, "roberta": _SMALL_SIZES, "albert": _SMALL_SIZES, "t5": _SMALL_SIZES,
}  # fmt: skip
"""The preset sizes of each architecture."""


def refusal(model: ModelType, task: TaskName) -> str:
    """Why this architecture cannot learn this task; empty if it can."""
    if task in UNDERSTANDING_TASKS or task == PRETRAINING_TASK[model]:
        return ""
    if task == "seq2seq-lm":
        return f"{model} has no encoder and decoder: it cannot turn one text into another"
    if model == "t5":
        return "t5 writes its answer from an encoder: neither the next nor a masked token of its input is predicted"
    if task == "masked-lm":
        return f"{model} reads from the left only: it cannot fill a gap from both sides"
    return f"{model} reads in both directions: it would see the token that it is to predict"


# What a value may be, once for the file and for the requests that people send.
LARGEST_INTEGER = 2**62
"""Databases hold integers in 64 bits; this leaves room for adding to one."""
PositiveInt = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
"""Of samples, tokens, bytes or rounds, as peers report it."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NO_ZERO = r"^[^\x00]*$"
"""A database may refuse the character 0."""
Text = Annotated[str, Field(max_length=2000, pattern=NO_ZERO)]
Title = Annotated[str, Field(max_length=120, pattern=NO_ZERO)]
Source = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f]+$")]
"""A path, a catalog name or a Hugging Face id."""
Column = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Normalization = Literal["none", "persian"]
Attention = Literal["sdpa", "eager"]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
AccumulationSteps = Annotated[int, Field(ge=1, le=65536)]
LearningRate = Annotated[float, Field(gt=0.0, le=10.0)]
Epochs = Annotated[float, Field(gt=0.0, le=100_000.0)]
WarmupSteps = Annotated[int, Field(ge=0, le=10**12)]
GradientNorm = Annotated[float, Field(gt=0.0)]
Nodes = Annotated[int, Field(ge=1, le=10_000)]
Devices = Annotated[int, Field(ge=0, le=64)]
MinPeers = Annotated[int, Field(ge=1, le=1000)]
InnerSteps = Annotated[int, Field(ge=1, le=100_000)]
FragmentCount = Annotated[int, Field(ge=1, le=8)]
Momentum = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
OverlapSteps = Annotated[int, Field(ge=0, le=10_000)]
Temperature = Annotated[float, Field(gt=0.0, le=100.0)]
SequenceLength = Annotated[int, Field(ge=8, le=1_048_576)]
ValidationSplit = Annotated[float, Field(gt=0.0, lt=1.0)]
Batches = Annotated[int, Field(ge=1, le=100_000)]


class Section(DescribedModel):
    """One table of the file: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SessionSection(Section):
    """Which session this is."""

    id: SessionId = "local"
    """Identifier, also the prefix of everything the swarm keeps in the DHT."""
    name: Title = ""
    """What people call it."""
    description: Text = ""
    """What it is for."""
    seed: Seed = 0
    """Seed of the initial weights, the validation split and the data order."""
    runnable: Literal["laptop", "gpu", "server"] = "gpu"
    """The least machine that trains this in reasonable time: any laptop, one graphics card, a server of several."""


class ModelSection(Section):
    """What is trained."""

    type: ModelType = "llama3"
    """Architecture; of a `source` it is the source's own."""
    size: ModelSize = "nano"
    """Preset dimensions: nano about 1 M parameters, tiny about 10 M, small about 100 M; the others as published."""
    source: Source | None = None
    """A model to go on from, in place of `type` and `size`: a catalog name, a local folder, or a Hugging Face id."""
    precision: Precision | None = None
    """Arithmetic of the inner steps; absent: `train.mixed_precision` decides. Weights, averages and the outer step are
    always fp32."""
    dropout: Dropout | None = None
    """Share of activations dropped in training; absent: 0 for presets, a source's own."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the model with torch.compile: a slow first step, faster ones after it."""
    attention: Attention = "sdpa"
    """Implementation of attention."""


class TrainSection(Section):
    """The inner steps."""

    task: TaskName | None = None
    """What is learnt; absent: what the architecture was made to learn from raw text."""
    batch_size: BatchSize = 32
    """Samples in one forward pass."""
    gradient_accumulation_steps: AccumulationSteps = 4
    """Forward passes in one inner step."""
    learning_rate: LearningRate = 1e-3
    """Peak learning rate of the inner optimizer."""
    epochs: Epochs = 10.0
    """Passes of the whole swarm over the training samples; max_steps, where given, stands in its place."""
    max_steps: PositiveInt | None = None
    """Inner steps of each of `distributed.nodes` peers."""
    optimizer: Optimizer = "adamw"
    """Inner optimizer."""
    beta2: Share = 0.95
    """Decay of the mean of squared gradients in adam and adamw, and in the part of muon that is adamw."""
    lr_scheduler: Scheduler = "cosine"
    """Shape of the learning rate over the run's progress, after the warm-up; wsd: constant, then down at the end."""
    warmup_steps: WarmupSteps = 500
    """Inner steps of linear warm-up, at most a tenth of the run."""
    min_learning_rate_ratio: Fraction = 0.1
    """Where the schedule ends, as a share of the peak."""
    weight_decay: Fraction = 0.01
    """Weight decay, spared by norms and biases: decoupled in adamw and muon, an L2 term of the loss in adam and sgd."""
    max_grad_norm: GradientNorm = 1.0
    """Gradients are clipped to this norm."""
    mixed_precision: bool = True
    """Compute in bf16 (fp16 on older ones) on a GPU; `model.precision`, where given, decides instead."""
    early_stopping: bool = True
    """Stop when the validation loss no longer falls, and keep the best model."""
    early_stopping_patience: PositiveInt = 3
    """Evaluations in a row without a new best after which the run stops early."""

    @property
    def samples_per_step(self) -> int:
        """Samples in one inner step."""
        return self.batch_size * self.gradient_accumulation_steps


class DistributedSection(Section):
    """Who trains."""

    nodes: Nodes = 1
    """Nominal number of nodes: `max_steps` counts for each of them."""
    gpus_per_node: Devices = 0
    """Devices a node is expected to have; 0 means the processor."""
    strategy: Strategy = "diloco"
    """diloco: any number of nodes that meet at the end of rounds; ddp and fsdp: the devices of one machine, in step."""


class DilocoSection(Section):
    """The outer steps (DiLoCo, arXiv:2311.08105)."""

    inner_steps: InnerSteps = 50
    """Inner steps between two averages of the same parameters."""
    fragments: FragmentCount = 1
    """Parts of the parameters, in strides of layers, that are averaged in turn (arXiv:2501.18512): a round then has
    `inner_steps / fragments` inner steps and sends that part alone."""
    warmup_share: Share = 0.0
    """Share of the run, in samples, that begins it with rounds of `warmup_inner_steps`, averaged plainly."""
    warmup_inner_steps: InnerSteps = 1
    """Inner steps in a round of that share: the fewer, the closer it comes to data-parallel training."""
    outer_optimizer: OuterRule = "nesterov"
    """nesterov: SGD with Nesterov momentum on the averaged pseudo-gradient; average: the average of all peers'
    parameters as it is, which leaves the next three keys unused."""
    outer_learning_rate: LearningRate = 0.7
    """Learning rate of the outer Nesterov SGD."""
    outer_momentum: Momentum = 0.8
    """Momentum of the outer Nesterov SGD, once ramped up."""
    momentum_ramp: Fraction = 0.5
    """Share of the run's rounds over which the outer momentum rises linearly from 0."""
    codec: Codec = "int4"
    """How pseudo-gradients and their averages are encoded on the wire, block by block."""
    overlap_steps: OverlapSteps | None = None
    """Inner steps that may run while a round is averaged; absent: a quarter of a round; 0: wait."""

    @property
    def round_steps(self) -> int:
        """Inner steps in a round."""
        return max(1, self.inner_steps // self.fragments)

    @property
    def overlap_limit(self) -> int:
        """Inner steps that may run while a round is averaged."""
        return self.round_steps // 4 if self.overlap_steps is None else self.overlap_steps


class SwarmSection(Section):
    """How peers meet."""

    min_peers: MinPeers = 1
    """Below this many peers in a round the outer state does not advance."""
    gather_s: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0
    """Seconds that the first peers wait for `distributed.nodes` of them before round 0."""
    max_round_s: Annotated[float, Field(ge=1.0, le=7 * 86_400.0)] = 3600.0
    """Seconds after which a round is proposed closed with what the peers have done by then."""
    grace: Fraction = 0.05
    """Share of its length by which a round may go on for peers that are about to finish; the others train meanwhile."""
    matchmaking_s: Annotated[float, Field(ge=1.0, le=300.0)] = 5.0
    """Seconds to look for a group before a round is tried again."""
    record_ttl_s: Annotated[float, Field(ge=3.0, le=600.0)] = 15.0
    """Seconds after its last record at which a peer counts as gone."""
    aggregation: Aggregation = "filter"
    """How contributions become an average: filter leaves out what is too long or points away from the rest, then takes
    the weighted mean; centered-clip, median and mean (which believes everybody) are for comparison."""


class DistillationSection(Section):
    """A teacher whose predictions are learnt beside the data's (Hinton et al., arXiv:1503.02531)."""

    enabled: bool = False
    """Whether there is one."""
    teacher: Source | None = None
    """A catalog name, a local folder, or a Hugging Face id; its vocabulary must be the student's."""
    temperature: Temperature = 2.0
    """Softens both distributions before they are compared."""
    alpha: Fraction = 0.5
    """Share of the loss that comes from the teacher; the rest comes from the data."""


class FieldsSection(Section):
    """What the columns of row formats (JSONL, CSV, Parquet) are called."""

    text: Column = "text"
    """Text to learn from or to classify."""
    pair: Column | None = None
    """Second text of a pair (natural language inference); absent: single texts."""
    label: Column = "label"
    """Class of a text: a name or a number."""
    source: Column = "source"
    """Text that is turned into `target`."""
    target: Column | None = None
    """Text to be written from `source`; absent: spans cut out of `text` are learnt (T5, arXiv:1910.10683)."""
    tokens: Column = "tokens"
    """List of words."""
    tags: Column = "tags"
    """List of their tags, one for each word, in the BIO scheme."""
    question: Column = "question"
    """Question about the context."""
    context: Column = "context"
    """Text that holds the answer."""
    answers: Column = "answers"
    """SQuAD's form: `{"text": [...], "answer_start": [...]}`, both empty where there is no answer."""


class DataSection(Section):
    """What is learnt from."""

    seq_length: SequenceLength = 256
    """Tokens in a sample; longer rows are cut, or split where the task can."""
    data_path: Source | None = None
    """A file or a folder of text, JSONL, CSV or Parquet, or a dataset saved by Hugging Face `datasets`; absent (and no
    `dataset`): the source text of Python's standard library."""
    dataset: Source | None = None
    """A catalog name or a Hugging Face id, in place of `data_path`."""
    tokenizer: Source | None = None
    """How text becomes tokens: `bytes` (one token for each byte), a local folder, or a Hugging Face id; absent: as
    `model.source` does it, else bytes."""
    normalization: Normalization | None = None
    """Unify the letters, digits and spaces of Persian text; absent: as the catalog says of the dataset, else none."""
    fields: FieldsSection = FieldsSection()
    validation_split: ValidationSplit = 0.2
    """Share of the documents (rows, in row formats) that is kept for validation, chosen by seed and content."""


class CheckpointSection(Section):
    """What is kept."""

    interval: PositiveInt = 100
    """Inner steps between checkpoints, rounded up to a round's end."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """The newest checkpoints that are kept, beside the best one."""
    output_path: Source | None = None
    """Where the final model goes (`<output_path>/final`); absent: the data folder's `models/final/<session>`."""


class MonitoringSection(Section):
    """What is shown."""

    status_interval_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    """Seconds between two snapshots of `status.json` at most; every change of phase is written at once."""
    evaluation_rounds: PositiveInt = 1
    """The model is evaluated every this many rounds (of `diloco.inner_steps`, whatever the strategy)."""
    evaluation_batches: Batches = 16
    """Batches of the validation split in one evaluation."""
