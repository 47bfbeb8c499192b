"""DataSpec: what a model and a task must know of the data; it travels inside every data file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cotrain.sections import TaskName

TokenId = Annotated[int, Field(ge=0)]


class DataSpec(BaseModel):
    """Written once when data is prepared, so that whoever trains needs neither the text nor the tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    task: TaskName
    """What the samples are for."""
    vocab_size: Annotated[int, Field(ge=2, le=2**31)]
    """Token ids lie below this."""
    seq_length: Annotated[int, Field(ge=1)]
    """Tokens in a sample at most, special ones included."""
    pad_id: TokenId | None = None
    """Fills a short sample up to the longest of its batch."""
    start_id: TokenId | None = None
    """Stands before a sample (BERT's [CLS])."""
    end_id: TokenId | None = None
    """Ends a text (BERT's [SEP], T5's </s>)."""
    mask_id: TokenId | None = None
    """Stands in the place of a token that is to be predicted."""
    sentinel_ids: tuple[TokenId, ...] = ()
    """Each stands in the place of one span that was cut out, in this order (T5)."""
    labels: tuple[str, ...] = ()
    """Names of the classes, by their number."""
    with_targets: bool = False
    """seq2seq-lm: samples are pairs of source and target; else spans are cut out of running text."""

    @property
    def packed(self) -> bool:
        """Whether samples are windows of one long stream of tokens, rather than rows."""
        return self.task in ("causal-lm", "masked-lm") or (self.task == "seq2seq-lm" and not self.with_targets)
