"""How a pseudo-gradient is encoded on the wire: blocks of 256 values that share one scale.

An encoded vector of n values is `[blocks x bf16 scale][blocks x 256 x bits / 8 payload]`, little-endian. Decoding is
one IEEE multiplication per value (integer x float32 scale), hence the same bits on every machine; encoding happens once
per vector, at one peer, so it need not agree with anybody's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

BLOCK = 256
_PIECE = 1024
"""Blocks that are worked on at a time: what lies between two steps stays in the processor's cache."""
_NIBBLE_ZERO = 8
_SMALLEST_SCALE = 2.0**-126
"""Blocks of smaller values are sent as zeros: the inverse of a subnormal scale overflows."""


class Codec(Protocol):
    """Turns a 1-D float32 CPU tensor into bytes and back."""

    def encoded_bytes(self, numel: int) -> int:
        """Length of the encoding of `numel` values."""

    def encode(self, values: Tensor) -> bytes:
        """Encode. Raises ValueError if a value is not finite."""

    def encode_with_loss(self, values: Tensor) -> tuple[bytes, Tensor | None]:
        """The encoding, and the values less what it decodes to, [n] float32; None for a codec that loses nothing."""

    def decode(self, buffer: bytes, numel: int, out: Tensor | None = None) -> Tensor:
        """Decode into a new tensor, or into `out`, [numel] float32.

        Raises ValueError for a wrong length or a value that is not finite.
        """


class BlockCodec:
    """Symmetric absolute-maximum quantization to 8 or 4 bits, block by block."""

    def __init__(self, bits: int):
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {bits}")
        self.bits = bits
        self._largest = 2 ** (bits - 1) - 1

    def encoded_bytes(self, numel: int) -> int:
        return _blocks(numel) * (2 + BLOCK * self.bits // 8)

    def encode(self, values: Tensor) -> bytes:
        return self.encode_with_loss(values)[0]

    @torch.no_grad()
    def encode_with_loss(self, values: Tensor) -> tuple[bytes, Tensor | None]:
        blocks = _blocks(values.numel())
        padding = blocks * BLOCK - values.numel()
        rows = (torch.nn.functional.pad(values, (0, padding)) if padding else values).view(blocks, BLOCK)
        peak = torch.maximum(rows.amax(1), rows.amin(1).neg_())  # torch.aminmax is an order of magnitude slower
        if not bool(torch.isfinite(peak).all()):
            raise ValueError("a value to encode is not finite")
        scale = peak.div_(self._largest)
        scale[scale < _SMALLEST_SCALE] = 0.0
        scale_bits = _round_up_to_bf16(scale)
        scale = (scale_bits << 16).view(torch.float32)
        inverse = torch.where(scale > 0, 1.0 / scale, torch.zeros_like(scale))
        payload, lost = torch.empty(blocks, BLOCK * self.bits // 8, dtype=torch.uint8), torch.empty_like(rows)
        for start in range(0, blocks, _PIECE):
            piece = slice(start, start + _PIECE)
            levels = torch.mul(rows[piece], inverse[piece, None]).round_()  # scales are rounded up: none is too large
            torch.sub(rows[piece], torch.mul(levels, scale[piece, None]), out=lost[piece])
            self._pack(levels, payload[piece])
        encoded = b"".join((scale_bits.to(torch.int16).numpy().data, payload.numpy().data))
        return encoded, lost.view(-1)[: values.numel()]

    def _pack(self, levels: Tensor, out: Tensor) -> None:
        if self.bits == 8:
            out.view(torch.int8).copy_(levels)
            return
        # by int8, because torch takes nine times as long from float to uint8
        nibbles = levels.add_(_NIBBLE_ZERO).to(torch.int8).view(torch.uint8)
        # the low nibbles hold the first half of a block, the high ones the second: decoding needs no interleaving
        torch.bitwise_left_shift(nibbles[:, BLOCK // 2 :], 4, out=out).bitwise_or_(nibbles[:, : BLOCK // 2])

    @torch.no_grad()
    def decode(self, buffer: bytes, numel: int, out: Tensor | None = None) -> Tensor:
        if len(buffer) != self.encoded_bytes(numel):
            raise ValueError(f"an encoding of {numel} values has {self.encoded_bytes(numel)} bytes, not {len(buffer)}")
        blocks = _blocks(numel)
        scale_bits = torch.from_numpy(np.frombuffer(buffer, "<u2", blocks).astype(np.int32))
        scale = (scale_bits << 16).view(torch.float32)
        if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
            raise ValueError("a scale is negative or not finite")
        payload = np.frombuffer(buffer, np.uint8, offset=2 * blocks).reshape(blocks, -1)
        in_place = out is not None and numel == blocks * BLOCK
        values = out.view(blocks, BLOCK) if out is not None and in_place else torch.empty(blocks, BLOCK)
        for start in range(0, blocks, _PIECE):
            piece = slice(start, start + _PIECE)
            self._unpack(torch.from_numpy(payload[piece].copy()), scale[piece, None], values[piece])
        decoded = values.view(-1)[:numel]
        return decoded if out is None or in_place else out.copy_(decoded)

    def _unpack(self, payload: Tensor, scale: Tensor, out: Tensor) -> None:
        if self.bits == 8:
            out.copy_(payload.view(torch.int8)).mul_(scale)
            return
        nibbles, half = torch.empty(len(payload), BLOCK, dtype=torch.uint8), BLOCK // 2
        torch.bitwise_and(payload, 15, out=nibbles[:, :half])
        torch.bitwise_right_shift(payload, 4, out=nibbles[:, half:])
        out.copy_(nibbles.view(torch.int8).sub_(_NIBBLE_ZERO)).mul_(scale)


class Float32Codec:
    """The values themselves, for comparison and for tiny models."""

    def encoded_bytes(self, numel: int) -> int:
        return 4 * numel

    def encode(self, values: Tensor) -> bytes:
        if not bool(torch.isfinite(values).all()):
            raise ValueError("a value to encode is not finite")
        return values.contiguous().numpy().astype("<f4", copy=False).tobytes()

    def encode_with_loss(self, values: Tensor) -> tuple[bytes, Tensor | None]:
        return self.encode(values), None

    def decode(self, buffer: bytes, numel: int, out: Tensor | None = None) -> Tensor:
        if len(buffer) != self.encoded_bytes(numel):
            raise ValueError(f"an encoding of {numel} values has {self.encoded_bytes(numel)} bytes, not {len(buffer)}")
        values = torch.from_numpy(np.frombuffer(buffer, "<f4").astype(np.float32))
        if not bool(torch.isfinite(values).all()):
            raise ValueError("a decoded value is not finite")
        return values if out is None else out.copy_(values)


def make_codec(name: str) -> Codec:
    """The codec of `[diloco] codec`: int4, int8 or fp32."""
    codecs: dict[str, Codec] = {"int4": BlockCodec(4), "int8": BlockCodec(8), "fp32": Float32Codec()}
    return codecs[name]


def _blocks(numel: int) -> int:
    return -(-numel // BLOCK)


def _round_up_to_bf16(scale: Tensor) -> Tensor:
    """The upper 16 bits (as int32) of the next bf16 number, so that the block's peak is never clipped."""
    return (scale.view(torch.int32) + 0xFFFF) >> 16
