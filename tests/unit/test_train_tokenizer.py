from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from cotrain.train.tokenizer import VOCAB_SIZE, byte_alphabet, byte_tokenizer

UNHURRIED = settings(deadline=None)  # other processes may hold the processor for a while

TOKENIZER = byte_tokenizer()
SAMPLES = [
    "",
    " ",
    "  two  spaces ",
    "def f(x):\n\treturn x\r\n",
    "سلام دنیا، می‌خواهم",
    "日本語🙂",
    "\0\x7f\x80\xad",
    "a .",
]


def test_the_vocabulary_is_the_256_bytes():
    assert len(TOKENIZER) == VOCAB_SIZE == 256
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(256))
    assert TOKENIZER.all_special_ids == []


def test_the_alphabet_is_the_one_of_byte_level_tokenizers():
    assert len(set(byte_alphabet())) == 256
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())


@UNHURRIED
@given(st.text())
def test_ids_are_the_bytes_of_the_text_and_decode_to_it(text: str):
    ids = TOKENIZER(text).input_ids
    assert ids == list(text.encode("utf-8"))
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("text", SAMPLES)
def test_it_is_the_same_after_saving_and_loading_by_auto_tokenizer(text: str, saved: Path):
    loaded = AutoTokenizer.from_pretrained(saved, local_files_only=True)
    assert loaded(text).input_ids == list(text.encode("utf-8"))
    assert loaded.decode(loaded(text).input_ids) == text


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    TOKENIZER.save_pretrained(folder)
    return folder
