"""What a session asks of each node: memory, and bytes sent and received in a round. Pure, without torch.

Memory is estimated from above, at the worst moment of a round; `benchmarks/memory.py` compares it with real nodes
(docs/LOG.md has the ratios). Times are not estimated: they depend on machines that nobody knows yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cotrain.config import RunConfig
from cotrain.dimensions import Dimensions
from cotrain.parameters import ParameterCount
from cotrain.sections import UNDERSTANDING_TASKS, Codec, ModelType

FP32_BYTES = 4
HALF_BYTES = 2
CODEC_BLOCK = 256
CODEC_BITS: dict[Codec, int] = {"int4": 4, "int8": 8, "fp32": 32}
SCALE_BYTES = 2
PART_VALUES = 2**20
"""Values in a part of the vector; an audit repeats one part."""

PROGRAM_BYTES = 800 * 2**20
"""Python, torch, hivemind and p2pd, before there is a model. Measured beside other processes that share its libraries:
about 0.6 GiB."""
GPU_PROGRAM_BYTES = 2**30
"""What the driver and its libraries keep on a GPU. Not measured."""
USABLE_SHARE = 0.9
"""Of a machine's memory; the rest is the system's."""

# Values that are kept for the backward pass, for each token and layer, in widths of the model and of its feed-forward
# layers. Counted with torch's hooks for saved tensors on nano presets in fp32, and rounded up.
_KEPT: dict[ModelType, tuple[float, float]] = {
    "llama2": (10.5, 4), "llama3": (10.5, 4), "gpt2": (8.5, 5), "bert": (9, 2), "roberta": (9, 2), "albert": (9, 5),
    "t5": (10, 4),
}  # fmt: skip
_SECOND_ATTENTION = 5.0
"""Widths of the model that a decoder's attention to the encoder adds."""
_LOGIT_BYTES = 16
"""For each token and word of the vocabulary: logits, their logarithms, and the gradients of both."""
_ALLOCATOR_SHARE = 1.25
"""What the allocator holds for activations and their gradients, over what is kept."""
_SCORE_BYTES, _DROPPED_SCORE_BYTES = 4, 12
"""For each head and pair of tokens, where attention keeps its scores; with dropout."""

# What a node holds of n parameters, in fp32 vectors.
_STATE_VECTORS = 4
"""In memory shared between processes: two outer states, each of parameters and momentum."""
_INHERITED_VECTORS = 1
"""The initial weights stay with the processes that were forked before they changed."""
_GROUPS = 3
"""Two are kept, and the next one begins; each holds its contribution."""
_BEGUN_VECTORS = 1
"""Local weights at the end of the round that is being averaged, while inner steps go on."""
_CATCH_UP_VECTORS = 3
"""An outer state on its way, and the one that local progress was made from; no activations are held then."""
_KEPT_ROUNDS = 4
"""Whose encoded averages are kept for those who missed them."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is built.

    Attributes:
        count: its parameters; of a source, as well as its size tells.
        vocabulary: tokens that it tells apart.
    """

    type: ModelType
    dimensions: Dimensions
    count: ParameterCount
    vocabulary: int
    teacher_bytes: int = 0
    """Weights of the teacher, where there is one."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of memory that one node needs at most.

    Attributes:
        devices: GPUs of the node; 0 if it trains on its processor.
        weights_bytes, gradients_bytes, optimizer_bytes, activations_bytes: of each GPU, or of the processor. Copies of
            the weights in half precision and a teacher count as weights.
        outer_state_bytes: in shared memory (/dev/shm), which containers limit.
        averaging_bytes: of the process that averages.
        rounds_bytes: copies in the training process at the end of a round, or when it catches up with the others.
        program_bytes: whatever the model.
    """

    devices: int
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    outer_state_bytes: int
    averaging_bytes: int
    rounds_bytes: int
    program_bytes: int

    @property
    def gpu_bytes(self) -> int:
        """Of each GPU; 0 without one."""
        return self._inner_bytes + GPU_PROGRAM_BYTES if self.devices else 0

    @property
    def total_bytes(self) -> int:
        """Of the machine's own memory."""
        outer = self.outer_state_bytes + self.averaging_bytes + self.rounds_bytes + self.program_bytes
        return outer if self.devices else outer + self._inner_bytes

    @property
    def _inner_bytes(self) -> int:
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.activations_bytes


