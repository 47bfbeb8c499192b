"""Training data: documents -> token files -> samples, and which peer takes which sample when."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import LongTensor

from cotrain.config import DataSection
from cotrain.errors import ConfigError, IntegrityError
from cotrain.train.documents import read_documents
from cotrain.train.files import replacing_folder
from cotrain.train.permutation import Indices, permute

SEPARATOR = b"\n"
"""Stands after each document, so that one does not run into the next."""
_FORMAT = 1
_REMAKE = "remove it, and it is made or fetched again"

Tokens = NDArray[np.uint8]


# --------------------------------------------------------------------------------------------- preparing
@dataclass(frozen=True)
class PreparedDataset:
    """Token files (uint8, 1-D, `.npy`) made from a session's documents."""

    train: Path
    validation: Path
    train_tokens: int
    validation_tokens: int
    documents: int


@dataclass(frozen=True)
class _Document:
    digest: bytes
    tokens: int


def prepare_dataset(section: DataSection, *, seed: int, folder: Path) -> PreparedDataset:
    """Write the section's token files to `folder/<key>/`, or find them there.

    The key is a hash of the documents' contents and of the split, so files of one key never change.
    Documents are read twice and held one at a time. Raises ConfigError if there is no text, if it is too
    little for a split or a sample, or if it changes meanwhile; StorageError if the disk does not take the
    files. One process at a time may prepare a given text in a folder.
    """
    documents = [_describe(content) for content in read_documents(section)]
    held_out = validation_digests([d.digest for d in documents], share=section.validation_split, seed=seed)
    target = folder / _content_key(documents, section, seed)
    prepared = PreparedDataset(
        train=target / "train.npy",
        validation=target / "validation.npy",
        train_tokens=sum(d.tokens for d in documents if d.digest not in held_out),
        validation_tokens=sum(d.tokens for d in documents if d.digest in held_out),
        documents=len(documents),
    )
    _require_sample(prepared.train_tokens, section.seq_length, what="the training text")
    _require_sample(prepared.validation_tokens, section.seq_length, what="the validation text")
    if not _is_prepared(prepared):
        with replacing_folder(target) as temporary:
            _write_tokens(section, documents, held_out, prepared, temporary)
    return prepared


def _describe(content: bytes) -> _Document:
    return _Document(digest=hashlib.sha256(content).digest(), tokens=len(content) + len(SEPARATOR))


def validation_digests(digests: Sequence[bytes], *, share: float, seed: int) -> frozenset[bytes]:
    """The contents (by SHA-256) that are kept for validation: about `share` of them, at least one, never all.

    Each content decides for itself by a seeded hash, so that equal documents stay on one side, and adding
    some moves no other. Raises ConfigError if there are fewer than two different contents.
    """
    ranks = {digest: hashlib.sha256(seed.to_bytes(8, "big") + digest).digest() for digest in dict.fromkeys(digests)}
    if len(ranks) < 2:
        raise ConfigError(
            "there is only one document, which cannot be split into training and validation text",
            field="data.data_path", hint="give more text, or a folder with several files",
        )  # fmt: skip
    ordered = sorted(ranks, key=ranks.__getitem__)
    below = sum(int.from_bytes(ranks[digest][:8]) < share * 2**64 for digest in ordered)
    return frozenset(ordered[: min(max(below, 1), len(ordered) - 1)])


def _content_key(documents: Sequence[_Document], section: DataSection, seed: int) -> str:
    key = hashlib.sha256()
    settings = {"format": _FORMAT, "seed": seed, "validation_split": section.validation_split}
    key.update(json.dumps(settings, sort_keys=True).encode())
    for document in documents:
        key.update(document.digest)
    return key.hexdigest()


def _require_sample(tokens: int, seq_length: int, *, what: str) -> None:
    if tokens <= seq_length:
        raise ConfigError(
            f"{what} has {tokens} tokens, too few for one sample of {seq_length} and the token after it",
            field="data.seq_length", hint="give more text, or use shorter samples",
        )  # fmt: skip


