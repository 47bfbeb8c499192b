"""What the demo asks for, and how it sums a finished session up from what the REST API says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cotrain.request import CamelModel

Get = Callable[[str], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Preset:
    """A session that a small machine finishes; the settings are those measured to learn well at this size."""

    max_steps: int
    inner_steps: int
    batch_size: int
    seq_length: int
    evaluation_rounds: int
    evaluation_batches: int

    def request(self, peers: int) -> dict[str, Any]:
        """The SessionRequest for `peers` nodes. More nodes share the same work: the machine does not grow."""
        steps = max(self.inner_steps, self.max_steps * 2 // max(2, peers))
        return {
            "name": "Demo",
            "description": "Learns to write Python from the source text of Python's standard library.",
            "model": {"type": "llama3", "size": "nano"},
            "training": {
                "batchSize": self.batch_size, "gradientAccumulationSteps": 1, "learningRate": 0.002,
                "maxSteps": steps, "warmupSteps": max(1, steps // 10), "weightDecay": 0.1,
                "validationSplit": 0.1, "saveCheckpointEvery": 50, "enableEarlyStopping": False,
            },
            "distributed": {"nodes": peers},
            "diloco": {"innerSteps": self.inner_steps, "outerLearningRate": 0.7, "outerMomentum": 0.8},
            "data": {"seqLength": self.seq_length},
            "monitoring": {
                "evaluationRounds": self.evaluation_rounds, "evaluationBatches": self.evaluation_batches,
            },
        }  # fmt: skip


PRESETS = {
    "nano": Preset(
        max_steps=420, inner_steps=10, batch_size=16, seq_length=128, evaluation_rounds=4, evaluation_batches=8
    ),
    "tiny-test": Preset(
        max_steps=48, inner_steps=4, batch_size=4, seq_length=64, evaluation_rounds=4, evaluation_batches=4
    ),
}


class Summary(CamelModel):
    """How the demo went. Losses are nats per token (here: per byte)."""

    initial_val_loss: float
    final_val_loss: float
    bigram_loss: float
    rounds: int
    rounds_together: int
    """Rounds closed by all nodes together."""
    peers: int
    digests_equal: bool
    """Whether every peer, the checkpointer included, held the same outer state after every round it took part in."""
    compute_fraction: float
    """Time in inner steps over wall time, from the first inner step to the end."""
    bytes_per_param_per_round: float
    """Bytes that a peer sent, per parameter and round."""
    tokens_per_second: float
    """Of all peers together."""
    wall_seconds: float
    """Of the whole demo, starting and stopping included."""
    model_path: str
    sample: str


async def summarize(get: Get, session: str, *, wall_s: float) -> Summary:
    """Ask the coordinator what became of a completed session."""
    path = f"/api/v1/sessions/{session}"
    progress = await get(f"{path}/progress")
    participants = await all_items(get, f"{path}/participants")
    logs = await all_items(get, f"{path}/logs")
    evaluations = [log["data"] for log in logs if log["kind"] == "evaluation"]
    rounds = [log for log in logs if log["kind"] == "round"]
    trained = [peer for peer in participants if peer["wallSeconds"] > 0]
    member_counts = _members_by_round(rounds)
    sent = sum(peer["bytesSent"] for peer in trained)
    peer_rounds = sum(member_counts.values())
    return Summary(
        initial_val_loss=min(evaluations, key=lambda data: data["round"])["validationLoss"],
        final_val_loss=max(evaluations, key=lambda data: data["round"])["validationLoss"],
        bigram_loss=progress["baselines"]["bigrams"],
        rounds=progress["round"],
        rounds_together=sum(count == len(participants) for count in member_counts.values()),
        peers=len(trained),
        digests_equal=digests_are_equal(rounds),
        compute_fraction=sum(p["computeSeconds"] for p in trained) / sum(p["wallSeconds"] for p in trained),
        bytes_per_param_per_round=sent / max(1, progress["parameters"] * peer_rounds),
        tokens_per_second=sum(p["tokens"] / p["wallSeconds"] for p in trained),
        wall_seconds=wall_s,
        model_path=progress["modelPath"],
        sample=next((log["data"]["sample"] for log in logs if "sample" in log["data"]), ""),
    )


async def all_items(get: Get, path: str) -> list[dict[str, Any]]:
    """Every item of the list at `path`, page by page, in its order."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await get(f"{path}?limit=200{cursor}")
        items += page["items"]
        if page["nextCursor"] is None:
            return items
        cursor = f"&cursor={quote(page['nextCursor'])}"


def _members_by_round(rounds: list[dict[str, Any]]) -> dict[int, int]:
    """How many members closed each round, as its members say."""
    members: dict[int, int] = {}
    for log in rounds:
        if "members" in log["data"]:
            round_ = log["data"]["round"]
            members[round_] = max(members.get(round_, 0), len(log["data"]["members"]))
    return members


def digests_are_equal(rounds: list[dict[str, Any]]) -> bool:
    """Whether all peers that report a round report the same digest for it, and at least two sources report."""
    digests: dict[int, set[str]] = {}
    for log in rounds:
        digests.setdefault(log["data"]["round"], set()).add(log["data"]["digest"])
    several = len({log["source"] for log in rounds}) > 1
    return several and all(len(held) == 1 for held in digests.values())


def summary_lines(summary: Summary) -> list[str]:
    """The summary for people."""
    better = "below" if summary.final_val_loss < summary.bigram_loss else "NOT below"
    digests = "equal on all peers after every round" if summary.digests_equal else "DIFFERENT between peers"
    sample = "\n".join(f"  | {line}" for line in summary.sample.splitlines())
    return [
        "",
        f"  validation loss  {summary.initial_val_loss:.3f} -> {summary.final_val_loss:.3f} nats per byte, "
        f"{better} a bigram count model of the same text ({summary.bigram_loss:.3f})",
        f"  rounds           {summary.rounds}, {summary.rounds_together} of them closed by all {summary.peers} peers",
        f"  outer state      {digests}",
        f"  computing        {summary.compute_fraction:.1%} of the wall time, "
        f"{summary.tokens_per_second:,.0f} tokens/s together",
        f"  sent             {summary.bytes_per_param_per_round:.3f} bytes per parameter, round and peer",
        f"  took             {summary.wall_seconds:.0f} s",
        f"  model            {summary.model_path}",
        "  it writes",
        sample,
    ]
