# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of Cross-D: from the predictor's features to the mixing matrix.

With TRITON_INTERPRET=1 all of it runs on a CPU, slowly. Importing this file needs Triton; `crossd_gpu.py` asks first.
"""

from __future__ import annotations

import math
import os

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
POOL_BLOCK = 32 if INTERPRETED else 512  # positions that a program holds at once
MIX_BLOCK = 256 if INTERPRETED else 1024  # elements of a mixing matrix that a program makes at once
POOL_PROGRAMS = 4 if INTERPRETED else 512  # programs of a pooling, about: four on a multiprocessor


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
    stats: Tensor, *, bank: list[int], max_angle: float,
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
