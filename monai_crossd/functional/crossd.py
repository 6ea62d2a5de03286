# SPDX-License-Identifier: Apache-2.0
"""Cross-D convolution: every sample is convolved with its own 2D kernel, the middle slice of the shifted bank.

References:
    M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
    Operation, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._geometry import check_bias, check_convolution, check_input, convolve, ntuple, pad_input, resolve_padding
from .inflate import spatial_axis
from .shift import check_bank, crossd_kernel2d

# torch 2.7 is the first with is_exporting
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _per_sample_patches(
    x: Tensor, kernels: Tensor, stride: list[int], pads: list[int], dilation: list[int], groups: int
) -> Tensor:
    """Per-sample kernels as a matrix product over patches: no batch size in the graph, so that it may stay dynamic."""
    channels = int(x.shape[1])
    size = [int(k) for k in kernels.shape[3:]]  # constants: an exported convolution needs a kernel of known shape
    taps = math.prod(size)
    pick = torch.eye(taps, dtype=x.dtype, device=x.device).repeat(channels, 1).view([channels * taps, 1, *size])
    patches = convolve(x, pick, None, stride, pads, dilation, channels)  # (B, C*taps, ...)
    rows = kernels.flatten(3).flatten(2).unflatten(1, [groups, -1])  # (B, groups, O/groups, I*taps)
    y = rows @ patches.flatten(2).unflatten(1, [groups, -1])
    return y.reshape([-1, kernels.shape[1], *patches.shape[2:]])


def per_sample_conv(
    x: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Convolve sample b with kernels[b] (or every sample with kernels[0], if there is one); TorchScript.

    Args:
        x: (B, C, *spatial).
        kernels: (B or 1, O, I, *kernel).
        bias: (O,) or None.
        stride: one per spatial axis.
        pads: `[low, high]` zero padding per spatial axis, negative to crop.
        dilation: one per spatial axis.
        groups: as in torch.nn.Conv2d.

    Returns:
        (B, O, *spatial out).
    """
    batch, out = x.shape[0], kernels.shape[1]
    if kernels.shape[0] == 1:
        return convolve(x, kernels[0], bias, stride, pads, dilation, groups)
    if batch == 0:
        # any kernel has the right shape for no sample; the zero keeps it in the graph, so gradients are zeros
        return convolve(x, kernels.sum(0), bias, stride, pads, dilation, groups)
    y: Tensor | None = None
    # TorchScript drops a branch on just this: it cannot ask whether a graph is being exported
    if not torch.jit.is_scripting():  # noqa: SIM102
        if torch.onnx.is_in_onnx_export() or _is_exporting():
            y = _per_sample_patches(x, kernels, stride, pads, dilation, groups)
    if y is None:
        folded = x.reshape([1, batch * x.shape[1]] + list(x.shape[2:]))
        y = convolve(folded, kernels.flatten(0, 1), None, stride, pads, dilation, batch * groups)
        y = y.view([batch, out] + list(y.shape[2:]))
    if bias is not None:
        y = y + bias.to(y.dtype).view([1, -1] + [1] * (y.dim() - 2))
    return y


def crossd_apply2d(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
) -> Tensor:
    """`crossd_conv2d` with its arguments read; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    return per_sample_conv(x, crossd_kernel2d(weight, shift), bias, stride, pads, dilation, groups)


def crossd_apply3d(
    x: Tensor,
    weight: Tensor,
    shift: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
    axis: int,
    placement: str,
) -> Tensor:
    """`crossd_conv3d` with its arguments read, `axis` in 0, 1, 2; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    kernels = crossd_kernel2d(weight, shift).unsqueeze(axis - 3)
    depth = weight.shape[2]
    if placement == "spread":
        kernels = torch.repeat_interleave(kernels / depth, depth, dim=axis - 3)
    else:
        # the plane stands at depth // 2 of a kernel of that depth: what lies before and after it is not read
        pads = pads.copy()
        pads[2 * axis] -= dilation[axis] * (depth // 2)
        pads[2 * axis + 1] -= dilation[axis] * (depth - 1 - depth // 2)
    return per_sample_conv(x, kernels, bias, stride, pads, dilation, groups)


def _check_batch(x: Tensor, shift: Tensor) -> None:
    if shift.dim() != 2 or shift.shape[0] not in (1, x.shape[0]):
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
    return crossd_apply2d(x, weight, shift, bias, strides, pads, dilations, groups, padding_mode)


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

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.
    """
    axis = spatial_axis(depth_axis)
    check_placement(placement)
    check_bank(weight)
    size = list(weight.shape[3:])
    size.insert(axis, weight.shape[2])
    check_convolution(weight.shape[1] * groups, weight.shape[0], groups, padding_mode, size)
    check_input(x, weight.shape[1] * groups, 3)
    check_bias(bias, weight.shape[0])
    _check_batch(x, shift)
    strides, dilations = list(ntuple(stride, 3, "stride", 1)), list(ntuple(dilation, 3, "dilation", 1))
    pads = resolve_padding(padding, size, strides, dilations)
    return crossd_apply3d(x, weight, shift, bias, strides, pads, dilations, groups, padding_mode, axis, placement)


def check_placement(placement: str) -> None:
    """Check how an effective kernel fills the depth.

    Raises:
        ValueError: if `placement` is neither "centre" nor "spread".
    """
    if placement not in ("centre", "spread"):
        raise ValueError(f"placement must be 'centre' or 'spread', but is {placement!r}.")
