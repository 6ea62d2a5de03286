# SPDX-License-Identifier: Apache-2.0
"""Cross-D as two operators of torch.library: features to mixing matrix, and a convolution per sample.

On CUDA they run the kernels of mixing_triton.py and crossd_triton.py, everywhere else (and in what those do not serve)
torch's operations, so that each operator has one meaning. `torch.compile` and CUDA graphs see them as they are; what is
exported does not hold them. Differentiated twice, they give way to the formulas of shift.py and crossd_cpu.py.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .crossd_cpu import grouped_conv
from .geometry import Geometry, add_bias, output_size, pack, unpack
from .graphs import autocast_dtype, formula_gradients, no_autocast
from .rule import fits_kernels, has_kernels
from .shift import full_precision, mix_kernels, shift_from_map, shift_mixing

# ---------------------------------------------------------------------------------------- features to mixing matrix


def rotation_map(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The predictor's last layer, (B, 4, L), in single precision at least."""
    y = torch.einsum("oc,bcl->bol", full_precision(weight), full_precision(features.flatten(2)))
    return y if bias is None else y + full_precision(bias).view(1, 4, 1)


@torch.library.custom_op(
    "monai_crossd::mixing_from_features",
    mutates_args=(),
    schema="(Tensor features, Tensor weight, Tensor? bias, int[] bank, float max_angle)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def mixing_from_features(
    features: Tensor, weight: Tensor, bias: Tensor | None, bank: list[int], max_angle: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mixing (B, P, Q), shift (B, 3), mean shift (3,) and what the backward needs, from the predictor's features.

    Args:
        features: (B, C, *), of any number of positions.
        weight: (4, C), the predictor's last layer.
        bias: (4,) or None.
        bank: sizes of the bank, through-plane axis first.
        max_angle: largest angle in radians.
    """
    if has_kernels(features):
        from .mixing_triton import mixing_forward

        return mixing_forward(features, weight, bias, bank, max_angle)
    with no_autocast(features):
        values = rotation_map(features, weight, bias)
        highest = values.amax(-1)
        e = torch.exp(values - highest.unsqueeze(-1))
        stats = torch.stack([(values * e).sum(-1) / e.sum(-1), highest, e.sum(-1)], dim=-1)
        shift = shift_from_map(values, max_angle)
        return shift_mixing(shift, bank, True), shift, shift.mean(0), stats


@mixing_from_features.register_fake
def _(features: Tensor, weight: Tensor, bias: Tensor | None, bank: list[int], max_angle: float) -> Any:
    batch, dtype = features.shape[0], torch.promote_types(features.dtype, torch.float32)

    def make(*shape: Any) -> Tensor:
        return features.new_empty(shape, dtype=dtype)

    return make(batch, bank[1] * bank[2], math.prod(bank)), make(batch, 3), make(3), make(batch, 4, 3)


@torch.library.custom_op(
    "monai_crossd::mixing_from_features_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor? grad_shift, Tensor features, Tensor weight, Tensor? bias, Tensor shift, Tensor stats,"
    " *, int[] bank, float max_angle) -> (Tensor, Tensor, Tensor)",
)
def mixing_from_features_backward(
    grad: Tensor, grad_shift: Tensor | None, features: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor,
    stats: Tensor, *, bank: list[int], max_angle: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of features, weight and bias, by Triton's kernels."""
    from .mixing_triton import mixing_backward

    return mixing_backward(grad, grad_shift, features, weight, bias, shift, stats, bank=bank, max_angle=max_angle)


@mixing_from_features_backward.register_fake
def _(
    grad: Tensor, grad_shift: Tensor | None, features: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor,
    stats: Tensor, *, bank: list[int], max_angle: float,
) -> Any:  # fmt: skip
    return torch.empty_like(features), weight.new_empty(weight.shape), weight.new_empty(4)


def _keep_features(ctx: Any, inputs: Any, output: Any) -> None:
    features, weight, bias, ctx.bank, ctx.max_angle = inputs
    _, shift, mean, stats = output
    ctx.save_for_backward(features, weight, bias, shift, stats)
    ctx.mark_non_differentiable(mean, stats)
    ctx.set_materialize_grads(False)


def _mixing_gradients(ctx: Any, grad: Tensor | None, grad_shift: Tensor | None, *_: Any) -> Any:
    features, weight, bias, shift, stats = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]
    if _by_formula(has_kernels(features)):

        def formula(features: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
            again = shift_from_map(rotation_map(features, weight, bias), ctx.max_angle)
            return [shift_mixing(again, ctx.bank, True), again]

        with no_autocast(features):
            return (*formula_gradients(formula, (features, weight, bias), needed, (grad, grad_shift)), None, None)
    if grad is None:
        grad = shift.new_zeros(shift.shape[0], ctx.bank[1] * ctx.bank[2], math.prod(ctx.bank))
    found = mixing_from_features_backward(
        grad, grad_shift, features, weight, bias, shift, stats, bank=ctx.bank, max_angle=ctx.max_angle
    )
    return (*(g if need else None for g, need in zip(found, needed, strict=True)), None, None)


def _by_formula(kernels: bool) -> bool:
    """Whether gradients go through torch's operations: without a kernel, or to be differentiated (create_graph)."""
    return not kernels or (torch.is_grad_enabled() and not torch.compiler.is_compiling())


mixing_from_features.register_autograd(_mixing_gradients, setup_context=_keep_features)


# ---------------------------------------------------------------------------------------- a convolution per sample


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


@torch.library.custom_op(
    "monai_crossd::sample_conv",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor mixing, Tensor? bias, int[] packed) -> Tensor",
)
def sample_conv(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, packed: list[int]) -> Tensor:
    """Sample b of `x` with the kernel mixing[b] · bank, as `mixed_conv`; the geometry is packed. Channels last.

    A bank of another dtype than `x` is rounded to that of `x`.
    """
    geometry = unpack(packed)
    if fits_kernels(x, weight):
        from .crossd_triton import conv_forward

        return conv_forward(x, weight, mixing, bias, geometry)
    with no_autocast(x):
        y = _grouped(x, weight, mixing, geometry)
    return _last(add_bias(y, bias))


