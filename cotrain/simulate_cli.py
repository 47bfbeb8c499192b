"""`cotrain simulate`: a whole swarm in one process, beside data-parallel training on as many tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cotrain.config import RunConfig, load_config
from cotrain.paths import SharedPaths, config_file
from cotrain.status import replace_file

if TYPE_CHECKING:
    from cotrain.swarm.scenario import Scenario
    from cotrain.swarm.simulation_report import SimulatedRound, SimulationReport

REPORT_FILE = "simulation.json"
PLOT_FILE = "curves.png"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="A TOML file, or the name of a template.")],
    peers: Annotated[int | None, typer.Option(help="Virtual peers; else distributed.nodes.")] = None,
    speeds: Annotated[str, typer.Option(help="Inner steps in a virtual second, peer by peer, repeated.")] = "1",
    drop: Annotated[float, typer.Option(help="Probability that a peer misses a round.")] = 0.0,
    byzantine: Annotated[
        str, typer.Option(help="COUNT:LIE, the lie sign-flip, noise, scale, zero, inside-norm or little.")
    ] = "",
    aggregation: Annotated[str | None, typer.Option(help="How averages are made; else swarm.aggregation.")] = None,
    averaging_s: Annotated[float, typer.Option(help="Virtual seconds that an average takes.")] = 0.0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Nominal rounds, in place of the TOML's length.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="In place of session.seed.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads; more than 1 may change the last bits.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Folder for the report and the plot.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train with virtual peers in this process, by the swarm's own rules, beside data-parallel training."""
    from cotrain.swarm.scenario import make_scenario, simulated_config
    from cotrain.swarm.simulation_report import require_plots

    config = load_config(config_file(str(file)))
    count = config.distributed.nodes if peers is None else peers
    scenario = make_scenario(count, speeds=speeds, drop=drop, byzantine=byzantine, averaging_s=averaging_s)
    config = simulated_config(config, count, rounds=rounds, seed=seed, aggregation=aggregation)
    require_plots()
    shared = SharedPaths.from_env().create()
    folder = output or shared.system_logs / "simulations" / config.session.id
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written to is found now, not at the end
    report = _run(config, scenario, shared, threads)
    _write(report, folder)
    _show(report, folder, as_json)


def _run(config: RunConfig, scenario: Scenario, shared: SharedPaths, threads: int) -> SimulationReport:
    import torch

    from cotrain.swarm.simulate import simulate as simulate_swarm
    from cotrain.swarm.simulated_training import load_material
    from cotrain.train.parallel import ParallelGroup

    torch.set_num_threads(threads)
    with Console(stderr=True).status("preparing the data") as status:
        material = load_material(config, scenario, shared, ParallelGroup.from_environment())
        wanted = config.samples_wanted(len(material.train))

        def show(row: SimulatedRound) -> None:
            done = min(1.0, row.samples / wanted)
            status.update(f"round {row.round}, {done:.0%} of DiLoCo's samples; data-parallel training comes after it")

        return simulate_swarm(config, scenario, material, on_round=show)


def _write(report: SimulationReport, folder: Path) -> None:
    from cotrain.swarm.simulation_report import plot_curves

    replace_file(folder / REPORT_FILE, (report.model_dump_json(by_alias=True, indent=2) + "\n").encode())
    replace_file(folder / PLOT_FILE, plot_curves(report))


def _show(report: SimulationReport, folder: Path, as_json: bool) -> None:
    from cotrain.swarm.simulation_report import rounds_table, summary_lines

    if as_json:
        sys.stdout.write(report.model_dump_json(by_alias=True) + "\n")
        return
    console = Console(soft_wrap=True)
    console.print(rounds_table(report))
    console.print("\n".join(["", *summary_lines(report)]), highlight=False, markup=False)
    console.print(f"report         {folder / REPORT_FILE}\nplot           {folder / PLOT_FILE}", highlight=False)
