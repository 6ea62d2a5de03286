# SPDX-License-Identifier: Apache-2.0
r"""Three ways to convolve every sample with its own mix of one kernel bank; `_rule.py` picks one by shape.

All compute y[b] = conv(x[b], W[b]) with W[b] = M[b]·U, U the bank and M[b] a small matrix per sample:

- **grouped**: all kernels at once and one grouped convolution. Least work; keeps B kernels for the backward.
- **per_sample**: one sample after the other, its kernel made anew in the backward. At most one kernel at a time in
  memory. Kernels are made channels last, which takes half the time where they are large.
- **shared**: M[b] is applied to the patches instead, y = U·(Mᵀ patches): one matrix product for the batch with no
  kernel per sample, but Q / P times the operations (3 for a 3×3×3 bank).

Forward and backward of the convolution relative to Conv2d, C to C channels, 3×3, two cores (AMD EPYC, AVX-512, torch
2.13); the rule picks what is marked. More in docs/speed.md.

=============== ======== ========== =======
shape           grouped  per_sample shared
=============== ======== ========== =======
8 × 64ch 56²    **1.1**  1.3
8 × 128ch 28²   **1.2**  1.5
32 × 128ch 28²  **1.3**  1.5
32 × 128ch 14²  **1.9**  2.6        9.6
8 × 256ch 28²   **1.2**  1.3
8 × 256ch 14²   2.0      **2.0**    6.2
32 × 256ch 14²  3.5      **2.0**    6.5
8 × 512ch 14²   3.5      **2.6**    7.7
8 × 512ch 10²   6.3      **3.2**    5.1
8 × 512ch 7²    10.3     6.0        **4.5**
8 × 512ch 4²    25.7     13.4       **4.5**
8 × 256ch 7²    4.7      6.0        **5.6**
=============== ======== ========== =======

(At 256ch 7² the few kernels of a batch of 8 still fit the cache; of 32, they would not.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._derivatives import formula_gradients
from ._geometry import constants, convolve, crop_and_pad
from ._rule import autocast_dtype
from .shift import mix_kernels


def grouped_conv(
    x: Tensor, kernels: Tensor, stride: list[int], pads: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Sample b with kernels[b]: the batch as groups of one convolution; TorchScript."""
    batch = x.shape[0]
    folded = x.reshape([1, batch * x.shape[1]] + list(x.shape[2:]))
    y = convolve(folded, kernels.flatten(0, 1), None, stride, pads, dilation, batch * groups)
    return y.view([batch, kernels.shape[1]] + list(y.shape[2:]))


def conv_patches(x: Tensor, size: list[int], stride: list[int], pads: list[int], dilation: list[int]) -> Tensor:
    """Patches (B, C*P, *out) of a convolution in any number of dimensions: a convolution that picks them."""
    channels, taps = constants([x.shape[1]])[0], math.prod(size)
    pick = torch.eye(taps, dtype=x.dtype, device=x.device).repeat(channels, 1).view([channels * taps, 1, *size])
    return convolve(x, pick, None, stride, pads, dilation, channels)


def shared_conv(
    x: Tensor, weight: Tensor, mixing: Tensor, size: list[int], stride: list[int], pads: list[int],
    dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """One product of the bank with the mixed patches of the whole batch."""
    batch, taps, bank_taps = mixing.shape
    patches = conv_patches(x, size, stride, pads, dilation)
    out = patches.shape[2:]
    columns = patches.flatten(2).transpose(1, 2).reshape(batch, -1, taps)  # (B, L*C, P)
    rows = torch.bmm(columns, mixing.to(x.dtype)).view(-1, groups, weight.shape[1] * bank_taps)  # (B*L, g, I*Q)
    bank = weight.flatten(1)
    if groups == 1:  # bmm with one matrix is slower than mm
        y = rows[:, 0] @ bank.t()
    else:
        y = torch.einsum("ngk,gok->ngo", rows, bank.unflatten(0, (groups, -1))).flatten(1)
    return y.view(batch, -1, weight.shape[0]).transpose(1, 2).reshape(batch, weight.shape[0], *out)


def _one_kernel(weight: Tensor, mixing: Tensor, size: list[int]) -> Tensor:
    """Kernel (O, I, *size) of one sample, mixing (P, Q), laid out channels last."""
    out, in_per_group = weight.shape[:2]
    kernel = torch.bmm(mixing.expand(out, -1, -1), weight.flatten(2).transpose(1, 2))  # (O, P, I)
    return kernel.view(out, *size, in_per_group).movedim(-1, 1)


class _PerSampleConv(torch.autograd.Function):
    """One convolution per sample; neither a kernel nor its gradient outlives its sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, mixing: Tensor, size: list[int], *geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight, mixing)
        ctx.size, ctx.geometry = size, geometry
        stride, padding, dilation, groups = geometry
        conv = torch.conv2d if x.dim() == 4 else torch.conv3d
        parts = [
            conv(x[b : b + 1], _one_kernel(weight, mixing[b], size), None, stride, padding, dilation, groups)
            for b in range(x.shape[0])
        ]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[:3]
        none = (None,) * (1 + len(ctx.geometry))
        if torch.is_grad_enabled():  # create_graph=True: through operations that can be differentiated again
            return (*_grouped_gradients(inputs, needed, ctx.size, ctx.geometry, gy), *none)
        x, weight, mixing = inputs
        stride, padding, dilation, groups = ctx.geometry
        bank = weight.flatten(2)  # (O, I, Q)
        gx = torch.empty_like(x) if needed[0] else None
        gw = torch.zeros_like(bank, memory_format=torch.contiguous_format) if needed[1] else None
        gm = torch.empty_like(mixing) if needed[2] else None
        mask = [needed[0], needed[1] or needed[2], False]
        for b in range(x.shape[0]):
            kernel = _one_kernel(weight, mixing[b], ctx.size)
            part, gk, _ = torch.ops.aten.convolution_backward(
                gy[b : b + 1], x[b : b + 1], kernel, None, stride, padding, dilation, False, [0] * len(stride), groups,
                mask,
            )  # fmt: skip
            if gx is not None:
                gx[b] = part[0]
            if gk is not None:
                gk = gk.flatten(2).transpose(1, 2).contiguous()  # (O, P, I); no copy if it is channels last
            if gw is not None:
                gw.baddbmm_(gk.transpose(1, 2), mixing[b].expand(bank.shape[0], -1, -1))
            if gm is not None:
                gm[b] = torch.bmm(gk, bank).sum(0)
        return (gx, None if gw is None else gw.view_as(weight), gm, *none)


def _grouped_gradients(inputs: Any, needed: Any, size: list[int], geometry: Any, gy: Tensor) -> list[Tensor | None]:
    stride, padding, dilation, groups = geometry
    pads = [p for p in padding for _ in (0, 1)]

    def formula(x: Tensor, weight: Tensor, mixing: Tensor) -> Tensor:
        return grouped_conv(x, mix_kernels(weight, mixing, size), stride, pads, dilation, groups)

    return formula_gradients(formula, inputs, needed, [gy])


def per_sample_loop(
    x: Tensor, weight: Tensor, mixing: Tensor, size: list[int], stride: list[int], pads: list[int],
    dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """One convolution after the other, kernels made anew in the backward."""
    dtype = autocast_dtype(x)
    if dtype is not None:  # what a convolution would do; here its inputs have to agree beforehand
        x, weight = x.to(dtype), weight.to(dtype)
    x, symmetric = crop_and_pad(x, pads)
    return _PerSampleConv.apply(x, weight, mixing.to(weight.dtype), size, stride, symmetric, dilation, groups)
