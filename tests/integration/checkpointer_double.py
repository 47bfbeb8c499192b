"""A small program that speaks the checkpointer's side of the protocol, and trains nothing.

A session whose name says `broken` fails. For any other one, a file `<shared>/reached-<session>` makes it
report that the goal is reached, and a file `<shared>/report-*.json` is reported as it is. While there is a file
`<shared>/no-saves`, nothing comes of a Save. Each command is written to `<shared>/commands.jsonl`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import tomllib
from pathlib import Path

from coordinator.checkpointer_messages import COMMAND, Exported, Failed, Finish, Follow, Following, Ready, Save, Saved
from cotrain.process import bind_to_parent
from cotrain.protocol import Asset

CONTENT = b"0123456789" * 100


def main() -> None:
    bind_to_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    shared: Path = arguments.shared
    (shared / "double.pid").write_text(str(os.getpid()))
    say(
        Ready(
            peer_id="12D3KooWDouble",
            addresses=[f"/ip4/{arguments.host}/tcp/{arguments.port}/p2p/12D3KooWDouble"],
        )
    )
    followed: set[str] = set()
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - a buffer would hide lines from select
    while True:
        if select.select([stdin], [], [], 0.02)[0]:
            line = stdin.readline().decode()
            if not line:
                return
            obey(shared, line, followed)
        for path in sorted(shared.glob("report-*.json")):
            print(path.read_text(), flush=True)
            path.unlink()
        for session in sorted(followed):
            if (shared / f"reached-{session}").exists():
                followed.discard(session)
                say(Saved(session=session, path=str(shared / "models" / "final" / session)))


def obey(shared: Path, line: str, followed: set[str]) -> None:
    command = COMMAND.validate_json(line)
    with (shared / "commands.jsonl").open("a") as file:
        file.write(line)
    if isinstance(command, Follow):
        if "broken" in tomllib.loads(Path(command.config_path).read_text())["session"]["name"]:
            say(Failed(session=command.session, message="the data cannot be read", hint="check data_path"))
            return
        followed.add(command.session)
        (shared / "train.safetensors").write_bytes(CONTENT)
        asset = Asset(name="train.safetensors", sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))
        say(Following(session=command.session, assets=[asset], asset_folder=str(shared)))
    elif isinstance(command, Save):
        if command.session in followed and not (shared / "no-saves").exists():
            save(shared, command)
    else:
        followed.discard(command.session)
        if isinstance(command, Finish):
            say(Saved(session=command.session, path=str(shared / "models" / "final" / command.session)))


def save(shared: Path, command: Save) -> None:
    """What there is of a model after round 4; whoever tests makes its files."""
    path = shared / "models" / "final" / f"{command.session}.round-4"
    evaluation = {"round": 4, "samples": 32, "validationLoss": 3.5, "targets": 100}
    say(Exported(session=command.session, job=command.job, path=str(path), round=4, evaluation=evaluation))


def say(report: Ready | Following | Saved | Exported | Failed) -> None:
    print(json.dumps(report.model_dump(by_alias=True)), flush=True)


if __name__ == "__main__":
    main()
