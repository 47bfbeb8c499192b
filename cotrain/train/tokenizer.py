"""Tokenizers: bytes, a local folder, or a Hugging Face id; and what a model must know of them.

The byte tokenizer: a token is a byte, its id the byte's value; any text can be learnt, nothing is lost. Its special
form adds the tokens that masked, sequence-to-sequence and classification tasks need, above the 256 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cotrain.config import BYTES
from cotrain.errors import ConfigError
from cotrain.sections import TaskName
from cotrain.train.spec import DataSpec

VOCAB_SIZE = 256
PAD, CLS, SEP, MASK = "<pad>", "<cls>", "<sep>", "<mask>"
SENTINEL = "<extra_id_{}>"
"""T5's name for the token that stands for a span cut out of the text, by its number."""
SENTINELS = 32
_FIELD = "data.tokenizer"


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in GPT-2's byte-level alphabet, in order of the bytes.

    Bytes that are printable in Latin-1 stand for themselves; the others, in order, are U+0100 and following.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(VOCAB_SIZE) if byte not in printable]
    substitutes = {byte: 0x100 + rank for rank, byte in enumerate(others)}
    return [chr(substitutes.get(byte, byte)) for byte in range(VOCAB_SIZE)]


def byte_tokenizer(*, special: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 byte tokens without merges; any UTF-8 text is decoded back exactly.

    With `special`, 36 more follow: pad, cls (also bos), sep (also eos), mask and the sentinels; texts are framed
    as BERT's are (`cls A sep`, `cls A sep B sep`), without token types.
    """
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if not special:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    sentinels = [SENTINEL.format(number) for number in range(SENTINELS)]
    names = [PAD, CLS, SEP, MASK, *sentinels]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B {SEP}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, pad_token=PAD, cls_token=CLS, bos_token=CLS,
        sep_token=SEP, eos_token=SEP, mask_token=MASK, additional_special_tokens=sentinels,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def load_tokenizer(name: str, task: TaskName) -> PreTrainedTokenizerFast:
    """The tokenizer that `data.tokenizer` names: bytes, a local folder, or a Hugging Face id.

    Only an id that is not a local folder is looked up on the network. A tokenizer without a padding token gets its
    end token as one where the task pads. Raises ConfigError if there is none, or none that can be used.
    """
    if name == BYTES:
        return byte_tokenizer(special=task != "causal-lm")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, use_fast=True, trust_remote_code=False, local_files_only=Path(name).is_dir()
        )
    except Exception as error:  # the tokenizers library raises nothing more precise for a broken file
        raise ConfigError(
            f"no tokenizer can be loaded from {name!r}: {_first_line(error)}", field=_FIELD,
            hint='give "bytes", a folder that holds tokenizer.json, or the id of a Hugging Face model',
        ) from error  # fmt: skip
    if not tokenizer.is_fast or len(tokenizer) == len(set(tokenizer.all_special_ids)):
        raise ConfigError(
            f"{name!r} holds no tokenizer in the fast form, or one without a vocabulary", field=_FIELD,
            hint="its folder must hold tokenizer.json",
        )  # fmt: skip
    if task != "causal-lm" and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def text_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text alone; the name of a special token in a text is text like any other."""
    backend = tokenizer.backend_tokenizer  # used directly: it need not make masks and offsets that nobody reads
    before = backend.encode_special_tokens
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    try:
        return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    finally:
        backend.encode_special_tokens = before


# ------------------------------------------------------------------------------------------- description
def describe_tokenizer(
    tokenizer: PreTrainedTokenizerFast, *, task: TaskName, seq_length: int, labels: Sequence[str],
    with_targets: bool = False,
) -> DataSpec:  # fmt: skip
    """What a model and a task must know of data in this tokenizer's tokens.

    Raises ConfigError if the tokenizer lacks a token that the task cannot do without.
    """
    vocabulary = tokenizer.get_vocab()
    start_id, end_id = _frame(tokenizer)
    spec = DataSpec(
        task=task, seq_length=seq_length, labels=tuple(labels), with_targets=with_targets,
        vocab_size=max(vocabulary.values()) + 1,
        pad_id=tokenizer.pad_token_id,
        start_id=start_id,
        end_id=tokenizer.eos_token_id if end_id is None else end_id,
        mask_id=tokenizer.mask_token_id,
        sentinel_ids=_sentinels(vocabulary),
    )  # fmt: skip
    if lacking := _lacking(spec):
        raise ConfigError(
            f"the tokenizer has no {lacking}, which {task} needs", field=_FIELD,
            hint='take the tokenizer of a model made for this task, or "bytes"',
        )  # fmt: skip
    return spec


def _frame(tokenizer: PreTrainedTokenizerFast) -> tuple[int | None, int | None]:
    """The special tokens that the tokenizer itself puts right before and right after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    text = [position for position, special in enumerate(encoded["special_tokens_mask"]) if not special]
    before, after = encoded.input_ids[: text[0]], encoded.input_ids[text[-1] + 1 :]
    return (before[-1] if before else None), (after[0] if after else None)


def _sentinels(vocabulary: dict[str, int]) -> tuple[int, ...]:
    found: list[int] = []
    while (token_id := vocabulary.get(SENTINEL.format(len(found)))) is not None:
        found.append(token_id)
    return tuple(found)


def _lacking(spec: DataSpec) -> str:
    """The kind of token that the task needs and the tokenizer has not; empty if nothing is missing."""
    if spec.task != "causal-lm" and spec.pad_id is None:
        return "padding token"
    if spec.task == "masked-lm" and spec.mask_id is None:
        return "mask token"
    if spec.task == "seq2seq-lm" and spec.end_id is None:
        return "end token"
    if spec.task == "seq2seq-lm" and spec.packed and not spec.sentinel_ids:
        return f"sentinel token ({SENTINEL.format(0)})"
    return ""
