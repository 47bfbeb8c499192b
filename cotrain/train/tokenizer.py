"""The byte tokenizer: a token is a byte, its id the byte's value; any text can be learnt, nothing is lost."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 256


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in GPT-2's byte-level alphabet, in order of the bytes.

    Bytes that are printable in Latin-1 stand for themselves; the others, in order, are U+0100 and following.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(VOCAB_SIZE) if byte not in printable]
    substitutes = {byte: 0x100 + rank for rank, byte in enumerate(others)}
    return [chr(substitutes.get(byte, byte)) for byte in range(VOCAB_SIZE)]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 256 tokens without merges or special tokens; any UTF-8 text is decoded back exactly."""
    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
