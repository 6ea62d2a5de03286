# SPDX-License-Identifier: Apache-2.0
"""Planar (2.5D) convolution: one 2D kernel in one plane of a volume, with the geometry of a 3D kernel.

References:
    PlaneCycle, arXiv 2603.04165, lets the plane change from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._geometry import check_bias, check_convolution, check_input, convolve, ntuple, pad_input, resolve_padding
from .acs_planes import view_pads
from .inflate import spatial_axis


def planar_apply3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: list[int],
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
    axis: int,
) -> Tensor:
    """`planar_conv3d` with its arguments read, `axis` in 0, 1, 2; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    pads = view_pads(pads, axis, kernel_size, dilation)
    return convolve(x, weight.unsqueeze(axis + 2), bias, stride, pads, dilation, groups)


def planar_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    plane: int = -1,
    depth: int | None = None,
) -> Tensor:
    """3D convolution with a 2D kernel that is flat across axis `plane` and stands in the centre of a 3D kernel there.

    Equal to conv3d with `centre_kernel(weight, depth, plane)`, at 1/depth of its operations.

    Args:
        x: (B, C, H, W, D).
        weight: (O, C/groups, kh, kw), for the two other axes in their order.
        bias: (O,) or None.
        stride: as in torch.nn.Conv3d.
        padding: ints, "same" or "valid".
        dilation: as in torch.nn.Conv3d.
        groups: as in torch.nn.Conv3d.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        plane: spatial axis that the kernel is flat across.
        depth: size of the 3D kernel across the plane, for which `padding` is meant; kh by default.

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.

    Example:
        >>> import torch
        >>> planar_conv3d(torch.randn(1, 2, 8, 8, 5), torch.randn(6, 2, 3, 3), padding=1).shape
        torch.Size([1, 6, 8, 8, 5])
    """
    if weight.dim() != 4:
        raise ValueError(f"a planar weight is a 2D kernel (O, I, kh, kw), got shape {list(weight.shape)}.")
    axis = spatial_axis(plane)
    size = list(weight.shape[2:])
    size.insert(axis, weight.shape[2] if depth is None else depth)
    check_convolution(weight.shape[1] * groups, weight.shape[0], groups, padding_mode, size)
    check_bias(bias, weight.shape[0])
    check_input(x, weight.shape[1] * groups, 3)
    strides, dilations = list(ntuple(stride, 3, "stride", 1)), list(ntuple(dilation, 3, "dilation", 1))
    pads = resolve_padding(padding, size, strides, dilations)
    return planar_apply3d(x, weight, bias, size, strides, pads, dilations, groups, padding_mode, axis)
