# SPDX-License-Identifier: Apache-2.0
r"""Cross-D where operations just run: the mixing matrix in few of them, and three ways to convolve with it.

**The mixing matrix.** The formulas are those of shift.py, which stay what is scripted, compiled, exported, transformed
by torch.func, and differentiated twice. On small maps a layer's time is the number of its operations, so here

- shift = 1 − θ̂ C a / (|a| + 1e-8), C a = (a_y − a_z, a_z − a_x, a_x − a_y), is one product and one addcmul;
- the shifted impulse is one product of waves cos(2π f·s), sin(2π f·s) with a constant table, over all frequencies f
  of the bank at once: the real part of the whole product over the axes is Σ_f cos(2π f·(n − s)) / N.

**A kernel per sample.** All ways compute y[b] = conv(x[b], W[b]) with W[b] = M[b]·U, U the bank and M[b] a small
matrix per sample:

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

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary

from .geometry import Geometry, convolve, crop_and_pad, with_groups
from .graphs import autocast_dtype, constants, formula_gradients, is_eager, kept_constant, no_autocast
from .shift import circulant_index, full_precision, mix_kernels, shift_from_map, shift_mixing

SMALL_BANK = 64  # elements of a bank up to which one table holds the whole mixing matrix, in single precision


def predict_shift(rotation_map: Tensor, max_angle: float) -> Tensor:
    """`shift_from_map` in few operations where they just run; TorchScript."""
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript drops a branch on just this
        if is_eager():
            return _shift_eager(rotation_map, max_angle)
    return shift_from_map(rotation_map, max_angle)


def middle_mixing(shift: Tensor, bank: list[int]) -> Tensor:
    """`shift_mixing` of the middle slice, in few operations where they just run; TorchScript."""
    shift = full_precision(shift)
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript drops a branch on just this
        if is_eager():
            return _mixing_eager(shift, bank)
    return shift_mixing(shift, bank, True)


def _shift_eager(rotation_map: Tensor, max_angle: float) -> Tensor:
    if has_torch_function_unary(rotation_map):  # a MetaTensor: a shift has no use for its metadata
        rotation_map = rotation_map.as_subclass(Tensor)
    shift: Tensor = _ShiftFromMap.apply(full_precision(rotation_map.flatten(2)), max_angle)
    return shift


def _mixing_eager(shift: Tensor, bank: list[int]) -> Tensor:
    # a sum over the hundreds of frequencies of a large bank would lose what the product over its axes keeps
    exact = shift if math.prod(bank) <= SMALL_BANK else shift.double()
    mixing: Tensor = _Mixing.apply(exact, tuple(bank))
    return mixing.to(shift.dtype)


def mix_kernels_few(weight: Tensor, mixing: Tensor, size: list[int]) -> Tensor:
    """`mix_kernels`, laid out as a convolution wants them without a copy; eager."""
    weight = weight.to(autocast_dtype(weight) or weight.dtype)
    kernels: Tensor = _MixKernels.apply(weight, mixing.to(weight.dtype), size)
    return kernels


@kept_constant
def _turn(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Cᵀ: axis @ Cᵀ = (y − z, z − x, x − y)."""
    return torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], dtype=dtype, device=device)


