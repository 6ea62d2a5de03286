# SPDX-License-Identifier: Apache-2.0
"""Cross-D convolution: every sample is convolved with its own 2D kernel, the middle slice of the shifted bank.

References:
    M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
    Operation, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from ._geometry import (
    check_bias,
    check_convolution,
    check_input,
    constants,
    convolve,
    in_graph,
    is_exporting,
    ntuple,
    output_positions,
    pad_input,
    resolve_padding,
)
from ._rule import is_compiled, is_eager, pick_path, takes_operator
from .crossd_gpu import implicit_conv
from .crossd_paths import conv_patches, grouped_conv, per_sample_loop, shared_conv
from .depth_gate import gate_depth
from .inflate import spatial_axis
from .shift import check_bank, mix_kernels
from .shift_few import middle_mixing, mix_kernels_few


def _per_sample_patches(
    x: Tensor, kernels: Tensor, stride: list[int], pads: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Per-sample kernels as a matrix product over patches: no batch size in the graph, so that it may stay dynamic."""
    size = constants(list(kernels.shape[3:]))  # an exported convolution needs a kernel of known shape
    patches = conv_patches(x, size, stride, pads, dilation)  # (B, C*taps, ...)
    # a copy, and not a view where the example's batch of one allows it, which would fix the batch
    kernels = kernels.clone(memory_format=torch.contiguous_format)
    rows = kernels.flatten(3).flatten(2).unflatten(1, [groups, -1])  # (B, groups, O/groups, I*taps)
    y = rows @ patches.flatten(2).unflatten(1, [groups, -1])  # one kernel for all is broadcast
    y = y.reshape([-1, kernels.shape[1], *patches.shape[2:]])
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        # tells the older ONNX exporter the number of channels, which it needs for an instance norm that follows
        y = y.index_select(1, torch.arange(constants(list(kernels.shape[1:2]))[0], device=y.device))
    return y


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype).view([1, -1] + [1] * (y.dim() - 2))