def _grouped(x: Tensor, weight: Tensor, mixing: Tensor, geometry: Geometry) -> Tensor:
    return grouped_conv(x, mix_kernels(weight.to(x.dtype), mixing, geometry.kernel_size), geometry)


@sample_conv.register_fake
def _(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, packed: list[int]) -> Tensor:
    return _last(x.new_empty([x.shape[0], weight.shape[0], *output_size(x.shape[2:], unpack(packed))]))


@torch.library.custom_op(
    "monai_crossd::sample_conv_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor weight, Tensor mixing, int[] packed, bool[] needed)"
    " -> (Tensor, Tensor, Tensor)",
)
def sample_conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, mixing: Tensor, packed: list[int], needed: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, bank and mixing; by Triton's kernels; what is not needed is empty."""
    from .crossd_triton import conv_backward

    found = conv_backward(grad, x, weight, mixing, unpack(packed), needed)
    to_x, to_weight, to_mixing = (grad.new_empty(0) if g is None else g for g in found)
    return to_x, to_weight, to_mixing


@sample_conv_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, mixing: Tensor, packed: list[int], needed: list[bool]) -> Any:
    shapes = (_last(x.new_empty(x.shape)), weight.new_empty(weight.shape), mixing.new_empty(mixing.shape))
    return tuple(t if need else grad.new_empty(0) for t, need in zip(shapes, needed, strict=True))


def _keep_conv(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, mixing, bias, ctx.packed = inputs
    ctx.save_for_backward(x, weight, mixing)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _conv_gradients(ctx: Any, grad: Tensor) -> Any:
    x, weight, mixing = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[:3])
    to_bias = None
    if ctx.needs_input_grad[3]:
        to_bias = grad.sum([0, *range(2, grad.dim())]).to(ctx.bias_dtype)
    if _by_formula(fits_kernels(x, weight)):
        geometry = unpack(ctx.packed)
        with no_autocast(x):
            formula = partial(_grouped, geometry=geometry)
            found = formula_gradients(formula, (x, weight, mixing), needed, [grad])
    else:
        made = sample_conv_backward(grad, x, weight, mixing, ctx.packed, needed)
        found = [g if need else None for g, need in zip(made, needed, strict=True)]
    return *found, to_bias, None


sample_conv.register_autograd(_conv_gradients, setup_context=_keep_conv)


def implicit_conv(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`mixed_conv` by one operator.

    Raises:
        RuntimeError: If the dtypes of `x` and `weight` differ, as for torch's convolutions.
    """
    dtype = autocast_dtype(x)
    if dtype is not None:
        x = x.to(dtype)
    elif x.dtype != weight.dtype:
        raise RuntimeError(f"input and weight must have one dtype, but are {x.dtype} and {weight.dtype}.")
    y: Tensor = sample_conv(x, weight, mixing, bias, pack(geometry))
    return y
