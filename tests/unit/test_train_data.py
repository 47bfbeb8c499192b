from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.config import DataSection
from cotrain.errors import ConfigError, IntegrityError
from cotrain.train.data import (
    PreparedDataset,
    TokenDataset,
    open_tokens,
    prepare_dataset,
    sample_indices,
    validation_digests,
)
from cotrain.train.tokenizer import byte_tokenizer

UNHURRIED = settings(deadline=None)  # other processes may hold the processor for a while


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(f"document {number}: " + "کتاب " * number)
    return folder


def section_of(path: Path, *, seq_length: int = 16, validation_split: float = 0.25) -> DataSection:
    return DataSection(data_path=str(path), seq_length=seq_length, validation_split=validation_split)


def text_of(path: Path) -> bytes:
    return open_tokens(path).tobytes()


# --------------------------------------------------------------------------------------------- preparing
def test_every_document_is_in_exactly_one_split(corpus: Path, tmp_path: Path):
    prepared = prepare_dataset(section_of(corpus), seed=0, folder=tmp_path / "out")
    train, validation = text_of(prepared.train), text_of(prepared.validation)
    assert (len(train), len(validation)) == (prepared.train_tokens, prepared.validation_tokens)
    assert prepared.documents == 40
    contents = [path.read_bytes() for path in sorted(corpus.iterdir())]
    held_out = [content for content in contents if content + b"\n" in validation]
    assert b"\n".join(held_out) + b"\n" == validation
    assert b"\n".join(content for content in contents if content not in held_out) + b"\n" == train
    assert 3 <= len(held_out) <= 18


def test_the_tokens_are_those_of_the_tokenizer(corpus: Path, tmp_path: Path):
    prepared = prepare_dataset(section_of(corpus), seed=0, folder=tmp_path / "out")
    text = text_of(prepared.train).decode()
    assert byte_tokenizer()(text).input_ids == open_tokens(prepared.train).tolist()


def test_the_files_are_made_once_and_found_again(corpus: Path, tmp_path: Path):
    first = prepare_dataset(section_of(corpus), seed=0, folder=tmp_path / "out")
    written = first.train.stat()
    again = prepare_dataset(section_of(corpus, seq_length=8), seed=0, folder=tmp_path / "out")
    assert again == first
    assert (again.train.stat().st_ino, again.train.stat().st_mtime_ns) == (
        written.st_ino,
        written.st_mtime_ns,
    )


def test_another_seed_split_or_text_has_its_own_files(corpus: Path, tmp_path: Path):
    def prepare(*, seed: int = 0, split: float = 0.25) -> PreparedDataset:
        return prepare_dataset(section_of(corpus, validation_split=split), seed=seed, folder=tmp_path / "out")

    folders = {prepare().train.parent, prepare(seed=1).train.parent, prepare(split=0.5).train.parent}
    (corpus / "00.txt").write_text("another text, long enough")
    folders.add(prepare().train.parent)
    assert len(folders) == 4


def test_a_truncated_file_is_made_again(corpus: Path, tmp_path: Path):
    prepared = prepare_dataset(section_of(corpus), seed=0, folder=tmp_path / "out")
    whole = prepared.train.read_bytes()
    prepared.train.write_bytes(whole[:-100])
    prepare_dataset(section_of(corpus), seed=0, folder=tmp_path / "out")
    assert prepared.train.read_bytes() == whole
    assert [path.name for path in (tmp_path / "out").iterdir()] == [prepared.train.parent.name]


def test_too_little_text_is_refused_and_nothing_is_written(tmp_path: Path):
    path = tmp_path / "short.txt"
    path.write_text("one document")
    with pytest.raises(ConfigError, match="only one document"):
        prepare_dataset(section_of(path), seed=0, folder=tmp_path / "out")
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "a.txt").write_text("short")
    (pair / "b.txt").write_text("text")
    with pytest.raises(ConfigError, match="too few for one sample of 16") as caught:
        prepare_dataset(section_of(pair), seed=0, folder=tmp_path / "out")
    assert caught.value.field == "data.seq_length"
    assert not (tmp_path / "out").exists()


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(count)]


