"""Asks the version that is served how likely it finds answers, in a process of its own: a cycle loads no torch."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cotrain.errors import ConflictError
from cotrain.learn.quality import Perplexity
from cotrain.process import child_environment, python_command

_END_LIMIT_S = 10.0


@contextlib.contextmanager
def served_perplexity(folder: Path) -> Iterator[Perplexity]:
    """The perplexity of answers under the model in a folder; its process is there within the block.

    Asking waits for the model: do that in a thread, and open the block in the main one, whose child the process is.

    Raises ConflictError, when asked, if the model cannot be loaded or its process has ended.
    """
    environment = child_environment()
    environment.setdefault("OMP_NUM_THREADS", "1")  # the other cores are the participants'
    with subprocess.Popen(
        python_command("cotrain.serve.likelihood", str(folder)), env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield functools.partial(_ask, process, str(folder))
        finally:
            process.kill()  # it holds nothing that would be lost
            process.wait(_END_LIMIT_S)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # of a question that it did not read
                process.stdin.close()


def _ask(process: subprocess.Popen[str], folder: str, question: str, answer: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # what it said before it ended is still to be read
        process.stdin.write(json.dumps({"question": question, "answer": answer}) + "\n")
        process.stdin.flush()
    try:
        said = json.loads(process.stdout.readline())
    except ValueError:  # nothing, or half a line
        said = {"error": "its process has ended"}
    if "error" in said:
        raise ConflictError(
            f"the version that is served cannot judge answers: {said['error']}", field=folder,
            hint="mend it, or set learning.perplexity = false",
        )  # fmt: skip
    return float(said["perplexity"])
