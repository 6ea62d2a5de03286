# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of Cross-D: a convolution per sample.

Images are read and written channels last. The kernels of a batch, W[b, tap, o, i] = Σ_q M[b, tap, q] U[o, i, q], are
one plain matrix product, and so are the gradients of M and of U. They are not kept: the backward makes them again.

With TRITON_INTERPRET=1 all of it runs on a CPU, slowly. Importing this file needs Triton; `crossd_gpu.py` asks first.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import Geometry, output_size
from .mixing_triton import INTERPRETED


def _tiles(*tiles: tuple[int, int, int, int]) -> list[Any]:
    """Configurations to try: rows, columns and depth of a tile, and warps. Interpreted, one small tile serves."""
    if INTERPRETED:
        tiles = ((32, 16, 32, 4),)
    return [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}, num_warps=warps, num_stages=3)
        for m, n, k, warps in tiles
    ]


UPCAST = tl.constexpr(INTERPRETED)


@triton.jit
def _dot(a, b, total, PRECISION: tl.constexpr):
    if (
        UPCAST
    ):  # the interpreter multiplies the bits of bfloat16; in single precision products are what they are on a GPU
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


# ------------------------------------------------------------------------------------------ kernels of a batch


@triton.autotune(_tiles((128, 64, 32, 4), (64, 64, 32, 4), (128, 32, 64, 4)), key=["N", "bucket"])
@triton.jit(do_not_specialize=["M", "PART", "bucket"])
def _product(A, B, OUT, M, N, K, PART, a_m, a_k, b_k, b_n, bucket, DTYPE: tl.constexpr, PRECISION: tl.constexpr,
             BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """OUT[part] = A · B over one part of the K terms, A and B with any strides, multiplied in DTYPE."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(2)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    end = tl.minimum(K, (part + 1) * PART)
    row, column = m.to(tl.int64) * a_m, n.to(tl.int64) * b_n
    for start in range(part * PART, end, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        wide = k.to(tl.int64)
        a = tl.load(A + row[:, None] + wide[None, :] * a_k, mask=(m[:, None] < M) & (k[None, :] < end), other=0.0)
        b = tl.load(B + wide[:, None] * b_k + column[None, :], mask=(k[:, None] < end) & (n[None, :] < N), other=0.0)
        total = _dot(a.to(DTYPE), b.to(DTYPE), total, PRECISION)
    to = OUT + (part.to(tl.int64) * M + m[:, None]) * N + n[None, :]
    tl.store(to, total.to(OUT.dtype.element_ty), mask=(m[:, None] < M) & (n[None, :] < N))


TRITON_DTYPE = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def _bucket(value: int) -> int:
    """Sizes that share a tuned configuration."""
    return value.bit_length()


def _multiply(a: Tensor, b: Tensor, dtype: torch.dtype, out: torch.dtype, parts: int = 1) -> Tensor:
    """A @ b, the factors rounded to `dtype`, which float32 keeps whole; the terms in parts that are added last."""
    (rows, terms), columns = a.shape, b.shape[1]
    part = triton.cdiv(terms, parts)
    result = torch.empty(parts, rows, columns, device=a.device, dtype=torch.float32 if parts > 1 else out)

    def grid(meta: dict) -> tuple[int, int, int]:
        return triton.cdiv(rows, meta["BLOCK_M"]), triton.cdiv(columns, meta["BLOCK_N"]), parts

    _product[grid](
        a, b, result, rows, columns, terms, part, *a.stride(), *b.stride(), 64 * _bucket(rows) + _bucket(terms),
        DTYPE=TRITON_DTYPE[dtype], PRECISION="ieee",
    )  # fmt: skip
    return result[0] if parts == 1 else result.sum(0).to(out)


def make_kernels(weight: Tensor, mixing: Tensor, dtype: torch.dtype) -> Tensor:
    """(B*P, O*I), which is (B, tap, O, I): the kernels of a batch."""
    bank = weight.reshape(weight.shape[0] * weight.shape[1], -1)
    return _multiply(mixing.reshape(-1, mixing.shape[2]), bank.t(), dtype, dtype)


# ------------------------------------------------------------------------------------------ convolution


IMAGE = ["H", "WD", "HO", "WO", "bucket"]  # images of many sizes share a compiled kernel


@triton.autotune(_tiles((128, 64, 64, 4), (64, 64, 32, 4), (128, 128, 64, 8)), key=["C", "O", "TAPS", "bucket"])
@triton.jit(do_not_specialize=IMAGE)
def _conv(X, W, BIAS, Y, H, WD, C, O, G, HO, WO, SH, SW, PH, PW, DH, DW, bucket, KW: tl.constexpr,  # noqa: E741
          TAPS: tl.constexpr, HAS_BIAS: tl.constexpr, FEW: tl.constexpr, PRECISION: tl.constexpr,
          BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """A tile of positions and output channels of one sample and group; C and O are channels of a group.

    FEW: taps and channels are one axis of the sum, as a block of channels alone would be mostly empty.
    """
    b, g = tl.program_id(0) // G, tl.program_id(0) % G
    at = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    top, left, inside = (at // WO) * SH - PH, (at % WO) * SW - PW, at < HO * WO
    image = X + b.to(tl.int64) * (H * WD * G * C) + g * C
    kernel = W + b.to(tl.int64) * (TAPS * G * O * C) + g * O * C
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if FEW:
        for start in range(0, TAPS * C, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            tap, c = k // C, k % C
            h, w = top[:, None] + (tap // KW * DH)[None, :], left[:, None] + (tap % KW * DW)[None, :]
            ok = inside[:, None] & (h >= 0) & (h < H) & (w >= 0) & (w < WD) & (tap < TAPS)[None, :]
            x = tl.load(image + (h * WD + w) * (G * C) + c[None, :], mask=ok, other=0.0)
            mask = (o[None, :] < O) & (tap < TAPS)[:, None]
            u = tl.load(kernel + (tap * G * O * C + c)[:, None] + o[None, :] * C, mask=mask, other=0.0)
            total = _dot(x, u, total, PRECISION)
    else:
        for tap in range(TAPS):
            h, w = top + tap // KW * DH, left + tap % KW * DW
            ok = inside & (h >= 0) & (h < H) & (w >= 0) & (w < WD)
            row = image + (h * WD + w) * (G * C)
            for start in range(0, C, BLOCK_K):
                c = start + tl.arange(0, BLOCK_K)
                x = tl.load(row[:, None] + c[None, :], mask=ok[:, None] & (c[None, :] < C), other=0.0)
                mask = (o[None, :] < O) & (c[:, None] < C)
                u = tl.load(kernel + tap * (G * O * C) + o[None, :] * C + c[:, None], mask=mask, other=0.0)
                total = _dot(x, u, total, PRECISION)
    if HAS_BIAS:
        total += tl.load(BIAS + g * O + o, mask=o < O, other=0.0).to(tl.float32)[None, :]
    to = Y + b.to(tl.int64) * (HO * WO * G * O) + at[:, None] * (G * O) + g * O + o[None, :]
    tl.store(to, total.to(Y.dtype.element_ty), mask=inside[:, None] & (o[None, :] < O))


@triton.autotune(_tiles((128, 64, 64, 4), (64, 64, 32, 4), (128, 128, 64, 8)), key=["C", "O", "TAPS", "bucket"])
@triton.jit(do_not_specialize=IMAGE)
def _conv_to_input(GY, W, GX, H, WD, C, O, G, HO, WO, SH, SW, PH, PW, DH, DW, bucket, KW: tl.constexpr,  # noqa: E741
                   TAPS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                   BLOCK_K: tl.constexpr):  # fmt: skip
    """Gradient of a tile of positions and input channels."""
    b, g = tl.program_id(0) // G, tl.program_id(0) % G
    at = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = at < H * WD
    grad = GY + b.to(tl.int64) * (HO * WO * G * O) + g * O
    kernel = W + b.to(tl.int64) * (TAPS * G * O * C) + g * O * C
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in range(TAPS):
        h, w = at // WD + PH - tap // KW * DH, at % WD + PW - tap % KW * DW
        ho, wo = h // SH, w // SW
        ok = inside & (h >= 0) & (w >= 0) & (ho * SH == h) & (wo * SW == w) & (ho < HO) & (wo < WO)
        row = grad + (ho * WO + wo) * (G * O)
        for start in range(0, O, BLOCK_K):
            o = start + tl.arange(0, BLOCK_K)
            y = tl.load(row[:, None] + o[None, :], mask=ok[:, None] & (o[None, :] < O), other=0.0)
            mask = (o[:, None] < O) & (c[None, :] < C)
            u = tl.load(kernel + tap * (G * O * C) + o[:, None] * C + c[None, :], mask=mask, other=0.0)
            total = _dot(y, u, total, PRECISION)
    to = GX + b.to(tl.int64) * (H * WD * G * C) + at[:, None] * (G * C) + g * C + c[None, :]
    tl.store(to, total.to(GX.dtype.element_ty), mask=inside[:, None] & (c[None, :] < C))


@triton.autotune(_tiles((64, 64, 64, 4), (128, 64, 32, 4), (64, 128, 32, 8)), key=["C", "O", "TAPS", "bucket"])
@triton.jit(do_not_specialize=IMAGE)
def _conv_to_kernel(X, GY, GW, H, WD, C, O, G, HO, WO, SH, SW, PH, PW, DH, DW, bucket, KW: tl.constexpr,  # noqa: E741
                    TAPS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                    BLOCK_K: tl.constexpr):  # fmt: skip
    """Gradient of a tile of output channels and of taps times input channels; positions are what is summed over."""
    b, g = tl.program_id(0) // G, tl.program_id(0) % G
    o = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    tap, c = n // C, n % C
    image = X + b.to(tl.int64) * (H * WD * G * C) + g * C
    grad = GY + b.to(tl.int64) * (HO * WO * G * O) + g * O
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, HO * WO, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K)
        inside = at < HO * WO
        mask = inside[None, :] & (o[:, None] < O)
        y = tl.load(grad + at[None, :] * (G * O) + o[:, None], mask=mask, other=0.0)
        h = (at // WO * SH - PH)[:, None] + (tap // KW * DH)[None, :]
        w = (at % WO * SW - PW)[:, None] + (tap % KW * DW)[None, :]
        ok = inside[:, None] & (h >= 0) & (h < H) & (w >= 0) & (w < WD) & (tap < TAPS)[None, :]
        x = tl.load(image + (h * WD + w) * (G * C) + c[None, :], mask=ok, other=0.0)
        total = _dot(y, x, total, PRECISION)
    to = GW + b.to(tl.int64) * (TAPS * G * O * C) + g * O * C + (tap * G * O * C + c)[None, :] + o[:, None] * C
    tl.store(to, total.to(GW.dtype.element_ty), mask=(o[:, None] < O) & (tap < TAPS)[None, :])


def _precision(x: Tensor) -> str:
    """What torch's own convolutions of single precision do on this machine."""
    return "tf32" if x.is_cuda and torch.backends.cudnn.allow_tf32 else "ieee"


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _arguments(x: Tensor, weight: Tensor, out: list[int], geometry: Geometry) -> tuple[int, ...]:
    """What the kernels read from H to `bucket`."""
    g, channels, outputs = geometry, weight.shape[1], weight.shape[0] // geometry.groups
    padding, bucket = (g.pads[0], g.pads[2]), _bucket(out[0] * out[1])
    return *x.shape[2:], channels, outputs, g.groups, *out, *g.stride, *padding, *g.dilation, bucket


def conv_forward(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Sample b of (B, C, H, W) with the kernel mixing[b] · bank, channels last."""
    x, size, groups = _last(x), geometry.kernel_size, geometry.groups
    batch, out = x.shape[0], output_size(list(x.shape[2:]), geometry)
    shape = (batch, weight.shape[0], *out)
    y = torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
    outputs = weight.shape[0] // groups

    def grid(meta: dict) -> tuple[int, int, int]:
        return batch * groups, triton.cdiv(out[0] * out[1], meta["BLOCK_M"]), triton.cdiv(outputs, meta["BLOCK_N"])

    _conv[grid](
        x, make_kernels(weight, mixing, x.dtype), bias, y, *_arguments(x, weight, out, geometry),
        KW=size[1], TAPS=math.prod(size), HAS_BIAS=bias is not None, FEW=weight.shape[1] < 16,
        PRECISION=_precision(x),
    )  # fmt: skip
    return y


def conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mixing: Tensor, geometry: Geometry, needed: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, bank and mixing, of those that are needed."""
    x, grad, size, groups = _last(x), _last(grad.to(x.dtype)), geometry.kernel_size, geometry.groups
    batch, out = x.shape[0], list(grad.shape[2:])
    arguments = _arguments(x, weight, out, geometry)
    taps, channels, outputs = math.prod(size), weight.shape[1], weight.shape[0] // groups
    options = {"KW": size[1], "TAPS": taps, "PRECISION": _precision(x)}
    to_x = to_weight = to_mixing = None
    if needed[0]:
        to_x = torch.empty_like(x)

        def grid(meta: dict) -> tuple[int, int, int]:
            positions = x.shape[2] * x.shape[3]
            return batch * groups, triton.cdiv(positions, meta["BLOCK_M"]), triton.cdiv(channels, meta["BLOCK_N"])

        _conv_to_input[grid](grad, make_kernels(weight, mixing, x.dtype), to_x, *arguments, **options)
    if needed[1] or needed[2]:
        pairs = weight.shape[0] * channels
        to_kernels = torch.empty(batch * taps, pairs, device=x.device, dtype=x.dtype)

        def grid_kernel(meta: dict) -> tuple[int, int, int]:
            columns = triton.cdiv(taps * channels, meta["BLOCK_N"])
            return batch * groups, triton.cdiv(outputs, meta["BLOCK_M"]), columns

        _conv_to_kernel[grid_kernel](x, grad, to_kernels, *arguments, **options)
        rows = mixing.reshape(batch * taps, -1)
        if needed[1]:
            to_weight = _multiply(to_kernels.t(), rows, x.dtype, weight.dtype).view(weight.shape)
        if needed[2]:
            # few rows and columns, many terms: in parts, or a handful of programs would do it all
            parts = max(1, min(64, pairs // 1024))
            bank = weight.reshape(pairs, -1)
            to_mixing = _multiply(to_kernels, bank, x.dtype, mixing.dtype, parts).view(mixing.shape)
    return to_x, to_weight, to_mixing
