# SPDX-License-Identifier: Apache-2.0
"""A convolution in which every sample has its own kernel, mixing[b] · bank: one plain form, and who takes another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .crossd_cpu import conv_patches, grouped_conv, mix_kernels_few, per_sample_loop, shared_conv
from .crossd_gpu import implicit_conv
from .geometry import Geometry, add_bias, convolve, output_positions, pack, unpack
from .graphs import constants, is_compiled, is_eager, is_exporting
from .rule import pick_path, takes_operator
from .shift import mix_kernels


def mixed_conv(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve sample b with the kernel mixing[b] · bank, or every sample with that of a single mixing; TorchScript.

    Args:
        x: (B, C, *spatial).
        weight: (O, I, *bank), Q elements per pair of channels.
        mixing: (B or 1, P, Q), or (P, Q) of one kernel for all: a graph that is exported from a batch of one has to be
            told, as it may not ask for the size of the batch.
        bias: (O,) or None.
        geometry: Of kernels of P elements, padding mode "zeros".

    Returns:
        (B, O, *spatial out).
    """
    if mixing.dim() == 2:
        kernel = mix_kernels(weight, mixing.unsqueeze(0), geometry.kernel_size)[0]
        return convolve(x, kernel, bias, geometry)
    # TorchScript drops a branch on just this: it cannot ask whether a graph is being exported
    if not torch.jit.is_scripting():
        if is_exporting():
            y = per_sample_patches(x, mix_kernels(weight, mixing, geometry.kernel_size), geometry)
            return add_bias(y, bias)
        if is_eager() and mixing.shape[0] > 1 and x.shape[0] > 0:
            return _mixed_conv_eager(x, weight, mixing, bias, geometry)
        if is_compiled() and mixing.shape[0] > 1 and takes_operator(x, weight):
            return implicit_conv(x, weight, mixing, bias, geometry)
    return _mixed_conv_by_batch(x, weight, mixing, bias, pack(geometry))


@torch.jit.script_if_tracing
def _mixed_conv_by_batch(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, packed: list[int]) -> Tensor:
    """`mixed_conv` by the size of the batch; a trace takes all of it, scripted, not only the case of its example."""
    geometry = unpack(packed)
    kernels = mix_kernels(weight, mixing, geometry.kernel_size)
    if mixing.shape[0] == 1:
        return convolve(x, kernels[0], bias, geometry)
    if x.shape[0] == 0:
        # any kernel has the right shape for no sample; the zero keeps it in the graph, so gradients are zeros
        return convolve(x, kernels.sum(0), bias, geometry)
    return add_bias(grouped_conv(x, kernels, geometry), bias)


def _mixed_conv_eager(x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    if has_torch_function_unary(x):  # a MetaTensor: its metadata is carried once, not by every operation in here
        y: Tensor = handle_torch_function(_mixed_conv_eager, (x,), x, weight, mixing, bias, geometry)
        return y
    path = pick_path(x, weight, mixing, output_positions(list(x.shape[2:]), geometry))
    if path == "implicit":
        return implicit_conv(x, weight, mixing, bias, geometry)
    if path == "shared":
        y = shared_conv(x, weight, mixing, geometry)
    elif path == "per_sample":
        y = per_sample_loop(x, weight, mixing, geometry)
    else:
        y = grouped_conv(x, mix_kernels_few(weight, mixing, geometry.kernel_size), geometry)
    return add_bias(y, bias)


def per_sample_patches(x: Tensor, kernels: Tensor, geometry: Geometry) -> Tensor:
    """Per-sample kernels as a matrix product over patches: no batch size in the graph, so that it may stay dynamic."""
    patches = conv_patches(x, geometry)  # (B, C*taps, ...)
    # a copy, and not a view where the example's batch of one allows it, which would fix the batch
    kernels = kernels.clone(memory_format=torch.contiguous_format)
    rows = kernels.flatten(3).flatten(2).unflatten(1, [geometry.groups, -1])  # (B, groups, O/groups, I*taps)
    y = rows @ patches.flatten(2).unflatten(1, [geometry.groups, -1])  # one kernel for all is broadcast
    y = y.reshape([-1, kernels.shape[1], *patches.shape[2:]])
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        # tells the older ONNX exporter the number of channels, which it needs for an instance norm that follows
        y = y.index_select(1, torch.arange(constants(list(kernels.shape[1:2]))[0], device=y.device))
    return y
