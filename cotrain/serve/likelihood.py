"""How likely a model finds answers: `python -m cotrain.serve.likelihood FOLDER`, for a process that loads no torch.

For each JSON line `{"question", "answer"}` on stdin there is one `{"perplexity"}` on stdout; where the model cannot be
loaded, one `{"error"}`, and it ends. It ends with its parent, too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from cotrain.errors import CotrainError
from cotrain.logs import configure_logging
from cotrain.process import bind_to_parent
from cotrain.serve.loading import LoadedModel, load_served_model
from cotrain.serve.prompts import conversation_tokens
from cotrain.train.tokenizer import text_tokens


@torch.inference_mode()
def byte_perplexity(loaded: LoadedModel, question: str, answer: str) -> float:
    """e to the model's mean loss, in nats, for each UTF-8 byte of the answer to a question.

    What the model's context has no room for is left out: the beginning of the question first, then the answer's end.
    Not a number for an answer without text; infinite where the model gives it no probability.

    Raises InvalidRequestError if the model's chat template refuses the question.
    """
    if not answer.strip():
        return math.nan
    # after a template's prompt the answer follows at once, in the plain form after a space
    said = answer.strip() if loaded.tokenizer.chat_template is not None else f" {answer.strip()}"
    prompt = conversation_tokens([("user", question)], loaded)
    (whole,) = text_tokens(loaded.tokenizer, [said])
    told = whole[: loaded.context_tokens - 1]
    count = len(said.encode()) if len(told) == len(whole) else len(loaded.tokenizer.decode(told).encode())
    tokens = torch.tensor([*prompt, *told][-loaded.context_tokens :], device=loaded.device)
    predicted = min(len(told), len(tokens) - 1)
    logits = loaded.model(input_ids=tokens[None], use_cache=False).logits[0, -predicted - 1 : -1]
    nats = cross_entropy(logits.double(), tokens[-predicted:], reduction="sum").item() / count
    return math.exp(nats) if nats < math.log(sys.float_info.max) else math.inf


def main() -> int:
    """Answer stdin on stdout until it ends; returns the exit code."""
    bind_to_parent()
    configure_logging()
    parser = argparse.ArgumentParser(description="Say how likely a model finds answers.")
    parser.add_argument("folder", type=Path)
    try:
        loaded = load_served_model(parser.parse_args().folder)
        for line in sys.stdin:
            asked = json.loads(line)
            _say({"perplexity": byte_perplexity(loaded, asked["question"], asked["answer"])})
    except CotrainError as error:
        _say({"error": str(error)})
        return error.exit_code
    return 0


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
