# SPDX-License-Identifier: Apache-2.0
"""ACS convolution: 2D kernels laid into the three planes of a volume, a third of the output channels each.

References:
    J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, IEEE Journal
    of Biomedical and Health Informatics 25(8), 2021.

The first part of the output channels sees planes across the first spatial axis (kernel 1×k×k), the second across the
second (k×1×k), the third across the third (k×k×1); the paper calls them axial, coronal and sagittal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._geometry import (
    check_bias,
    check_convolution,
    check_input,
    constants,
    convolve,
    ntuple,
    pad_input,
    resolve_padding,
)
from ._rule import pick_acs_path
from .acs_dense import cat_planes, dense_acs
from .acs_planes import plane_shape, view_channels, view_kernel, view_pads


def acs_apply3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: list[int],
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
    padding_mode: str,
) -> Tensor:
    """`acs_conv3d` with its arguments read; TorchScript."""
    if padding_mode != "zeros":
        x = pad_input(x, pads, padding_mode)
        pads = [0] * len(pads)
    if max(kernel_size) == 1:
        return convolve(x, weight.unsqueeze(-1), bias, stride, pads, dilation, groups)
    if torch.jit.is_scripting():
        if x.is_cuda:
            return convolve(x, cat_planes(weight, kernel_size), bias, stride, pads, dilation, groups)
    elif pick_acs_path(x) == "dense":
        return convolve(x, dense_acs(x, weight, kernel_size), bias, stride, pads, dilation, groups)
    shape = constants(list(weight.shape))
    out_per_group, in_per_group = shape[0] // groups, shape[1]
    parts: list[Tensor] = []
    start = 0
    for view, count in enumerate(view_channels(shape[0])):
        view_end = start + count
        while start < view_end:
            # a run of output channels that is one grouped convolution: whole groups, or a piece of a single one
            group = start // out_per_group
            end = view_end // out_per_group * out_per_group
            if start % out_per_group != 0 or end <= start:
                end = min(view_end, (group + 1) * out_per_group)
            span = max(1, (end - start) // out_per_group)
            part_x = x if groups == span else x.narrow(1, group * in_per_group, span * in_per_group)
            parts.append(
                convolve(
                    part_x,
                    view_kernel(weight[start:end], view, kernel_size),
                    None if bias is None else bias[start:end],
                    stride,
                    view_pads(pads, view, kernel_size, dilation),
                    dilation,
                    span,
                )
            )
            start = end
    return torch.cat(parts, dim=1)


def read_kernel_size(weight: Tensor, kernel_size: int | Sequence[int] | None) -> tuple[int, ...]:
    """The 3D kernel size that a 2D weight stands for; by default a cube.

    Raises:
        ValueError: if the weight is no 2D kernel or does not fit `kernel_size`.
    """
    if weight.dim() != 4:
        raise ValueError(f"an ACS weight is a 2D kernel (O, I, kh, kw), got shape {list(weight.shape)}.")
    if kernel_size is None:
        if weight.shape[2] != weight.shape[3]:
            raise ValueError(
                f"a {weight.shape[2]}×{weight.shape[3]} kernel does not say its size in 3D: give kernel_size."
            )
        return (weight.shape[2],) * 3
    size = ntuple(kernel_size, 3, "kernel_size", 1)
    if plane_shape(size) != tuple(weight.shape[2:]):
        raise ValueError(
            f"kernel_size {size} needs a {plane_shape(size)} 2D kernel, got a weight of shape {list(weight.shape)}."
        )
    return size


def embed_planes(weight: Tensor, kernel_size: int | Sequence[int] | None = None) -> Tensor:
    """Dense 3D kernel that an ACS weight is equal to: each 2D kernel in the centre plane of its view, else zeros.

    Args:
        weight: (O, I, kh, kw).
        kernel_size: 3D kernel size; a cube by default.

    Returns:
        (O, I, k1, k2, k3).

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> embed_planes(torch.ones(3, 1, 3, 3)).sum(dim=(1, 3, 4))
        tensor([[0., 9., 0.],
                [3., 3., 3.],
                [3., 3., 3.]])
    """
    size = read_kernel_size(weight, kernel_size)
    dense = weight.new_zeros(*weight.shape[:2], *size)
    start = 0
    for view, count in enumerate(view_channels(weight.shape[0])):
        kernel = view_kernel(weight[start : start + count], view, list(size))
        dense[start : start + count].narrow(view + 2, size[view] // 2, 1).copy_(kernel)
        start += count
    return dense


def acs_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    kernel_size: int | Sequence[int] | None = None,
) -> Tensor:
    """3D convolution with 2D kernels over three views: equal to conv3d with `embed_planes(weight)`.

    On a CPU at a third of its operations; on CUDA it is that conv3d, which is faster there.

    Args:
        x: (B, C, H, W, D).
        weight: (O, C/groups, kh, kw).
        bias: (O,) or None.
        stride: as in torch.nn.Conv3d.
        padding: ints, "same" or "valid".
        dilation: as in torch.nn.Conv3d.
        groups: as in torch.nn.Conv3d, any number.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        kernel_size: 3D kernel size that the 2D kernels serve; a cube by default.

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.

    Example:
        >>> acs_conv3d(torch.randn(1, 2, 8, 8, 8), torch.randn(6, 2, 3, 3), padding=1).shape
        torch.Size([1, 6, 8, 8, 8])
    """
    size = read_kernel_size(weight, kernel_size)
    check_convolution(weight.shape[1] * groups, weight.shape[0], groups, padding_mode, size)
    check_input(x, weight.shape[1] * groups, 3)
    check_bias(bias, weight.shape[0])
    strides, dilations = list(ntuple(stride, 3, "stride", 1)), list(ntuple(dilation, 3, "dilation", 1))
    pads = resolve_padding(padding, size, strides, dilations)
    return acs_apply3d(x, weight, bias, list(size), strides, pads, dilations, groups, padding_mode)