@dataclass(frozen=True)
class TrafficEstimate:
    """Bytes that one node sends and receives, control messages left out; all nominal nodes take part.

    Attributes:
        sent_bytes, received_bytes: in a round, on average over rounds and nodes: its part of the averaging, of the
            audits, and of what the checkpointer fetches.
        averaging_bytes: the averaging alone, each way.
        join_bytes: received once, when the node joins: the outer state. Data and models come on top.
        round_steps: inner steps in a round.
    """

    sent_bytes: int
    received_bytes: int
    averaging_bytes: int
    join_bytes: int
    round_steps: int


@dataclass(frozen=True)
class Estimate:
    """What a session asks of each node."""

    parameters: int
    memory: MemoryEstimate
    traffic: TrafficEstimate


def estimate(config: RunConfig, facts: ModelFacts) -> Estimate:
    """Memory and traffic of each node of a session."""
    return Estimate(facts.count.total, estimate_memory(config, facts), estimate_traffic(config, facts.count.total))


# ---------------------------------------------------------------------------------------------- memory
def estimate_memory(config: RunConfig, facts: ModelFacts) -> MemoryEstimate:
    """Memory of a node at the worst moment of a round."""
    devices, vector = config.distributed.gpus_per_node, FP32_BYTES * facts.count.total
    shards = devices if config.distributed.strategy == "fsdp" and devices else 1
    activations = _activations(config, facts)
    half_copy = HALF_BYTES * facts.count.total if _is_half(config) else 0
    on_processor = 0 if devices else activations
    others = max(0, devices - 1)  # processes beside the first, each with an outer state and local weights
    rounds = max(_BEGUN_VECTORS * vector, _CATCH_UP_VECTORS * vector - on_processor)
    fragment = FP32_BYTES * _largest_fragment(facts.count, config.diloco.fragments)
    return MemoryEstimate(
        devices=devices,
        weights_bytes=vector // shards + half_copy + facts.teacher_bytes,
        gradients_bytes=vector // shards,
        optimizer_bytes=_optimizer(config, facts.count) // shards,
        activations_bytes=activations,
        outer_state_bytes=_STATE_VECTORS * vector + fragment,
        averaging_bytes=_averaging(config, vector, fragment),
        rounds_bytes=rounds + others * _CATCH_UP_VECTORS * vector,
        program_bytes=PROGRAM_BYTES * (1 + others),
    )


def _is_half(config: RunConfig) -> bool:
    if config.model.precision is not None:
        return config.model.precision != "fp32"
    return config.train.mixed_precision and config.distributed.gpus_per_node > 0


def _optimizer(config: RunConfig, count: ParameterCount) -> int:
    """Two moments for each parameter with adam and adamw, one with sgd and for Muon's matrices."""
    values = {"sgd": count.total, "muon": 2 * count.total - count.matrices}
    return FP32_BYTES * values.get(config.train.optimizer, 2 * count.total)


