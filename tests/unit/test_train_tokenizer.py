from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cotrain.errors import ConfigError
from cotrain.sections import TaskName
from cotrain.train.tokenizer import (
    SENTINELS,
    VOCAB_SIZE,
    byte_alphabet,
    byte_tokenizer,
    describe_tokenizer,
    load_tokenizer,
    text_tokens,
)

TOKENIZER = byte_tokenizer()
SPECIAL = byte_tokenizer(special=True)
PAD_ID, CLS_ID, SEP_ID, MASK_ID = range(256, 260)
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


# ------------------------------------------------------------------------------------------ special tokens
@given(st.text())
def test_the_special_form_reads_bytes_too_and_frames_them(text: str):
    ids = SPECIAL(text, split_special_tokens=True).input_ids
    assert ids == [CLS_ID, *text.encode("utf-8"), SEP_ID]
    assert SPECIAL.decode(ids, skip_special_tokens=True) == text


def test_a_pair_is_framed_as_bert_frames_it():
    assert SPECIAL("a", "b").input_ids == [CLS_ID, 97, SEP_ID, 98, SEP_ID]


def test_the_name_of_a_special_token_in_learnt_text_is_text():
    assert SPECIAL("<mask>").input_ids == [CLS_ID, MASK_ID, SEP_ID]
    assert text_tokens(SPECIAL, ["<mask>", ""]) == [list(b"<mask>"), []]


def test_offsets_are_characters_whatever_their_bytes():
    encoded = SPECIAL("aم", return_offsets_mapping=True, add_special_tokens=False)
    assert encoded.offset_mapping == [(0, 1), (1, 2), (1, 2)]


def test_the_special_form_is_the_same_after_saving_and_loading(tmp_path: Path):
    SPECIAL.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in SAMPLES:
        assert loaded(text).input_ids == SPECIAL(text).input_ids
    assert loaded.model_input_names == ["input_ids", "attention_mask"]
    assert [loaded.pad_token_id, loaded.cls_token_id, loaded.sep_token_id] == [PAD_ID, CLS_ID, SEP_ID]
    assert [loaded.bos_token_id, loaded.eos_token_id, loaded.mask_token_id] == [CLS_ID, SEP_ID, MASK_ID]
    assert describe_tokenizer(loaded, task="masked-lm", seq_length=8, labels=()).sentinel_ids == tuple(range(260, 292))


# ------------------------------------------------------------------------------------------ description
def test_the_description_of_bytes_names_each_special_token():
    spec = describe_tokenizer(SPECIAL, task="text-classification", seq_length=8, labels=("no", "yes"))
    assert spec.vocab_size == len(SPECIAL) == VOCAB_SIZE + 4 + SENTINELS
    assert (spec.pad_id, spec.start_id, spec.end_id, spec.mask_id) == (PAD_ID, CLS_ID, SEP_ID, MASK_ID)
    assert spec.labels == ("no", "yes")


def test_plain_bytes_have_nothing_but_bytes():
    spec = describe_tokenizer(TOKENIZER, task="causal-lm", seq_length=8, labels=())
    assert spec.vocab_size == VOCAB_SIZE
    assert (spec.pad_id, spec.start_id, spec.end_id, spec.mask_id, spec.sentinel_ids) == (None, None, None, None, ())


@pytest.mark.parametrize("task", ["masked-lm", "seq2seq-lm", "text-classification"])
def test_a_tokenizer_without_the_tokens_a_task_needs_is_refused(task: TaskName):
    with pytest.raises(ConfigError, match=task) as raised:
        describe_tokenizer(TOKENIZER, task=task, seq_length=8, labels=())
    assert raised.value.field == "data.tokenizer"
    assert raised.value.hint


def word_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Three words and the special tokens that are given, without a frame, as GPT-2's."""
    names = ["a", "b", "c", *special.values()]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def test_targets_need_an_end_token_but_no_sentinels():
    tokenizer = word_tokenizer(pad_token="<pad>", eos_token="<end>")
    spec = describe_tokenizer(tokenizer, task="seq2seq-lm", seq_length=8, labels=(), with_targets=True)
    assert (spec.start_id, spec.end_id) == (None, 4)
    with pytest.raises(ConfigError, match="sentinel"):
        describe_tokenizer(tokenizer, task="seq2seq-lm", seq_length=8, labels=())


# ------------------------------------------------------------------------------------------ loading
def test_bytes_are_plain_for_the_next_token_and_special_for_all_else():
    assert len(load_tokenizer("bytes", "causal-lm")) == VOCAB_SIZE
    assert len(load_tokenizer("bytes", "masked-lm")) == len(SPECIAL)


def test_a_folder_is_loaded_and_the_end_token_pads_where_there_is_no_other(tmp_path: Path):
    word_tokenizer(eos_token="<end>").save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), "causal-lm").pad_token_id is None
    assert load_tokenizer(str(tmp_path), "text-classification").pad_token_id == 3


REMOTE_CODE = {"tokenizer_class": "Unheard", "auto_map": {"AutoTokenizer": ["code.Unheard", None]}}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer.json": "not JSON"},
        {"tokenizer.json": "{}"},
        {"tokenizer.json": "[]", "tokenizer_config.json": "[1]"},
        {"config.json": json.dumps({"model_type": "bert"})},
        {"tokenizer_config.json": json.dumps(REMOTE_CODE), "code.py": "raise SystemExit('this must never run')"},
    ],
)
def test_a_folder_without_a_usable_tokenizer_is_refused(files: dict[str, str], tmp_path: Path):
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_tokenizer(str(tmp_path), "masked-lm")
    assert raised.value.field == "data.tokenizer"
    assert raised.value.hint