@UNHURRIED
@given(count=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**31 - 1))
def test_a_split_takes_some_contents_but_never_all(count: int, share: float, seed: int):
    contents = digests(count)
    chosen = validation_digests(contents, share=share, seed=seed)
    assert chosen <= set(contents)
    assert 1 <= len(chosen) < count
    assert chosen == validation_digests(contents[::-1] + contents, share=share, seed=seed)


def test_a_split_keeps_its_share_and_adding_documents_moves_none():
    few, many = digests(2000), digests(4000)
    chosen = validation_digests(few, share=0.2, seed=5)
    assert len(chosen) / len(few) == pytest.approx(0.2, abs=0.04)
    assert validation_digests(many, share=0.2, seed=5) & set(few) == chosen
    assert validation_digests(few, share=0.2, seed=6) != chosen


# ----------------------------------------------------------------------------------------------- reading
def save_tokens(path: Path, count: int) -> Path:
    np.save(path, (np.arange(count) % 251).astype(np.uint8), allow_pickle=False)
    return path


@UNHURRIED
@given(
    seq_length=st.integers(1, 12),
    count=st.integers(13, 200),
    picks=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
)
def test_a_batch_holds_the_samples_and_the_token_after_each(
    tmp_path_factory: pytest.TempPathFactory, seq_length: int, count: int, picks: list[int]
):
    dataset = TokenDataset(save_tokens(tmp_path_factory.mktemp("tokens") / "t.npy", count), seq_length)
    assert len(dataset) == (count - 1) // seq_length
    indices = np.array(picks, dtype=np.int64) % len(dataset)
    batch = dataset.batch(indices)
    assert batch.shape == (len(picks), seq_length + 1)
    first = indices[:, None] * seq_length
    assert batch.tolist() == ((first + np.arange(seq_length + 1)) % 251).tolist()


def test_an_index_past_the_end_is_refused(tmp_path: Path):
    dataset = TokenDataset(save_tokens(tmp_path / "t.npy", 101), 10)
    assert len(dataset) == 10
    with pytest.raises(IndexError):
        dataset.batch(np.array([10]))


def test_a_file_shorter_than_a_sample_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="has 10 tokens, too few"):
        TokenDataset(save_tokens(tmp_path / "t.npy", 10), 10)


@pytest.mark.parametrize(
    "array", [np.zeros(100, dtype=np.int64), np.zeros((10, 10), dtype=np.uint8)], ids=["type", "dimension"]
)
def test_an_array_of_another_kind_is_refused(tmp_path: Path, array: np.ndarray):
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(IntegrityError, match="a token file is uint8 and 1-D") as caught:
        TokenDataset(tmp_path / "t.npy", 8)
    assert "t.npy" in caught.value.field


def test_a_file_with_python_objects_is_never_unpickled(tmp_path: Path):
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(IntegrityError, match="not a token file"):
        TokenDataset(tmp_path / "t.npy", 8)


