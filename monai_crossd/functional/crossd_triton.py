# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of Cross-D: from the predictor's features to the mixing matrix, and a convolution per sample.

Images are read and written channels last. The kernels of a batch, W[b, tap, o, i] = Σ_q M[b, tap, q] U[o, i, q], are
one plain matrix product, and so are the gradients of M and of U. They are not kept: the backward makes them again.

With TRITON_INTERPRET=1 all of it runs on a CPU, slowly. Importing this file needs Triton; `crossd_gpu.py` asks first.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._geometry import output_size

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
POOL_BLOCK = 32 if INTERPRETED else 512  # positions that a program holds at once
MIX_BLOCK = 256 if INTERPRETED else 1024  # elements of a mixing matrix that a program makes at once
POOL_PROGRAMS = 4 if INTERPRETED else 512  # programs of a pooling, about: four on a multiprocessor


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


# ---------------------------------------------------------------------------------------- features to mixing matrix


@triton.jit
def _pool(H, WEIGHT, BIAS, PARTIAL, C, L, CHUNK, s_b, s_c, s_l, HAS_BIAS: tl.constexpr, BC: tl.constexpr,
          BL: tl.constexpr):  # fmt: skip
    """Softmax pooling of the four channels of WEIGHT · H over one chunk of positions: maximum, Σ e, Σ v e."""
    b, chunk = tl.program_id(0), tl.program_id(1)
    c, four = tl.arange(0, BC), tl.arange(0, 4)
    base = H + b.to(tl.int64) * s_b
    end = tl.minimum(L, (chunk + 1) * CHUNK)
    weight = tl.load(WEIGHT + four[:, None] * C + c[None, :], mask=c[None, :] < C, other=0.0).to(tl.float32)
    bias = tl.zeros((4,), tl.float32)
    if HAS_BIAS:
        bias += tl.load(BIAS + four).to(tl.float32)
    m = tl.full((4,), -float("inf"), tl.float32)
    s = tl.zeros((4,), tl.float32)
    p = tl.zeros((4,), tl.float32)
    for start in range(chunk * CHUNK, end, BL):
        at = start + tl.arange(0, BL)
        inside = at < end
        mask = (c[:, None] < C) & inside[None, :]
        h = tl.load(base + c[:, None] * s_c + at[None, :] * s_l, mask=mask, other=0.0).to(tl.float32)
        for out in tl.static_range(4):
            w = tl.sum(tl.where((four == out)[:, None], weight, 0.0), 0)
            v = tl.sum(w[:, None] * h, 0) + tl.sum(tl.where(four == out, bias, 0.0), 0)
            before = tl.max(tl.where(four == out, m, -float("inf")), 0)
            highest = tl.maximum(before, tl.max(tl.where(inside, v, -float("inf")), 0))
            e = tl.where(inside, tl.exp(v - highest), 0.0)
            scale = tl.exp(before - highest)
            m = tl.where(four == out, highest, m)
            s = tl.where(four == out, s * scale + tl.sum(e, 0), s)
            p = tl.where(four == out, p * scale + tl.sum(v * e, 0), p)
    to = PARTIAL + ((b * tl.num_programs(1) + chunk) * 4 + four) * 3
    tl.store(to, m)
    tl.store(to + 1, s)
    tl.store(to + 2, p)