def _averaging(config: RunConfig, vector: int, fragment: int) -> int:
    """Of the process that averages: groups, error feedback, encoded rounds, inherited weights.

    A peer encodes each part once, of its contribution or as the average, so error feedback is one vector, and that of
    the round which is not decided yet; of the parts that it reduces, each group keeps what it added, for audits.
    """
    nodes, codec = config.distributed.nodes, config.diloco.codec
    encoded = encoded_bytes(codec, fragment // FP32_BYTES)
    received = _GROUPS * encoded * (nodes - 1) // nodes
    reducing = (nodes + 2) * min(FP32_BYTES * PART_VALUES, fragment)
    feedback = vector + fragment + _GROUPS * fragment // nodes
    rounds = (_GROUPS + _KEPT_ROUNDS) * encoded + encoded_bytes(codec, vector // FP32_BYTES)
    return _INHERITED_VECTORS * vector + _GROUPS * fragment + feedback + received + rounds + reducing


def _largest_fragment(count: ParameterCount, fragments: int) -> int:
    """Values of the largest fragment, at most: layers are dealt out in turn, and the rest may go to one of them.

    Half a layer is added, since a decoder's layers are larger than an encoder's.
    """
    if fragments == 1:
        return count.total
    layers = (math.ceil(count.layers / fragments) + 0.5) * count.in_layers / count.layers
    return min(count.total, math.ceil(layers) + count.total - count.in_layers)


def _activations(config: RunConfig, facts: ModelFacts) -> int:
    """What one forward pass keeps on a device, and the working memory of one layer more."""
    size, section = facts.dimensions, config.model
    samples = math.ceil(config.train.batch_size / max(1, config.distributed.gpus_per_node))
    length = config.data.seq_length
    wide, inner = _KEPT[facts.type]
    token = wide * size.hidden_size + inner * size.intermediate_size
    layer = FP32_BYTES * length * token + _scores(config, facts.type) * size.heads * length * length
    second = FP32_BYTES * length * _SECOND_ATTENTION * size.hidden_size + layer if facts.type == "t5" else 0.0
    if section.activation_checkpointing:
        stacks = 2 if facts.type == "t5" else 1
        kept = FP32_BYTES * length * 1.2 * size.hidden_size * size.layers * stacks + layer + second
    else:
        kept = (layer + second) * (size.layers + 1)
    mask = 0 if config.task == "causal-lm" else FP32_BYTES * length * length
    logits = 0 if config.task in UNDERSTANDING_TASKS else _LOGIT_BYTES * length * facts.vocabulary
    return math.ceil(_ALLOCATOR_SHARE * samples * (kept + mask + logits))


def _scores(config: RunConfig, kind: ModelType) -> int:
    """Bytes of each attention score that are kept. A processor keeps them for dropout, T5 always does."""
    plain = config.model.attention == "eager" or kind == "t5"
    if config.model.dropout and (plain or not config.distributed.gpus_per_node):
        return _DROPPED_SCORE_BYTES
    return _SCORE_BYTES if plain else 0


# ---------------------------------------------------------------------------------------------- traffic
def encoded_bytes(codec: Codec, values: int) -> int:
    """Length of an encoded vector; see `cotrain/train/codec.py`."""
    bits = CODEC_BITS[codec]
    if bits == 32:
        return FP32_BYTES * values
    return math.ceil(values / CODEC_BLOCK) * (SCALE_BYTES + CODEC_BLOCK * bits // 8)


def estimate_traffic(config: RunConfig, parameters: int) -> TrafficEstimate:
    """Traffic of a node: its contribution to the others' parts, and its own part's average to each of them."""
    nodes, codec = config.distributed.nodes, config.diloco.codec
    values = math.ceil(parameters / config.diloco.fragments)
    encoded = encoded_bytes(codec, values)
    averaging = 2 * encoded * (nodes - 1) // nodes
    audit = 0
    if nodes > 1:  # one part a round: the others' contributions, and the reducer's own and its residual in fp32
        part = min(PART_VALUES, math.ceil(values / nodes))
        audit = (nodes - 1) * encoded_bytes(codec, part) + 2 * FP32_BYTES * part
    return TrafficEstimate(
        sent_bytes=averaging + (encoded + audit) // nodes,
        received_bytes=averaging + audit // nodes,
        averaging_bytes=averaging,
        join_bytes=2 * FP32_BYTES * parameters,
        round_steps=config.diloco.round_steps,
    )


# ---------------------------------------------------------------------------------------------- refusals
def fits(memory: MemoryEstimate, memory_bytes: int, gpu_bytes: int | None = None) -> str:
    """Why a node cannot take part, for people; empty if it can, as far as memory decides.

    `memory_bytes` is the machine's, `gpu_bytes` that of its smallest GPU where it is known.
    """
    usable = int(USABLE_SHARE * memory_bytes)
    if memory.total_bytes > usable:
        return (
            f"a node needs about {_gib(memory.total_bytes)} of memory, and one of {_gib(memory_bytes)} can give "
            f"{_gib(usable)}: {most_helpful(memory)}"
        )
    if gpu_bytes is not None and memory.gpu_bytes > gpu_bytes:
        return (
            f"a GPU needs about {_gib(memory.gpu_bytes)} of memory, and this one has {_gib(gpu_bytes)}: "
            f"{most_helpful(memory)}"
        )
    return ""


def shortage(memory: MemoryEstimate, reported: Sequence[int], min_peers: int) -> str:
    """Why nodes that report this much memory (bytes) cannot close a round; empty if enough of them can.

    Nodes that report 0 do not know how much they have, and are trusted.
    """
    able = [found for found in reported if found == 0 or not fits(memory, found)]
    if len(able) >= min_peers:
        return ""
    if len(able) == len(reported):
        return f"{min_peers} nodes are needed, {len(reported)} are here"
    return f"{min_peers} nodes are needed, {len(able)} of {len(reported)} are large enough: " + fits(
        memory, max(found for found in reported if found not in able)
    )


def most_helpful(memory: MemoryEstimate) -> str:
    """What makes a session smaller, in words of the request."""
    if memory.activations_bytes > memory.total_bytes // 2:
        return (
            "lower training.batchSize and raise training.gradientAccumulationSteps, shorten data.seqLength, or set "
            "model.activationCheckpointing"
        )
    return "take a smaller model.size"


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
