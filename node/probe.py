"""Finds out how others can connect to this machine: `python -m node.probe`. The agent starts it (`node/network.py`)."""

from __future__ import annotations

import argparse
import sys

from hivemind.utils.asyncio import switch_to_uvloop

from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.membership.document import MembershipFile
from cotrain.process import bind_future_children, bind_to_parent
from cotrain.swarm.hardening import limit_message_nesting
from cotrain.swarm.probe import Prober
from node.network import Question


def main() -> int:
    """Answer the question on standard input by an Attachment, or by why there is none; returns the exit code."""
    bind_to_parent()
    argparse.ArgumentParser(prog="python -m node.probe", description=__doc__).parse_args()
    question = Question.model_validate_json(sys.stdin.buffer.read())
    configure_logging()
    bind_future_children()
    limit_message_nesting()
    prober = Prober(
        session=question.session, host=question.host, port=question.port, initial_peers=question.initial_peers,
        identity_path=question.identity_path, membership=MembershipFile(question.membership_path),
    )  # fmt: skip
    try:
        # uvloop: what asyncio's own loop starts would outlive this process if it is killed
        attachment = switch_to_uvloop().run_until_complete(prober.find_out())
    except CotrainError as error:
        print(error)
        return error.exit_code
    print(attachment.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