@kept_constant
def _one(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.ones(1, dtype=dtype, device=device)


class _ShiftFromMap(torch.autograd.Function):
    """`shift_from_map` of (B, 4, L)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, max_angle: float) -> Tensor:
        with no_autocast(values):
            weights = torch.softmax(values, -1)
            pooled = (values * weights).sum(-1)
            axis = pooled[:, :3]
            length = torch.linalg.vector_norm(axis, dim=1, keepdim=True)
            scaled, angle = length + 1e-8, torch.tanh(pooled[:, 3:])
            rate, turned = angle / scaled, axis @ _turn(values.device, values.dtype)
            shift = torch.addcmul(_one(values.device, values.dtype), rate, turned, value=-max_angle)
        ctx.save_for_backward(values, weights, pooled, length, scaled, angle, rate, turned)
        ctx.max_angle = max_angle
        return shift

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        values, weights, pooled, length, scaled, angle, rate, turned = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: through operations that can be differentiated again
            return *formula_gradients(lambda v: shift_from_map(v, ctx.max_angle), [values], [True], [grad]), None
        with no_autocast(values):
            grad = grad * -ctx.max_angle
            to_angle = (grad * turned).sum(1, keepdim=True) / scaled
            unit = pooled[:, :3] / length.clamp_min(torch.finfo(length.dtype).tiny)
            to_axis = (grad * rate) @ _turn(values.device, values.dtype).t()
            to_axis = torch.addcmul(to_axis, to_angle * rate, unit, value=-1)
            to_pooled = torch.cat([to_axis, torch.ops.aten.tanh_backward(to_angle, angle)], dim=1)
            slope = torch.addcmul(weights, weights, values - pooled.unsqueeze(-1))
            return slope.mul_(to_pooled.unsqueeze(-1)), None


def frequencies(size: tuple[int, ...]) -> tuple[list[tuple[float, ...]], list[int]]:
    """Frequencies of a bank, one of each pair f and −f, and how often each counts.

    At the Nyquist frequency of an even size, −1/2, there is no +1/2 beside it, so such an f counts once.
    """
    axes = [[f if f <= (k - 1) // 2 else f - k for f in range(k)] for k in size]
    grid = set(itertools.product(*axes))
    kept, times = [], []
    for f in sorted(grid):
        mirrored = tuple(-v for v in f)
        if mirrored not in grid or mirrored >= f:
            kept.append(tuple(v / k for v, k in zip(f, size, strict=True)))
            times.append(2 if mirrored in grid and mirrored != f else 1)
    return kept, times


@kept_constant
def _waves(size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, 2F): 2π f, twice, and the phases 0 and −π/2, as cos(x − π/2) = sin x."""
    kept, _ = frequencies(size)
    rates = torch.tensor(kept, dtype=torch.float64, device="cpu").t() * (2 * math.pi)
    phases = torch.tensor([0.0, -math.pi / 2], dtype=torch.float64, device="cpu").repeat_interleave(len(kept))
    return torch.cat([rates.repeat(1, 2), phases.unsqueeze(0)]).to(device, dtype)


@kept_constant
def _table(size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """What each wave adds: to each element of the mixing matrix (2F, P*N), or of a large bank's impulse (2F, N)."""
    kept, times = frequencies(size)
    where = torch.cartesian_prod(*(torch.arange(k, dtype=torch.float64, device="cpu") for k in size)).view(-1, 3).t()
    angles = torch.tensor(kept, dtype=torch.float64, device="cpu") @ where * (2 * math.pi)
    weights = torch.tensor(times, dtype=torch.float64, device="cpu").unsqueeze(1) / math.prod(size)
    table = torch.cat([angles.cos() * weights, angles.sin() * weights])
    if math.prod(size) <= SMALL_BANK:
        table = table[:, _index(size, torch.device("cpu"))]
    return table.to(device, dtype)


@kept_constant
def _index(size: tuple[int, ...], device: torch.device) -> Tensor:
    """(P*N,): which element of the impulse stands where in the mixing matrix."""
    return circulant_index(list(size), True, torch.device("cpu")).to(device)


@kept_constant
def _inverse_index(size: tuple[int, ...], device: torch.device) -> Tensor:
    """(P*N,): where in each row of the mixing matrix an element of the impulse stands; each row holds all of them."""
    rows = _index(size, torch.device("cpu")).view(-1, math.prod(size))
    starts = torch.arange(len(rows), device="cpu").unsqueeze(1) * rows.shape[1]
    return (rows.argsort(1) + starts).flatten().to(device)


class _Mixing(torch.autograd.Function):
    """`shift_mixing` of the middle slice, (B, P, N)."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor, size: tuple[int, ...]) -> Tensor:
        key = size, shift.device, shift.dtype
        with no_autocast(shift):
            waves = _waves(*key)
            phase = torch.addmm(waves[3], shift, waves[:3])
            mixing = torch.cos(phase) @ _table(*key)
            if math.prod(size) > SMALL_BANK:
                mixing = mixing.index_select(1, _index(size, shift.device))
        ctx.save_for_backward(shift, phase)
        ctx.size = size
        return mixing.view(shift.shape[0], size[1] * size[2], math.prod(size))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        shift, phase = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *formula_gradients(lambda s: shift_mixing(s, list(ctx.size), True), [shift], [True], [grad]), None
        key = ctx.size, shift.device, shift.dtype
        with no_autocast(shift):
            to_table = grad.flatten(1)
            if math.prod(ctx.size) > SMALL_BANK:
                to_table = to_table.index_select(1, _inverse_index(ctx.size, shift.device)).view_as(grad).sum(1)
            to_phase = (to_table @ _table(*key).t()).mul_(torch.sin(phase))
            return torch.addmm(shift, to_phase, _waves(*key)[:3].t(), beta=0, alpha=-1), None


class _MixKernels(torch.autograd.Function):
    """`mix_kernels` as a product per sample; in the backward one product serves all samples."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mixing: Tensor, size: list[int]) -> Tensor:
        ctx.save_for_backward(weight, mixing)
        ctx.size = size
        bank = weight.flatten(2).flatten(0, 1)  # (O*I, Q)
        with no_autocast(weight):
            kernels = torch.bmm(bank.expand(mixing.shape[0], -1, -1), mixing.transpose(1, 2))  # (B, O*I, P)
        return kernels.view([mixing.shape[0], *weight.shape[:2], *size])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, mixing = ctx.saved_tensors
        if torch.is_grad_enabled():
            needed = ctx.needs_input_grad[:2]
            return *formula_gradients(lambda w, m: mix_kernels(w, m, ctx.size), [weight, mixing], needed, [grad]), None
        to_weight = to_mixing = None
        with no_autocast(weight):
            rows = grad.flatten(3).flatten(1, 2).transpose(0, 1).flatten(1)  # (O*I, B*P), a copy
            if ctx.needs_input_grad[0]:
                to_weight = (rows @ mixing.flatten(0, 1)).view_as(weight)
            if ctx.needs_input_grad[1]:
                to_mixing = (rows.t() @ weight.flatten(2).flatten(0, 1)).view_as(mixing)
        return to_weight, to_mixing, None


# ---------------------------------------------------------------------------------------- a kernel per sample


def grouped_conv(x: Tensor, kernels: Tensor, geometry: Geometry) -> Tensor:
    """Sample b with kernels[b]: the batch as groups of one convolution; TorchScript."""
    batch = x.shape[0]
    folded = x.reshape([1, batch * x.shape[1]] + list(x.shape[2:]))
    y = convolve(folded, kernels.flatten(0, 1), None, with_groups(geometry, batch * geometry.groups))
    return y.view([batch, kernels.shape[1]] + list(y.shape[2:]))


def conv_patches(x: Tensor, geometry: Geometry) -> Tensor:
    """Patches (B, C*P, *out) of a convolution in any number of dimensions: a convolution that picks them."""
    channels, taps = constants([x.shape[1]])[0], math.prod(geometry.kernel_size)
    pick = torch.eye(taps, dtype=x.dtype, device=x.device).repeat(channels, 1)
    pick = pick.view([channels * taps, 1, *geometry.kernel_size])
    return convolve(x, pick, None, with_groups(geometry, channels))


def shared_conv(x: Tensor, weight: Tensor, mixing: Tensor, geometry: Geometry) -> Tensor:
    """One product of the bank with the mixed patches of the whole batch."""
    batch, taps, bank_taps = mixing.shape
    patches = conv_patches(x, geometry)
    out = patches.shape[2:]
    columns = patches.flatten(2).transpose(1, 2).reshape(batch, -1, taps)  # (B, L*C, P)
    rows = torch.bmm(columns, mixing.to(x.dtype)).view(
        -1, geometry.groups, weight.shape[1] * bank_taps
    )  # (B*L, g, I*Q)
    bank = weight.flatten(1)
    if geometry.groups == 1:  # bmm with one matrix is slower than mm
        y = rows[:, 0] @ bank.t()
    else:
        y = torch.einsum("ngk,gok->ngo", rows, bank.unflatten(0, (geometry.groups, -1))).flatten(1)
    return y.view(batch, -1, weight.shape[0]).transpose(1, 2).reshape(batch, weight.shape[0], *out)


def _one_kernel(weight: Tensor, mixing: Tensor, size: list[int]) -> Tensor:
    """Kernel (O, I, *size) of one sample, mixing (P, Q), laid out channels last."""
    out, in_per_group = weight.shape[:2]
    kernel = torch.bmm(mixing.expand(out, -1, -1), weight.flatten(2).transpose(1, 2))  # (O, P, I)
    return kernel.view(out, *size, in_per_group).movedim(-1, 1)


class _PerSampleConv(torch.autograd.Function):
    """One convolution per sample; neither a kernel nor its gradient outlives its sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, mixing: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight, mixing)
        ctx.geometry = geometry
        kernels = (_one_kernel(weight, m, geometry.kernel_size) for m in mixing)
        return torch.cat([convolve(x[b : b + 1], kernel, None, geometry) for b, kernel in enumerate(kernels)])

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        inputs, needed, geometry = ctx.saved_tensors, ctx.needs_input_grad[:3], ctx.geometry
        if torch.is_grad_enabled():  # create_graph=True: through operations that can be differentiated again

            def formula(x: Tensor, weight: Tensor, mixing: Tensor) -> Tensor:
                return grouped_conv(x, mix_kernels(weight, mixing, geometry.kernel_size), geometry)

            return (*formula_gradients(formula, inputs, needed, [gy]), None)
        x, weight, mixing = inputs
        bank = weight.flatten(2)  # (O, I, Q)
        gx = torch.empty_like(x) if needed[0] else None
        gw = torch.zeros_like(bank, memory_format=torch.contiguous_format) if needed[1] else None
        gm = torch.empty_like(mixing) if needed[2] else None
        mask = [needed[0], needed[1] or needed[2], False]
        stride, dilation, groups, none = geometry.stride, geometry.dilation, geometry.groups, [0] * len(geometry.stride)
        for b in range(x.shape[0]):
            kernel = _one_kernel(weight, mixing[b], geometry.kernel_size)
            part, gk, _ = torch.ops.aten.convolution_backward(
                gy[b : b + 1], x[b : b + 1], kernel, None, stride, geometry.pads[::2], dilation, False, none, groups,
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
        return gx, None if gw is None else gw.view_as(weight), gm, None


def per_sample_loop(x: Tensor, weight: Tensor, mixing: Tensor, geometry: Geometry) -> Tensor:
    """One convolution after the other, kernels made anew in the backward."""
    dtype = autocast_dtype(x)
    if dtype is not None:  # what a convolution would do; here its inputs have to agree beforehand
        x, weight = x.to(dtype), weight.to(dtype)
    x, symmetric = crop_and_pad(x, geometry.pads)
    rest = geometry._replace(pads=[p for p in symmetric for _ in (0, 1)])
    return _PerSampleConv.apply(x, weight, mixing.to(weight.dtype), rest)