def _is_prepared(prepared: PreparedDataset) -> bool:
    """Whether both files are there whole."""
    expected = ((prepared.train, prepared.train_tokens), (prepared.validation, prepared.validation_tokens))
    try:
        return all(len(open_tokens(path)) == tokens for path, tokens in expected)
    except IntegrityError:
        return False


def _write_tokens(
    section: DataSection,
    documents: Sequence[_Document],
    held_out: frozenset[bytes],
    prepared: PreparedDataset,
    folder: Path,
) -> None:
    """Read the documents again and append each to its split. Raises ConfigError if they have changed."""
    with (
        (folder / prepared.train.name).open("wb") as train,
        (folder / prepared.validation.name).open("wb") as validation,
    ):
        _write_npy_header(train, prepared.train_tokens)
        _write_npy_header(validation, prepared.validation_tokens)
        for document, content in itertools.zip_longest(documents, read_documents(section)):
            if document is None or content is None or _describe(content) != document:
                raise ConfigError(
                    "the text changed while it was read", field="data.data_path",
                    hint="start again when nothing writes to it",
                )  # fmt: skip
            (validation if document.digest in held_out else train).write(content + SEPARATOR)


def _write_npy_header(file: BinaryIO, tokens: int) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (tokens,)}
    np.lib.format.write_array_header_1_0(file, header)


# ----------------------------------------------------------------------------------------------- reading
def open_tokens(path: Path) -> Tokens:
    """The tokens of a `.npy` file (uint8, 1-D), mapped into memory. Raises IntegrityError for any other."""
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IntegrityError(f"is not a token file: {error}", field=str(path), hint=_REMAKE) from error
    if not isinstance(tokens, np.ndarray) or tokens.dtype != np.uint8 or tokens.ndim != 1:
        found = f"{tokens.dtype}, {tokens.ndim}-D" if isinstance(tokens, np.ndarray) else "an archive"
        raise IntegrityError(f"holds {found}; a token file is uint8 and 1-D", field=str(path), hint=_REMAKE)
    return tokens


class TokenDataset:
    """Samples of `seq_length` tokens and the token that follows, from a file mapped into memory.

    Neighbouring samples share one token: the last target of one is the first input of the next. Raises
    IntegrityError for a file that is not a token file, ConfigError for one that is shorter than a sample.
    """

    def __init__(self, path: Path, seq_length: int):
        self.tokens = open_tokens(path)
        self.seq_length = seq_length
        _require_sample(len(self.tokens), seq_length, what=str(path))
        windows = np.lib.stride_tricks.sliding_window_view(self.tokens, seq_length + 1)
        self._samples = windows[::seq_length]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def batch(self, indices: Indices) -> LongTensor:
        """The samples with these indices: int64 on the CPU, [len(indices), seq_length + 1].

        Raises IndexError for an index that is out of range.
        """
        return cast(LongTensor, torch.from_numpy(self._samples[indices].astype(np.int64)))


# --------------------------------------------------------------------------------------------- data order
def sample_indices(
    *, seed: int, num_samples: int, cursor: int, rank: int, ranks: int, start: int, count: int
) -> Indices:
    """The samples of one peer in a round, for its inner steps from `start` on.

    The run's data order is an endless sequence of epochs, each with its own permutation of the samples. A
    round begins at `cursor`, and the peer of `rank` among `ranks` takes positions cursor + rank + ranks *
    i, here for i from `start` to `start + count - 1`. Returns int64 of shape [count]. Raises ValueError for
    arguments out of range.
    """
    if num_samples < 1 or not 0 <= rank < ranks or min(cursor, start, count) < 0:
        raise ValueError(
            f"out of range: num_samples={num_samples}, cursor={cursor}, rank={rank}, ranks={ranks}, "
            f"start={start}, count={count}"
        )
    positions = cursor + rank + ranks * np.arange(start, start + count, dtype=np.int64)
    epochs, offsets = np.divmod(positions, num_samples)
    return permute(offsets, size=num_samples, seed=seed, tweaks=epochs)