@triton.jit
def _impulse(t, K: tl.constexpr):
    """Shifted impulse of one axis at t = n - s, real and imaginary part."""
    real = t * 0.0 + 1.0
    imag = t * 0.0
    for f in tl.static_range(1, (K + 1) // 2):
        real += 2 * tl.cos(t * (6.283185307179586 * f / K))
    if K % 2 == 0:
        real += tl.cos(t * 3.141592653589793)
        imag -= tl.sin(t * 3.141592653589793)
    return real / K, imag / K


@triton.jit
def _impulse_slope(t, K: tl.constexpr):
    """Its derivative with respect to the shift s."""
    real = t * 0.0
    imag = t * 0.0
    for f in tl.static_range(1, (K + 1) // 2):
        real += (12.566370614359172 * f / K) * tl.sin(t * (6.283185307179586 * f / K))
    if K % 2 == 0:
        real += 3.141592653589793 * tl.sin(t * 3.141592653589793)
        imag += 3.141592653589793 * tl.cos(t * 3.141592653589793)
    return real / K, imag / K


@triton.jit
def _real_product(ar, ai, br, bi, cr, ci):
    return (ar * br - ai * bi) * cr - (ar * bi + ai * br) * ci


@triton.jit
def _tanh(x):
    e = tl.exp(-2 * tl.abs(x))
    return tl.where(x < 0, -1.0, 1.0) * (1 - e) / (1 + e)


@triton.jit
def _offsets(e, KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr):
    """Distances n on the three axes of element e of a mixing matrix (P, Q)."""
    p, q = e // (KD * KH * KW), e % (KD * KH * KW)
    d = KD // 2 - q // (KH * KW)
    h = p // KW - (q // KW) % KH
    w = p % KW - q % KW
    return d.to(tl.float32), h.to(tl.float32), w.to(tl.float32)


@triton.jit
def _pooled(PARTIAL, b, valid, CHUNKS, channel: tl.constexpr, BS: tl.constexpr):
    """Pooled value, maximum and Σ e of one channel, of the samples b, from the chunks of each."""
    s = tl.arange(0, BS)
    at = PARTIAL + ((b[:, None] * CHUNKS + s[None, :]) * 4 + channel) * 3
    mask = valid[:, None] & (s[None, :] < CHUNKS)
    m = tl.load(at, mask=mask, other=-float("inf"))
    highest = tl.max(tl.where(valid[:, None], m, 0.0), 1)
    scale = tl.where(mask, tl.exp(m - highest[:, None]), 0.0)
    total = tl.sum(tl.load(at + 1, mask=mask, other=0.0) * scale, 1)
    total = tl.where(valid, total, 1.0)
    return tl.sum(tl.load(at + 2, mask=mask, other=0.0) * scale, 1) / total, highest, total


@triton.jit
def _shifts(PARTIAL, STATS, b, valid, CHUNKS, max_angle, WRITE: tl.constexpr, BS: tl.constexpr):
    """The three shifts of the samples b; if WRITE, what the backward needs goes to STATS (B, 4, 3)."""
    x, xm, xs = _pooled(PARTIAL, b, valid, CHUNKS, 0, BS)
    y, ym, ys = _pooled(PARTIAL, b, valid, CHUNKS, 1, BS)
    z, zm, zs = _pooled(PARTIAL, b, valid, CHUNKS, 2, BS)
    a, am, an = _pooled(PARTIAL, b, valid, CHUNKS, 3, BS)
    if WRITE:
        to = STATS + b * 12
        tl.store(to, x, mask=valid)
        tl.store(to + 1, xm, mask=valid)
        tl.store(to + 2, xs, mask=valid)
        tl.store(to + 3, y, mask=valid)
        tl.store(to + 4, ym, mask=valid)
        tl.store(to + 5, ys, mask=valid)
        tl.store(to + 6, z, mask=valid)
        tl.store(to + 7, zm, mask=valid)
        tl.store(to + 8, zs, mask=valid)
        tl.store(to + 9, a, mask=valid)
        tl.store(to + 10, am, mask=valid)
        tl.store(to + 11, an, mask=valid)
    rate = max_angle * _tanh(a) / (tl.sqrt(x * x + y * y + z * z) + 1e-8)
    return 1 - rate * (y - z), 1 - rate * (z - x), 1 - rate * (x - y)


@triton.jit
def _mix(PARTIAL, MIXING, SHIFT, MEAN, STATS, B, CHUNKS, max_angle, KD: tl.constexpr, KH: tl.constexpr,
         KW: tl.constexpr, BB: tl.constexpr, BS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Shift and a block of the mixing matrix of one sample; the first program also takes the mean of all shifts."""
    sample, block = tl.program_id(0), tl.program_id(1)
    one = sample + tl.arange(0, 1)
    s0, s1, s2 = _shifts(PARTIAL, STATS, one, one < B, CHUNKS, max_angle, True, BS)
    tl.store(SHIFT + one * 3, s0)
    tl.store(SHIFT + one * 3 + 1, s1)
    tl.store(SHIFT + one * 3 + 2, s2)
    if (sample == 0) & (block == 0):
        every = tl.arange(0, BB)
        m0, m1, m2 = _shifts(PARTIAL, STATS, every, every < B, CHUNKS, max_angle, False, BS)
        tl.store(MEAN, tl.sum(tl.where(every < B, m0, 0.0), 0) / B)
        tl.store(MEAN + 1, tl.sum(tl.where(every < B, m1, 0.0), 0) / B)
        tl.store(MEAN + 2, tl.sum(tl.where(every < B, m2, 0.0), 0) / B)
    size: tl.constexpr = KH * KW * KD * KH * KW
    e = block * BLOCK + tl.arange(0, BLOCK)
    d, h, w = _offsets(e, KD, KH, KW)
    dr, di = _impulse(d - s0, KD)
    hr, hi = _impulse(h - s1, KH)
    wr, wi = _impulse(w - s2, KW)
    tl.store(MIXING + sample * size + e, _real_product(dr, di, hr, hi, wr, wi), mask=e < size)


@triton.jit
def _mix_backward(GRAD, GRAD_SHIFT, SHIFT, STATS, GRAD_POOLED, max_angle, HAS_SHIFT: tl.constexpr, KD: tl.constexpr,
                  KH: tl.constexpr, KW: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Gradient of the four pooled values of one sample."""
    b = tl.program_id(0)
    s0, s1, s2 = tl.load(SHIFT + b * 3), tl.load(SHIFT + b * 3 + 1), tl.load(SHIFT + b * 3 + 2)
    size: tl.constexpr = KH * KW * KD * KH * KW
    g0, g1, g2 = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        e = start + tl.arange(0, BLOCK)
        g = tl.load(GRAD + b * size + e, mask=e < size, other=0.0).to(tl.float32)
        d, h, w = _offsets(e, KD, KH, KW)
        dr, di = _impulse(d - s0, KD)
        hr, hi = _impulse(h - s1, KH)
        wr, wi = _impulse(w - s2, KW)
        sr, si = _impulse_slope(d - s0, KD)
        g0 += g * _real_product(sr, si, hr, hi, wr, wi)
        sr, si = _impulse_slope(h - s1, KH)
        g1 += g * _real_product(dr, di, sr, si, wr, wi)
        sr, si = _impulse_slope(w - s2, KW)
        g2 += g * _real_product(dr, di, hr, hi, sr, si)
    t0, t1, t2 = tl.sum(g0, 0), tl.sum(g1, 0), tl.sum(g2, 0)
    if HAS_SHIFT:
        t0 += tl.load(GRAD_SHIFT + b * 3)
        t1 += tl.load(GRAD_SHIFT + b * 3 + 1)
        t2 += tl.load(GRAD_SHIFT + b * 3 + 2)
    # shift = 1 - rate · (y - z, z - x, x - y), rate = max_angle · tanh(a) / (|(x, y, z)| + 1e-8)
    x, y, z, a = tl.load(STATS + b * 12), tl.load(STATS + b * 12 + 3), tl.load(STATS + b * 12 + 6), tl.load(
        STATS + b * 12 + 9
    )  # fmt: skip
    length = tl.sqrt(x * x + y * y + z * z)
    scaled, angle = length + 1e-8, _tanh(a)
    rate = max_angle * angle / scaled
    to_rate = -(t0 * (y - z) + t1 * (z - x) + t2 * (x - y))
    to_length = -to_rate * rate / scaled / tl.maximum(length, 1e-30)
    tl.store(GRAD_POOLED + b * 4, rate * (t1 - t2) + to_length * x)
    tl.store(GRAD_POOLED + b * 4 + 1, rate * (t2 - t0) + to_length * y)
    tl.store(GRAD_POOLED + b * 4 + 2, rate * (t0 - t1) + to_length * z)
    tl.store(GRAD_POOLED + b * 4 + 3, to_rate * max_angle / scaled * (1 - angle * angle))


@triton.jit
def _pool_backward(H, WEIGHT, BIAS, STATS, GRAD_POOLED, GRAD_H, PARTIAL, C, L, CHUNK, s_b, s_c, s_l, g_b, g_c, g_l,
                   HAS_BIAS: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr):  # fmt: skip
    """Gradient of the features over one chunk of positions, and what that chunk adds to those of weight and bias."""
    b, chunk = tl.program_id(0), tl.program_id(1)
    c = tl.arange(0, BC)
    base, to = H + b.to(tl.int64) * s_b, GRAD_H + b.to(tl.int64) * g_b
    end = tl.minimum(L, (chunk + 1) * CHUNK)
    four = tl.arange(0, 4)
    weight = tl.load(WEIGHT + four[:, None] * C + c[None, :], mask=c[None, :] < C, other=0.0).to(tl.float32)
    bias = tl.zeros((4,), tl.float32)
    if HAS_BIAS:
        bias += tl.load(BIAS + four).to(tl.float32)
    pooled, m, s = tl.load(STATS + b * 12 + four * 3), tl.load(STATS + b * 12 + four * 3 + 1), tl.load(
        STATS + b * 12 + four * 3 + 2
    )  # fmt: skip
    grad = tl.load(GRAD_POOLED + b * 4 + four) / s
    to_weight = tl.zeros((4, BC), tl.float32)
    to_bias = tl.zeros((4,), tl.float32)
    for start in range(chunk * CHUNK, end, BL):
        at = start + tl.arange(0, BL)
        inside = at < end
        mask = (c[:, None] < C) & inside[None, :]
        h = tl.load(base + c[:, None] * s_c + at[None, :] * s_l, mask=mask, other=0.0).to(tl.float32)
        to_h = tl.zeros((BC, BL), tl.float32)
        for out in tl.static_range(4):
            is_out = (four == out).to(tl.float32)
            w = tl.sum(weight * is_out[:, None], 0)
            v = tl.sum(w[:, None] * h, 0) + tl.sum(bias * is_out, 0)
            slope = tl.exp(v - tl.sum(m * is_out, 0)) * (1 + v - tl.sum(pooled * is_out, 0))
            g = tl.where(inside, tl.sum(grad * is_out, 0) * slope, 0.0)
            to_h += w[:, None] * g[None, :]
            to_weight += is_out[:, None] * tl.sum(h * g[None, :], 1)[None, :]
            to_bias += is_out * tl.sum(g, 0)
        tl.store(to + c[:, None] * g_c + at[None, :] * g_l, to_h.to(GRAD_H.dtype.element_ty), mask=mask)
    row = PARTIAL + (b * tl.num_programs(1) + chunk) * 4 * (C + 1) + four * (C + 1)
    tl.store(row[:, None] + c[None, :], to_weight, mask=c[None, :] < C)
    tl.store(row + C, to_bias)


def _chunks(batch: int, positions: int) -> tuple[int, int]:
    """Chunks of positions, and positions of a chunk: enough programs for small batches, few partial sums for large."""
    chunks = max(1, min(triton.cdiv(positions, POOL_BLOCK), POOL_PROGRAMS // max(batch, 1), 16))
    return chunks, triton.cdiv(positions, chunks)


def mixing_forward(
    features: Tensor, weight: Tensor, bias: Tensor | None, bank: list[int], max_angle: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two kernels: mixing (B, P, Q), shift (B, 3), their mean (3,), and per channel pooled value, maximum, Σ e."""
    flat, weight = features.flatten(2), weight.contiguous()
    batch, channels, positions = flat.shape
    chunks, chunk = _chunks(batch, positions)

    def make(*shape: int) -> Tensor:
        return torch.empty(shape, device=flat.device, dtype=torch.float32)

    partial, stats = make(batch, chunks, 4, 3), make(batch, 4, 3)
    mixing, shift, mean = make(batch, bank[1] * bank[2], math.prod(bank)), make(batch, 3), make(3)
    _pool[(batch, chunks)](
        flat, weight, bias, partial, channels, positions, chunk, *flat.stride(), HAS_BIAS=bias is not None,
        BC=max(triton.next_power_of_2(channels), 4), BL=POOL_BLOCK,
    )  # fmt: skip
    _mix[(batch, triton.cdiv(mixing[0].numel(), MIX_BLOCK))](
        partial, mixing, shift, mean, stats, batch, chunks, max_angle, KD=bank[0], KH=bank[1], KW=bank[2],
        BB=triton.next_power_of_2(batch), BS=triton.next_power_of_2(chunks), BLOCK=MIX_BLOCK,
    )  # fmt: skip
    return mixing, shift, mean, stats


def mixing_backward(
    grad: Tensor, grad_shift: Tensor | None, features: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor,
    stats: Tensor, bank: list[int], max_angle: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Two kernels, and a sum over programs: gradients of features, weight (4, C) and bias (4,)."""
    flat, weight, grad = features.flatten(2), weight.contiguous(), grad.contiguous()
    batch, channels, positions = flat.shape
    chunks, chunk = _chunks(batch, positions)
    to_pooled = torch.empty(batch, 4, device=flat.device, dtype=torch.float32)
    _mix_backward[(batch,)](
        grad, None if grad_shift is None else grad_shift.contiguous(), shift, stats, to_pooled, max_angle,
        HAS_SHIFT=grad_shift is not None, KD=bank[0], KH=bank[1], KW=bank[2], BLOCK=MIX_BLOCK,
    )  # fmt: skip
    to_features = torch.empty_like(flat)
    partial = torch.empty(batch * chunks, 4, channels + 1, device=flat.device, dtype=torch.float32)
    _pool_backward[(batch, chunks)](
        flat, weight, bias, stats, to_pooled, to_features, partial, channels, positions, chunk, *flat.stride(),
        *to_features.stride(), HAS_BIAS=bias is not None, BC=max(triton.next_power_of_2(channels), 4), BL=POOL_BLOCK,
    )  # fmt: skip
    total = partial.sum(0)
    to_weight, to_bias = (t.contiguous().to(weight.dtype) for t in (total[:, :-1], total[:, -1]))
    return to_features.view(features.shape), to_weight, to_bias


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


def _arguments(x: Tensor, weight: Tensor, out: list[int], stride: list[int], pads: list[int], dilation: list[int],
               groups: int) -> tuple[int, ...]:  # fmt: skip
    height, width = x.shape[2:]
    channels, outputs = weight.shape[1], weight.shape[0] // groups
    bucket = _bucket(out[0] * out[1])
    return height, width, channels, outputs, groups, *out, *stride, pads[0], pads[2], *dilation, bucket


def conv_forward(
    x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, size: list[int], stride: list[int],
    pads: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """Sample b of (B, C, H, W) with the kernel mixing[b] · bank, channels last."""
    x = _last(x)
    batch, out = x.shape[0], output_size(list(x.shape[2:]), size, stride, pads, dilation)
    shape = (batch, weight.shape[0], *out)
    y = torch.empty(shape, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
    outputs = weight.shape[0] // groups

    def grid(meta: dict) -> tuple[int, int, int]:
        return batch * groups, triton.cdiv(out[0] * out[1], meta["BLOCK_M"]), triton.cdiv(outputs, meta["BLOCK_N"])

    _conv[grid](
        x, make_kernels(weight, mixing, x.dtype), bias, y, *_arguments(x, weight, out, stride, pads, dilation, groups),
        KW=size[1], TAPS=math.prod(size), HAS_BIAS=bias is not None, FEW=weight.shape[1] < 16,
        PRECISION=_precision(x),
    )  # fmt: skip
    return y


def conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mixing: Tensor, size: list[int], stride: list[int], pads: list[int],
    dilation: list[int], groups: int, needed: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of input, bank and mixing, of those that are needed."""
    x, grad = _last(x), _last(grad.to(x.dtype))
    batch, out = x.shape[0], list(grad.shape[2:])
    arguments = _arguments(x, weight, out, stride, pads, dilation, groups)
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
