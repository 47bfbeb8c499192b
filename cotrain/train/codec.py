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
_SMALLEST_SCALE = 2.0**-126
"""Blocks of smaller values are sent as zeros: the inverse of a subnormal scale overflows."""


class Codec(Protocol):
    """Turns a 1-D float32 CPU tensor into bytes and back."""

    def encoded_bytes(self, numel: int) -> int:
        """Length of the encoding of `numel` values."""

    def encode(self, values: Tensor) -> bytes:
        """Encode. Raises ValueError if a value is not finite."""

    def decode(self, buffer: bytes, numel: int) -> Tensor:
        """Decode into a new tensor. Raises ValueError for a wrong length or a value that is not finite."""


class BlockCodec:
    """Symmetric absolute-maximum quantization to 8 or 4 bits, block by block."""

    def __init__(self, bits: int):
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {bits}")
        self.bits = bits
        self._largest = 2 ** (bits - 1) - 1

    def encoded_bytes(self, numel: int) -> int:
        return _blocks(numel) * (2 + BLOCK * self.bits // 8)

    @torch.no_grad()
    def encode(self, values: Tensor) -> bytes:
        blocks = _blocks(values.numel())
        padding = blocks * BLOCK - values.numel()
        rows = torch.nn.functional.pad(values, (0, padding)).view(blocks, BLOCK)
        peak = torch.maximum(rows.amax(1), rows.amin(1).neg())  # torch.aminmax is an order of magnitude slower
        if not bool(torch.isfinite(peak).all()):
            raise ValueError("a value to encode is not finite")
        scale = peak.div_(self._largest)
        scale[scale < _SMALLEST_SCALE] = 0.0
        scale_bits = _round_up_to_bf16(scale)
        scale = (scale_bits << 16).view(torch.float32)
        inverse = torch.where(scale > 0, 1.0 / scale, torch.zeros_like(scale))
        levels = (rows * inverse[:, None]).round_().clamp_(-self._largest, self._largest)
        return scale_bits.to(torch.int16).numpy().tobytes() + self._pack(levels)

    def _pack(self, levels: Tensor) -> bytes:
        if self.bits == 8:
            return levels.to(torch.int8).numpy().tobytes()
        # the low nibbles hold the first half of a block, the high ones the second: decoding needs no interleaving
        nibbles = levels.add_(8).to(torch.uint8)
        half = BLOCK // 2
        return (nibbles[:, :half] | (nibbles[:, half:] << 4)).numpy().tobytes()

    @torch.no_grad()
    def decode(self, buffer: bytes, numel: int) -> Tensor:
        if len(buffer) != self.encoded_bytes(numel):
            raise ValueError(f"an encoding of {numel} values has {self.encoded_bytes(numel)} bytes, not {len(buffer)}")
        blocks = _blocks(numel)
        scale_bits = torch.from_numpy(np.frombuffer(buffer, "<u2", blocks).astype(np.int32))
        scale = (scale_bits << 16).view(torch.float32)
        if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
            raise ValueError("a scale is negative or not finite")
        payload_type = np.int8 if self.bits == 8 else np.uint8
        payload = torch.from_numpy(np.frombuffer(buffer, payload_type, offset=2 * blocks).reshape(blocks, -1).copy())
        out = torch.empty(blocks, BLOCK)
        if self.bits == 8:
            torch.mul(payload, scale[:, None], out=out)
        else:
            half = BLOCK // 2
            torch.mul((payload & 15).to(torch.int8) - 8, scale[:, None], out=out[:, :half])
            torch.mul((payload >> 4).to(torch.int8) - 8, scale[:, None], out=out[:, half:])
        return out.view(-1)[:numel]


class Float32Codec:
    """The values themselves, for comparison and for tiny models."""

    def encoded_bytes(self, numel: int) -> int:
        return 4 * numel

    def encode(self, values: Tensor) -> bytes:
        if not bool(torch.isfinite(values).all()):
            raise ValueError("a value to encode is not finite")
        return values.contiguous().numpy().astype("<f4", copy=False).tobytes()

    def decode(self, buffer: bytes, numel: int) -> Tensor:
        if len(buffer) != self.encoded_bytes(numel):
            raise ValueError(f"an encoding of {numel} values has {self.encoded_bytes(numel)} bytes, not {len(buffer)}")
        values = torch.from_numpy(np.frombuffer(buffer, "<f4").astype(np.float32))
        if not bool(torch.isfinite(values).all()):
            raise ValueError("a decoded value is not finite")
        return values


def make_codec(name: str) -> Codec:
    """The codec of `[diloco] codec`: int4, int8 or fp32."""
    codecs: dict[str, Codec] = {"int4": BlockCodec(4), "int8": BlockCodec(8), "fp32": Float32Codec()}
    return codecs[name]


def _blocks(numel: int) -> int:
    return -(-numel // BLOCK)


def _round_up_to_bf16(scale: Tensor) -> Tensor:
    """The upper 16 bits (as int32) of the next bf16 number, so that the block's peak is never clipped."""
    return (scale.view(torch.int32) + 0xFFFF) >> 16
