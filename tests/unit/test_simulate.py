"""A whole swarm in one process: the same arithmetic as a real peer's, on a virtual clock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.config import RunConfig
from cotrain.errors import ConfigError, MemoryShortageError, SwarmError
from cotrain.paths import SharedPaths
from cotrain.sections import (
    DataSection,
    DilocoSection,
    DistributedSection,
    MonitoringSection,
    SwarmSection,
    TrainSection,
)
from cotrain.swarm.aggregate import weighted_mean
from cotrain.swarm.feedback import ErrorFeedback
from cotrain.swarm.scenario import check_memory, data_parallel_config, make_scenario, simulated_config
from cotrain.swarm.simulate import SimulatedSwarm, simulate
from cotrain.swarm.simulated_peers import average_in_memory
from cotrain.swarm.simulated_training import Material, load_material
from cotrain.swarm.simulation_report import (
    MissingPackageError,
    SimulationReport,
    plot_curves,
    require_plots,
    summary_lines,
)
from cotrain.train.codec import make_codec
from cotrain.train.diloco import OuterState, RoundLengths
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import ControlFile, StatusReporter
from cotrain.train.synchronizer import LocalSynchronizer
from cotrain.train.trainer import Trainer

TEXT = Path(__file__).parents[2] / "LICENSE"
INNER_STEPS = 2
BATCH = 2


def config(
    *, peers: int, max_steps: int = 6, overlap: int = 0, codec: Any = "int4", aggregation: Any = "filter", **train: Any
) -> RunConfig:
    return RunConfig(
        train=TrainSection(
            batch_size=BATCH, gradient_accumulation_steps=1, max_steps=max_steps, learning_rate=3e-3, **train
        ),
        diloco=DilocoSection(inner_steps=INNER_STEPS, overlap_steps=overlap, codec=codec),
        distributed=DistributedSection(nodes=peers),
        swarm=SwarmSection(aggregation=aggregation),
        data=DataSection(seq_length=32),
        monitoring=MonitoringSection(evaluation_batches=2),
    )


def scenario(peers: int, *, speeds: str = "1", drop: float = 0.0, byzantine: str = "", averaging_s: float = 0.0) -> Any:
    return make_scenario(peers, speeds=speeds, drop=drop, byzantine=byzantine, averaging_s=averaging_s)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return load(tmp_path_factory.mktemp("shared"))


def load(folder: Path) -> Material:
    text = folder / "text.txt"
    text.write_bytes(TEXT.read_bytes())
    settings = config(peers=1).model_copy(update={"data": DataSection(seq_length=32, data_path=str(text))})
    return load_material(settings, scenario(1), SharedPaths(folder).create(), ParallelGroup.from_environment())


@pytest.fixture(scope="module")
def run(material: Material) -> Callable[..., SimulationReport]:
    """Simulate from the weights that the material was built with, whatever was trained before."""
    initial = material.parameters()

    def run(settings: RunConfig, **happening: Any) -> SimulationReport:
        material.judge.load_weights(initial)
        return simulate(settings, scenario(settings.distributed.nodes, **happening), material)

    return run


# ---------------------------------------------------------------------------------------------- the same arithmetic
def test_one_peer_ends_with_the_bits_of_a_trainer_alone(tmp_path: Path) -> None:
    settings = config(peers=1, max_steps=8, codec="fp32")
    simulated = load(tmp_path)
    with asyncio.Runner() as runner:
        swarm = SimulatedSwarm(settings, scenario(1), simulated, OuterState.initial(simulated.parameters()), runner)
        swarm.run(lambda row: None)
    alone = load(tmp_path).judge
    reporter = StatusReporter(tmp_path / "run", session="s", peer="p")
    trainer = Trainer(
        settings, alone, LocalSynchronizer(RoundLengths(INNER_STEPS)), reporter, ControlFile(tmp_path / "run")
    )
    assert swarm.state.round == 4
    assert swarm.state.digest() == trainer.run().digest()


def test_one_peer_warms_up_as_a_trainer_alone_does(tmp_path: Path) -> None:
    settings = config(peers=1, max_steps=8, codec="fp32")
    warming = settings.diloco.model_copy(update={"warmup_share": 0.3, "warmup_inner_steps": 1})
    settings = settings.model_copy(update={"diloco": warming})
    simulated = load(tmp_path)
    with asyncio.Runner() as runner:
        swarm = SimulatedSwarm(settings, scenario(1), simulated, OuterState.initial(simulated.parameters()), runner)
        swarm.run(lambda row: None)
    lengths = RoundLengths.from_config(settings, 8 * BATCH)
    reporter = StatusReporter(tmp_path / "run", session="s", peer="p")
    alone = Trainer(settings, load(tmp_path).judge, LocalSynchronizer(lengths), reporter, ControlFile(tmp_path / "run"))
    assert [row.steps for row in swarm.rows[1:]] == [(1,), (1,), (1,), (2,), (2,), (2,)]
    assert swarm.state.digest() == alone.run().digest()


@settings(max_examples=20)
@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=5).filter(any), st.integers(1, 2000), st.integers(0, 2**32 - 1)
)
def test_without_loss_in_the_codec_the_average_in_memory_is_the_weighted_mean(
    weights: list[float], numel: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    vectors = [torch.from_numpy(generator.standard_normal(numel, dtype=np.float32)) for _ in weights]
    members = [SimpleNamespace(name=f"peer{i}", feedback=ErrorFeedback(1)) for i in range(len(weights))]
    with asyncio.Runner() as runner:
        averaged = average_in_memory(
            cast(Any, members), vectors, weights, make_codec("fp32"), runner, aggregation="mean"
        )  # fmt: skip
    assert torch.equal(averaged.values, weighted_mean(vectors, weights))
    assert (averaged.bytes_sent > 0) == (len(weights) > 1)


def test_what_the_codec_lost_comes_with_the_next_average() -> None:
    numel, rounds = 1000, 40
    generator = np.random.default_rng(0)
    vectors = [torch.from_numpy(generator.standard_normal(numel, dtype=np.float32)) for _ in range(3)]
    members = [SimpleNamespace(name=f"peer{i}", feedback=ErrorFeedback(1)) for i in range(3)]
    codec, total, once = make_codec("int4"), torch.zeros(numel), torch.zeros(numel)
    with asyncio.Runner() as runner:
        for round_ in range(rounds):
            once = average_in_memory(
                cast(Any, members), vectors, [1.0] * 3, codec, runner, round_=round_, aggregation="mean"
            ).values
            total += once
    truth = weighted_mean(vectors, [1.0] * 3)
    assert float((once - truth).abs().max()) > 0.05
    assert float((total / rounds - truth).abs().max()) < 0.03


# ---------------------------------------------------------------------------------------------- rounds
def test_equal_peers_close_a_round_every_inner_steps_and_the_baseline_has_the_same_tokens(
    run: Callable[..., SimulationReport],
) -> None:
    report = run(config(peers=3, max_steps=6))
    assert [row.time_s for row in report.rounds] == [0.0, 2.0, 4.0, 6.0]
    assert [row.steps for row in report.rounds[1:]] == [(2, 2, 2)] * 3
    assert [row.samples for row in report.rounds] == [0, 12, 24, 36]
    assert all(row.bytes_sent > 0 and row.peers == 3 for row in report.rounds[1:])
    assert [point.step for point in report.data_parallel] == [0, 2, 4, 6]
    assert report.data_parallel[-1].tokens == report.rounds[-1].tokens == 36 * 32
    assert report.data_parallel[0].validation_loss == report.rounds[0].validation_loss
    assert report.validation_loss is not None
    assert report.data_parallel_validation_loss is not None
    assert report.rounds[0].validation_loss is not None
    assert max(report.validation_loss, report.data_parallel_validation_loss) < report.rounds[0].validation_loss
    assert report.ratio == report.validation_loss / report.data_parallel_validation_loss
    assert report.aggregation == "filter"
    assert not any(row.dropped for row in report.rounds)


def test_a_warm_up_of_plainly_averaged_rounds_is_not_evaluated(run: Callable[..., SimulationReport]) -> None:
    settings = config(peers=3, max_steps=6, codec="fp32")
    warming = settings.diloco.model_copy(update={"warmup_share": 0.3, "warmup_inner_steps": 1})
    report = run(settings.model_copy(update={"diloco": warming}))
    assert [row.steps for row in report.rounds[1:]] == [(1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)]
    assert [row.samples for row in report.rounds] == [0, 6, 12, 24, 36]
    assert [row.validation_loss is not None for row in report.rounds] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("speeds", "steps", "counted"),
    [
        ("1,1,2,4", (2, 2, 4, 8), (2, 2, 4, 8)),
        ("0.5,1,1,1", (1, 2, 2, 2), (1, 2, 2, 2)),
        ("0.3,1,1,1", (1, 2, 2, 2), (1, 2, 2, 2)),  # the round waits for the step under way
        ("1,1,1,9", (1, 1, 1, 8), (1, 1, 1, 4)),  # the fast one has had enough; it counts four times the median
    ],
)
def test_weights_follow_the_speeds_up_to_the_cap(
    run: Callable[..., SimulationReport], speeds: str, steps: tuple[int, ...], counted: tuple[int, ...]
) -> None:
    first = run(config(peers=4, max_steps=2), speeds=speeds).rounds[1]
    assert first.steps == steps
    assert first.weights == pytest.approx([count / sum(counted) for count in counted])
    assert first.samples == BATCH * sum(counted)


def test_inner_steps_go_on_while_an_average_is_made_and_count_in_the_next_round(
    run: Callable[..., SimulationReport],
) -> None:
    waiting = run(config(peers=2, overlap=0), averaging_s=2.0)
    assert [row.time_s for row in waiting.rounds] == [0.0, 4.0, 8.0, 12.0]
    overlapping = run(config(peers=2, overlap=1), averaging_s=2.0)
    assert [row.time_s for row in overlapping.rounds] == [0.0, 4.0, 7.0, 10.0]
    assert [row.steps for row in overlapping.rounds[1:]] == [(2, 2)] * 3


def test_a_dropped_contribution_counts_less_peers_and_a_majority_always_meets(
    run: Callable[..., SimulationReport],
) -> None:
    report = run(config(peers=4, max_steps=16), drop=0.25)
    counted = [row.peers for row in report.rounds[1:]]
    assert set(counted) == {3, 4}
    assert [len(row.weights) for row in report.rounds[1:]] == counted
    assert sum(row.failed_attempts for row in report.rounds) > 0


def test_a_swarm_that_never_meets_says_so(run: Callable[..., SimulationReport]) -> None:
    with pytest.raises(SwarmError, match="found no majority of the 3 peers") as caught:
        run(config(peers=3, max_steps=2), drop=0.99)
    assert caught.value.field == "--drop"


def test_a_loss_that_is_not_finite_ends_the_rounds(tmp_path: Path) -> None:
    material = load(tmp_path)
    poisoned = OuterState.initial(torch.full_like(material.parameters(), float("nan")))
    with asyncio.Runner() as runner:
        swarm = SimulatedSwarm(config(peers=2), scenario(2), material, poisoned, runner)
        swarm.run(lambda row: None)
    assert swarm.diverged
    assert len(swarm.rows) == 1
    assert swarm.rows[0].validation_loss is None


def test_the_same_seed_gives_the_same_report_and_another_seed_another(run: Callable[..., SimulationReport]) -> None:
    settings = config(peers=4, max_steps=4)
    happening = {"drop": 0.2, "byzantine": "1:noise", "speeds": "1,2"}
    first = run(settings, **happening).model_dump_json()
    assert run(settings, **happening).model_dump_json() == first
    other = simulated_config(settings, 4, rounds=None, seed=1)
    assert run(other, **happening).model_dump_json() != first


# ---------------------------------------------------------------------------------------------- liars
@pytest.mark.parametrize(
    ("rule", "holds"), [("mean", False), ("filter", True), ("centered-clip", True), ("median", True)]
)
def test_one_liar_of_four_spoils_the_plain_mean_only(
    run: Callable[..., SimulationReport], rule: str, holds: bool
) -> None:
    honest = run(config(peers=4, aggregation="mean"))
    lied_to = run(config(peers=4, aggregation=rule), byzantine="1:sign-flip")
    assert lied_to.aggregation == rule
    assert (lied_to.liars, lied_to.lie, honest.lie) == (1, "sign-flip", None)
    assert honest.validation_loss is not None
    assert lied_to.validation_loss is not None
    behind = lied_to.validation_loss - honest.validation_loss
    assert behind < 0.35 if holds else behind > 0.5


def test_the_filter_costs_nothing_when_all_are_honest(run: Callable[..., SimulationReport]) -> None:
    believed, filtered = (run(config(peers=4, aggregation=rule)) for rule in ("mean", "filter"))
    assert [row.validation_loss for row in filtered.rounds] == [row.validation_loss for row in believed.rounds]


def test_the_report_names_who_was_left_out_and_why(run: Callable[..., SimulationReport]) -> None:
    report = run(config(peers=4), byzantine="1:sign-flip")
    parts = 4  # each of the four reduces one
    assert [row.dropped for row in report.rounds] == [{}, *[{"peer0003": {"too long": parts}}] * 3]
    assert "left out       peer0003 in 3 of 3 rounds (too long)" in summary_lines(report)


# ---------------------------------------------------------------------------------------------- what is asked for
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"peers": 0}, "--peers"),
        ({"drop": 1.0}, "--drop"),
        ({"drop": float("nan")}, "--drop"),
        ({"speeds": "1,fast"}, "--speeds"),
        ({"speeds": "1,0"}, "--speeds"),
        ({"speeds": "1,nan"}, "--speeds"),
        ({"speeds": "1,1,1"}, "--speeds"),
        ({"speeds": ""}, "--speeds"),
        ({"byzantine": "sign-flip"}, "--byzantine"),
        ({"byzantine": "1:flattery"}, "--byzantine"),
        ({"byzantine": "-1:noise"}, "--byzantine"),
        ({"byzantine": "3:noise"}, "--byzantine"),
        ({"averaging_s": float("inf")}, "--averaging-s"),
    ],
)
def test_an_impossible_scenario_is_refused_by_its_option(wrong: dict[str, Any], field: str) -> None:
    asked = {"peers": 2, "speeds": "1", "drop": 0.0, "byzantine": "", "averaging_s": 0.0, **wrong}
    with pytest.raises(ConfigError) as caught:
        make_scenario(asked.pop("peers"), **asked)
    assert caught.value.field == field
    assert caught.value.hint


def test_a_short_list_of_speeds_is_repeated() -> None:
    assert [float(speed) for speed in scenario(5, speeds="1,0.1").speeds] == [1, 0.1, 1, 0.1, 1]


def test_configs_that_cannot_be_simulated_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 peers are needed"):
        simulated_config(
            config(peers=4).model_copy(update={"swarm": SwarmSection(min_peers=3)}), 2, rounds=None, seed=None
        )
    alone = RunConfig(distributed=DistributedSection(strategy="ddp"))
    with pytest.raises(ConfigError) as caught:
        simulated_config(alone, 2, rounds=None, seed=None)
    assert caught.value.field == "distributed.strategy"


def test_a_rule_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        simulated_config(config(peers=2), 2, rounds=None, seed=None, aggregation="krum")
    assert caught.value.field == "--aggregation"
    assert "centered-clip" in caught.value.hint
    chosen = simulated_config(config(peers=2), 2, rounds=None, seed=None, aggregation="median")
    assert chosen.swarm.aggregation == "median"


def test_rounds_seed_and_peers_take_the_place_of_the_configs_own() -> None:
    changed = simulated_config(config(peers=2), 5, rounds=7, seed=3)
    assert changed.samples_wanted(1) == 7 * INNER_STEPS * BATCH * 5
    assert (changed.session.seed, changed.distributed.nodes) == (3, 5)
    together = data_parallel_config(changed)
    assert together.samples_wanted(1) == changed.samples_wanted(1)
    assert together.train.samples_per_step == 5 * BATCH


def test_too_many_peers_for_the_memory_are_refused_with_the_estimate() -> None:
    check_memory(10**6, scenario(8), "adamw", 8 * 2**30)
    with pytest.raises(MemoryShortageError, match=r"64 peers of 100,000,000 parameters need 169\.9 GiB") as caught:
        check_memory(10**8, scenario(64), "adamw", 16 * 2**30)
    assert "--peers 4 would fit" in caught.value.hint
    with pytest.raises(MemoryShortageError) as caught:
        check_memory(7 * 10**9, scenario(1), "sgd", 16 * 2**30)
    assert "not even one peer" in caught.value.hint


# ---------------------------------------------------------------------------------------------- the plot
def test_curves_become_a_png(run: Callable[..., SimulationReport]) -> None:
    png = plot_curves(run(config(peers=2, max_steps=2)))
    assert png.startswith(b"\x89PNG\r\n")
    assert len(png) > 10_000


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(MissingPackageError) as caught:
        require_plots()
    assert "-e '.[plots]'" in caught.value.hint
