"""Properties of the wire codecs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotrain.train.codec import BLOCK, BlockCodec, Float32Codec, make_codec

CODECS = [BlockCodec(4), BlockCodec(8), Float32Codec()]
finite = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**99), max_value=2.0**99)


@settings(max_examples=60)
@given(st.lists(finite, min_size=1, max_size=3 * BLOCK), st.sampled_from(CODECS))
def test_error_is_at_most_half_a_level_and_length_is_announced(values: list[float], codec: BlockCodec) -> None:
    x = torch.tensor(values)
    encoded = codec.encode(x)
    assert len(encoded) == codec.encoded_bytes(x.numel())
    decoded = codec.decode(encoded, x.numel())
    assert decoded.shape == x.shape
    levels = {4: 7, 8: 127}.get(getattr(codec, "bits", 0))
    for start in range(0, x.numel(), BLOCK):
        block, result = x[start : start + BLOCK], decoded[start : start + BLOCK]
        peak = float(block.abs().max())
        # the scale is rounded up to bf16 (8 significant bits), so a level may be a 128th wider
        allowed = 0.0 if levels is None else peak / levels * 0.5 * (1 + 1 / 64) + 127 * 2.0**-126
        assert float((block - result).abs().max()) <= allowed


@settings(max_examples=60)
@given(st.lists(finite, min_size=1, max_size=3 * BLOCK), st.sampled_from(CODECS))
def test_what_is_lost_is_what_decoding_does_not_bring_back(values: list[float], codec: BlockCodec) -> None:
    x = torch.tensor(values)
    encoded, lost = codec.encode_with_loss(x)
    given = torch.full_like(x, 3.0)
    decoded = codec.decode(encoded, x.numel(), out=given)
    assert decoded.data_ptr() == given.data_ptr()
    assert torch.equal(decoded, codec.decode(encoded, x.numel()))
    assert torch.equal(x - decoded, torch.zeros_like(x) if lost is None else lost)


@pytest.mark.parametrize("codec", CODECS, ids=["int4", "int8", "fp32"])
def test_a_vector_of_many_pieces_is_as_good_as_one_of_few(codec: BlockCodec) -> None:
    x = torch.randn(2**19 + 77, generator=torch.Generator().manual_seed(0))
    decoded = codec.decode(codec.encode(x), x.numel())
    for start in (0, 2**18, 2**19 - BLOCK):
        few = x[start : start + 2 * BLOCK]
        assert torch.equal(decoded[start : start + 2 * BLOCK], codec.decode(codec.encode(few), few.numel()))


@pytest.mark.parametrize("codec", CODECS, ids=["int4", "int8", "fp32"])
def test_encoding_a_decoded_vector_changes_nothing_more(codec: BlockCodec) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    once = codec.decode(codec.encode(x), 1000)
    twice = codec.decode(codec.encode(once), 1000)
    assert float((once - twice).abs().max()) <= float(once.abs().max()) * 0.01


@pytest.mark.parametrize("codec", CODECS, ids=["int4", "int8", "fp32"])
def test_wrong_content_is_refused(codec: BlockCodec) -> None:
    good = codec.encode(torch.ones(300))
    with pytest.raises(ValueError, match="bytes"):
        codec.decode(good[:-1], 300)
    with pytest.raises(ValueError, match="finite"):
        codec.encode(torch.tensor([1.0, float("nan")]))
    infinite = (
        np.full(2, 0x7F80, "<u2").tobytes() + good[4:] if hasattr(codec, "bits") else b"\x00\x00\x80\x7f" + good[4:]
    )
    with pytest.raises(ValueError, match="finite"):
        codec.decode(infinite, 300)


def test_bytes_per_value_of_the_default_codec() -> None:
    assert make_codec("int4").encoded_bytes(10**6) / 10**6 == pytest.approx(0.5078, abs=1e-3)


def test_decoding_is_pinned_bit_for_bit() -> None:
    """A golden vector: what was encoded by an older version must decode to the same bits for ever."""
    scale = np.array([0x3F80], "<u2").tobytes()  # bf16 1.0
    payload = bytes([0x10 | 0x0F]) * (BLOCK // 2)  # low nibble 15 -> 7, high nibble 1 -> -7
    decoded = make_codec("int4").decode(scale + payload, BLOCK)
    assert decoded[: BLOCK // 2].eq(7.0).all()
    assert decoded[BLOCK // 2 :].eq(-7.0).all()