@pytest.mark.parametrize("content", [b"", b"no array at all", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(IntegrityError, match="not a token file"):
        TokenDataset(tmp_path / "t.npy", 8)


def test_an_archive_of_arrays_is_refused(tmp_path: Path):
    with (tmp_path / "t.npy").open("wb") as file:
        np.savez(file, tokens=np.zeros(100, dtype=np.uint8))
    with pytest.raises(IntegrityError, match="an archive"):
        open_tokens(tmp_path / "t.npy")


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(IntegrityError, match="No such file") as caught:
        open_tokens(tmp_path / "gone.npy")
    assert caught.value.field.endswith("gone.npy")


# --------------------------------------------------------------------------------------------- data order
SIZES = st.integers(1, 3000)
SEEDS = st.integers(0, 2**31 - 1)


def share(*, seed: int, size: int, cursor: int, rank: int, ranks: int, start: int, count: int) -> list[int]:
    return sample_indices(
        seed=seed, num_samples=size, cursor=cursor, rank=rank, ranks=ranks, start=start, count=count
    ).tolist()


@UNHURRIED
@given(size=SIZES, seed=SEEDS, epoch=st.integers(0, 1000))
def test_each_epoch_is_a_permutation_of_all_samples(size: int, seed: int, epoch: int):
    taken = share(seed=seed, size=size, cursor=epoch * size, rank=0, ranks=1, start=0, count=size)
    assert sorted(taken) == list(range(size))


@UNHURRIED
@given(size=SIZES, seed=SEEDS, cursor=st.integers(0, 10**6), ranks=st.integers(1, 9), count=st.integers(0, 40))
def test_the_shares_of_all_peers_are_the_round_and_no_sample_is_taken_twice(
    size: int, seed: int, cursor: int, ranks: int, count: int
):
    shares = [
        share(seed=seed, size=size, cursor=cursor, rank=rank, ranks=ranks, start=0, count=count)
        for rank in range(ranks)
    ]
    alone = share(seed=seed, size=size, cursor=cursor, rank=0, ranks=1, start=0, count=ranks * count)
    assert [index for step in zip(*shares, strict=True) for index in step] == alone


@UNHURRIED
@given(size=SIZES, seed=SEEDS, cursor=st.integers(0, 10**6), steps=st.lists(st.integers(0, 30), max_size=6))
def test_taking_it_in_pieces_or_resuming_repeats_and_skips_nothing(size: int, seed: int, cursor: int, steps: list[int]):
    whole = share(seed=seed, size=size, cursor=cursor, rank=1, ranks=3, start=0, count=sum(steps))
    pieces: list[int] = []
    for step in steps:
        pieces += share(seed=seed, size=size, cursor=cursor, rank=1, ranks=3, start=len(pieces), count=step)
    assert pieces == whole


def test_epochs_and_seeds_have_their_own_order():
    def order(*, seed: int, epoch: int) -> list[int]:
        return share(seed=seed, size=500, cursor=500 * epoch, rank=0, ranks=1, start=0, count=500)

    orders = [order(seed=0, epoch=0), order(seed=0, epoch=1), order(seed=1, epoch=0), order(seed=1, epoch=1)]
    for number, one in enumerate(orders):
        for other in orders[number + 1 :]:
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 15


def test_the_order_looks_random():
    """Neighbours in the order are as far apart as chance has it: a third of the range on average."""
    taken = np.array(share(seed=0, size=10_000, cursor=0, rank=0, ranks=1, start=0, count=10_000))
    assert np.abs(np.diff(taken)).mean() == pytest.approx(10_000 / 3, rel=0.05)
    assert abs(np.corrcoef(taken, np.arange(10_000))[0, 1]) < 0.05


def test_an_epoch_is_left_in_the_middle_of_a_share():
    taken = share(seed=0, size=7, cursor=4, rank=0, ranks=1, start=0, count=10)
    before = share(seed=0, size=7, cursor=0, rank=0, ranks=1, start=0, count=4)
    assert sorted(before + taken[:3]) == list(range(7))
    assert sorted(taken[3:]) == list(range(7))


def test_a_hundred_million_samples_need_no_table():
    taken = sample_indices(seed=0, num_samples=10**8, cursor=10**12, rank=3, ranks=64, start=10**6, count=1000)
    assert len(set(taken.tolist())) == 1000
    assert 0 <= taken.min() < taken.max() < 10**8


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_samples": 0},
        {"rank": 2},
        {"rank": -1},
        {"ranks": 0},
        {"cursor": -1},
        {"start": -1},
        {"count": -1},
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, int]):
    right = {"seed": 0, "num_samples": 10, "cursor": 0, "rank": 1, "ranks": 2, "start": 0, "count": 1}
    with pytest.raises(ValueError, match="out of range"):
        sample_indices(**(right | wrong))