def mixed_conv(
    x: Tensor,
    weight: Tensor,
    mixing: Tensor,
    size: list[int],
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Convolve sample b with the kernel mixing[b] · bank, or every sample with that of a single mixing; TorchScript.

    Args:
        x: (B, C, *spatial).
        weight: (O, I, *bank), Q elements per pair of channels.
        mixing: (B or 1, P, Q), or (P, Q) of one kernel for all: a graph that is exported from a batch of one has to be
            told, as it may not ask for the size of the batch.
        size: of the kernels, P elements.
        bias: (O,) or None.
        stride: one per spatial axis.
        pads: `[low, high]` zero padding per spatial axis, negative to crop.
        dilation: one per spatial axis.
        groups: as in torch.nn.Conv2d.

    Returns:
        (B, O, *spatial out).
    """
    if mixing.dim() == 2:
        kernel = mix_kernels(weight, mixing.unsqueeze(0), size)[0]
        return convolve(x, kernel, bias, stride, pads, dilation, groups)
    # TorchScript drops a branch on just this: it cannot ask whether a graph is being exported
    if not torch.jit.is_scripting():
        if is_exporting():
            y = _per_sample_patches(x, mix_kernels(weight, mixing, size), stride, pads, dilation, groups)
            return _add_bias(y, bias)
        if is_eager() and mixing.shape[0] > 1 and x.shape[0] > 0:
            return _mixed_conv_eager(x, weight, mixing, size, bias, stride, pads, dilation, groups)
        if is_compiled() and mixing.shape[0] > 1 and takes_operator(x, weight):
            return implicit_conv(x, weight, mixing, size, bias, stride, pads, dilation, groups)
    return _mixed_conv_by_batch(x, weight, mixing, size, bias, stride, pads, dilation, groups)


@torch.jit.script_if_tracing
def _mixed_conv_by_batch(
    x: Tensor,
    weight: Tensor,
    mixing: Tensor,
    size: list[int],
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """`mixed_conv` by the size of the batch; a trace takes all of it, scripted, not only the case of its example."""
    if mixing.shape[0] == 1:
        kernel = mix_kernels(weight, mixing, size)[0]
        return convolve(x, kernel, bias, stride, pads, dilation, groups)
    if x.shape[0] == 0:
        # any kernel has the right shape for no sample; the zero keeps it in the graph, so gradients are zeros
        return convolve(x, mix_kernels(weight, mixing, size).sum(0), bias, stride, pads, dilation, groups)
    y = grouped_conv(x, mix_kernels(weight, mixing, size), stride, pads, dilation, groups)
    return _add_bias(y, bias)


def _mixed_conv_eager(
    x: Tensor, weight: Tensor, mixing: Tensor, size: list[int], bias: Tensor | None, stride: list[int],
    pads: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    if has_torch_function_unary(x):  # a MetaTensor: its metadata is carried once, not by every operation in here
        args = (x, weight, mixing, size, bias, stride, pads, dilation, groups)
        y: Tensor = handle_torch_function(_mixed_conv_eager, (x,), *args)
        return y
    path = pick_path(x, weight, mixing, output_positions(list(x.shape[2:]), size, stride, pads, dilation))
    if path == "implicit":
        return implicit_conv(x, weight, mixing, size, bias, stride, pads, dilation, groups)
    if path == "shared":
        y = shared_conv(x, weight, mixing, size, stride, pads, dilation, groups)
    elif path == "per_sample":
        y = per_sample_loop(x, weight, mixing, size, stride, pads, dilation, groups)
    else:
        y = grouped_conv(x, mix_kernels_few(weight, mixing, size), stride, pads, dilation, groups)
    return _add_bias(y, bias)


def mixing_at(shift: Tensor, bank: list[int]) -> Tensor:
    """Mixing (B, P, Q) of shifts (B, 3), or (P, Q) of the one shift (3,) of all samples."""
    return middle_mixing(shift.unsqueeze(0), bank)[0] if shift.dim() == 1 else middle_mixing(shift, bank)


def crossd_apply2d(
    x: Tensor,
    weight: Tensor,
    mixing: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
) -> Tensor:
    """`crossd_conv2d` with its arguments read, the shift as `mixing_at` has it; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    size = constants(list(weight.shape[3:]))
    return mixed_conv(x, weight, mixing, size, bias, stride, pads, dilation, groups)


def crossd_apply3d(
    x: Tensor,
    weight: Tensor,
    mixing: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
    axis: int,
    placement: str,
    gate: Tensor | None = None,
) -> Tensor:
    """`crossd_conv3d` with its arguments read, the shift as `mixing_at` has it, `axis` in 0, 1, 2; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    bank = constants(list(weight.shape[2:]))
    depth, size = bank[0], bank[1:]
    if placement == "spread":
        # the rows of the kernel's plane, one plane per slice
        planes = (mixing / depth).unflatten(-2, size).unsqueeze(axis - 4)
        mixing = torch.cat([planes] * depth, dim=axis - 4).flatten(-4, -2)
        size.insert(axis, depth)
    else:
        # the plane stands at depth // 2 of a kernel of that depth: what lies before and after it is not read
        size.insert(axis, 1)
        pads = pads.copy()
        pads[2 * axis] -= dilation[axis] * (depth // 2)
        pads[2 * axis + 1] -= dilation[axis] * (depth - 1 - depth // 2)
        if gate is not None:
            # a tap may read a slice where the centre stands outside: those centres have to be there
            outside = [0] * len(pads)
            outside[2 * axis], outside[2 * axis + 1] = max(pads[2 * axis], 0), max(pads[2 * axis + 1], 0)
            pads[2 * axis], pads[2 * axis + 1] = min(pads[2 * axis], 0), min(pads[2 * axis + 1], 0)
            x = gate_depth(pad_input(x, outside, "constant"), gate, axis, dilation[axis])
    return mixed_conv(x, weight, mixing, size, bias, stride, pads, dilation, groups)


def _check_batch(x: Tensor, shift: Tensor) -> None:
    fits = shift.dim() == 2 and constants([shift.shape[1]])[0] == 3
    if not fits or not (in_graph() or shift.shape[0] in (1, x.shape[0])):
        raise ValueError(f"shift must be (B, 3) or (1, 3) for a batch of {x.shape[0]}, got shape {list(shift.shape)}.")


def crossd_conv2d(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """2D convolution of each sample with the middle slice of the bank shifted by that sample's shift.

    y[b] = conv2d(x[b], crossd_kernel2d(weight, shift)[b]).

    Args:
        x: (B, C, H, W).
        weight: (O, C/groups, Kd, Kh, Kw), kernel bank, through-plane axis first.
        shift: (B, 3), or (1, 3) for one shift for all samples, which costs what conv2d costs.
        bias: (O,) or None.
        stride: as in torch.nn.Conv2d.
        padding: ints, "same" or "valid".
        dilation: as in torch.nn.Conv2d.
        groups: as in torch.nn.Conv2d.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Returns:
        (B, O, H', W').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.

    Example:
        >>> x, bank = torch.randn(2, 4, 9, 9), torch.randn(6, 4, 3, 3, 3)
        >>> crossd_conv2d(x, bank, torch.ones(2, 3), padding=1).shape
        torch.Size([2, 6, 9, 9])
    """
    check_bank(weight)
    size = list(weight.shape[3:])
    check_convolution(weight.shape[1] * groups, weight.shape[0], groups, padding_mode, size)
    check_input(x, weight.shape[1] * groups, 2)
    check_bias(bias, weight.shape[0])
    _check_batch(x, shift)
    strides, dilations = list(ntuple(stride, 2, "stride", 1)), list(ntuple(dilation, 2, "dilation", 1))
    pads = resolve_padding(padding, size, strides, dilations)
    mixing = mixing_at(shift, constants(list(weight.shape[2:])))
    return crossd_apply2d(x, weight, mixing, bias, strides, pads, dilations, groups, padding_mode)


def crossd_conv3d(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    depth_axis: int = -1,
    placement: str = "centre",
    gate: Tensor | None = None,
) -> Tensor:
    """3D convolution of each volume with its effective 2D kernel, set in the slice plane or spread over the depth.

    The output is that of a conv3d whose kernel has the bank's depth on `depth_axis`: the effective kernel stands in its
    centre slice ("centre") or, divided by the depth, in every slice ("spread").

    Args:
        x: (B, C, H, W, D).
        weight: (O, C/groups, Kd, Kh, Kw), kernel bank, through-plane axis first.
        shift: (B, 3), or (1, 3) for one shift for all volumes.
        bias: (O,) or None.
        stride: as in torch.nn.Conv3d, like all that follow, in the order of the axes of `x`.
        padding: ints, "same" or "valid".
        dilation: as in torch.nn.Conv3d.
        groups: as in torch.nn.Conv3d.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        depth_axis: spatial axis of `x` that runs through the slices, MONAI's is the last.
        placement: "centre" or "spread".
        gate: (2, C), with "centre": the slices before and after the centre hold the kernel too, times the gate of the
            input channel. None: they are empty.

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.
    """
    axis = spatial_axis(depth_axis)
    check_placement(placement)
    check_bank(weight)
    if gate is not None and (placement != "centre" or weight.shape[2] < 3):
        raise ValueError(
            f"a gate needs placement 'centre' and a bank of depth 3 or more, got {placement!r} and {weight.shape[2]}."
        )
    if gate is not None and gate.shape != (2, weight.shape[1] * groups):
        raise ValueError(f"gate must be (2, {weight.shape[1] * groups}), got shape {list(gate.shape)}.")
    size = list(weight.shape[3:])
    size.insert(axis, weight.shape[2])
    check_convolution(weight.shape[1] * groups, weight.shape[0], groups, padding_mode, size)
    check_input(x, weight.shape[1] * groups, 3)
    check_bias(bias, weight.shape[0])
    _check_batch(x, shift)
    strides, dilations = list(ntuple(stride, 3, "stride", 1)), list(ntuple(dilation, 3, "dilation", 1))
    pads = resolve_padding(padding, size, strides, dilations)
    mixing = mixing_at(shift, constants(list(weight.shape[2:])))
    return crossd_apply3d(
        x, weight, mixing, bias, strides, pads, dilations, groups, padding_mode, axis, placement, gate
    )


def check_placement(placement: str) -> None:
    """Check how an effective kernel fills the depth.

    Raises:
        ValueError: if `placement` is neither "centre" nor "spread".
    """
    if placement not in ("centre", "spread"):
        raise ValueError(f"placement must be 'centre' or 'spread', but is {placement!r}.")
