"""Job: what the agent tells the training process, as a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from cotrain.errors import ConfigError
from cotrain.reachability import Connection
from cotrain.request import CamelModel
from cotrain.status import read_json_object, replace_file
from node.limits import Limits

JOB_FILE = "job.json"
"""In the run's folder."""


class Job(CamelModel):
    """One participant's work in a session. All paths are absolute."""

    session: str
    peer_id: str
    name: str = ""
    identity_path: Path
    """libp2p private key of the peer."""
    config_path: Path
    """The session's TOML."""
    shared: Path
    """The data folder, root of SharedPaths."""
    membership_path: Path
    """The peer's certificate, kept fresh by the agent."""
    run_dir: Path
    """Where `status.json` is written and `control.json` is read."""
    initial_peers: list[str]
    """libp2p addresses of the checkpointer."""
    dataset_path: Path
    """Training tokens (`train.safetensors`)."""
    source_path: Path | None = None
    """The model to go on from, where the session has one."""
    teacher_path: Path | None = None
    """The model to learn from, where the session has one."""
    host: str = "127.0.0.1"
    """Address to listen on for other peers."""
    port: int = 0
    """Port to listen on; 0: any free one."""
    connection: Connection = "direct"
    """How other peers connect to this one."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that train together on this machine, at most."""
    limits: Limits = Limits()
    """What they may use of the machine."""


def write_job(path: Path, job: Job) -> None:
    """Replace the job file atomically."""
    replace_file(path, job.model_dump_json(by_alias=True).encode())


def read_job(path: Path) -> Job:
    """Raises ConfigError if the file cannot be read or is no job."""
    try:
        return Job.model_validate(read_json_object(path))
    except OSError as error:
        raise ConfigError(f"the job cannot be read: {error.strerror}", field=str(path)) from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            str(problem["msg"]), field=f"{path}: {where}", hint="run `cotrain node join` again"
        ) from error
    except ValueError as error:
        raise ConfigError(f"is no job file: {error}", field=str(path), hint="run `cotrain node join` again") from error
