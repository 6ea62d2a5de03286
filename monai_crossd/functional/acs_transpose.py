# SPDX-License-Identifier: Apache-2.0
"""Transposed ACS convolution: 2D kernels over three views, a third of the output channels each.

References:
    J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, IEEE Journal
    of Biomedical and Health Informatics 25(8), 2021.

A plane with a stride across it leaves the slices between empty, exactly as the dense kernel that it equals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._geometry import check_bias, check_convolution, check_input, constants, crop_or_pad, in_graph, ntuple
from ._rule import is_eager, pick_acs_path
from .acs import embed_planes, read_kernel_size
from .acs_dense import dense_acs_transposed
from .acs_planes import view_channels, view_kernel


def check_output_padding(output_padding: list[int], stride: list[int], dilation: list[int]) -> None:
    """Check what torch checks: output padding below stride or dilation on each axis.

    Raises:
        ValueError: with the values.
    """
    for axis in range(3):
        if output_padding[axis] >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f"output_padding {output_padding} must be smaller than stride {stride} or dilation {dilation} "
                "on each axis."
            )


def check_output_size(
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    dilation: list[int],
) -> None:
    """Check that something is left of the output, as torch does; a graph fails when it runs.

    Raises:
        RuntimeError: with both sizes.
    """
    if not in_graph():
        size: list[int] = []
        for axis in range(3):
            reach = dilation[axis] * (kernel_size[axis] - 1) + 1
            size.append((x.shape[axis + 2] - 1) * stride[axis] - 2 * padding[axis] + reach + output_padding[axis])
        if min(size) < 1:
            raise RuntimeError(
                f"an input of size {list(x.shape[2:])} would give an output of size {size}: it is too small for "
                f"kernel_size {kernel_size}, stride {stride}, padding {padding} and output_padding {output_padding}."
            )


def _one_view(
    x: Tensor,
    weight: Tensor,
    view: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Transposed convolution with kernels flat across `view`, without bias."""
    within, extra = padding.copy(), output_padding.copy()
    within[view], extra[view] = 0, 0
    y = torch.conv_transpose3d(x, view_kernel(weight, view, kernel_size), None, stride, within, extra, groups, dilation)
    # across the view the plane stands at k // 2: zeros before and after it, or a crop where padding cuts more
    k, d = kernel_size[view], dilation[view]
    pads = [0, 0, 0, 0, 0, 0]
    pads[2 * view] = d * (k // 2) - padding[view]
    pads[2 * view + 1] = d * (k - 1 - k // 2) - padding[view] + output_padding[view]
    return crop_or_pad(y, pads)


def acs_transpose_apply3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    output_padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """`acs_conv_transpose3d` with its arguments read; TorchScript."""
    check_output_size(x, kernel_size, stride, padding, output_padding, dilation)
    if max(kernel_size) == 1:
        return torch.conv_transpose3d(x, weight.unsqueeze(-1), bias, stride, padding, output_padding, groups, dilation)
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript drops a branch on just this
        if pick_acs_path(x) == "dense" and is_eager():
            dense = dense_acs_transposed(weight, kernel_size, groups)
            return torch.conv_transpose3d(x, dense, bias, stride, padding, output_padding, groups, dilation)
    shape = constants(list(weight.shape))
    out_per_group, in_per_group = shape[1], shape[0] // groups
    parts: list[Tensor] = []
    start = 0
    for view, count in enumerate(view_channels(out_per_group * groups)):
        view_end = start + count
        while start < view_end:
            # a run of output channels that is one grouped convolution: whole groups, or a piece of a single one
            group, first = start // out_per_group, start % out_per_group
            end = view_end // out_per_group * out_per_group
            if first != 0 or end <= start:
                end = min(view_end, (group + 1) * out_per_group)
            span = max(1, (end - start) // out_per_group)
            columns = min(out_per_group, end - start)
            part_x, part_weight = x, weight
            if groups != span:
                part_x = x.narrow(1, group * in_per_group, span * in_per_group)
                part_weight = weight.narrow(0, group * in_per_group, span * in_per_group)
            part_weight = part_weight.narrow(1, first, columns)
            parts.append(
                _one_view(part_x, part_weight, view, kernel_size, stride, padding, output_padding, dilation, span)
            )
            start = end
    y = torch.cat(parts, dim=1)
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1, 1)


def embed_planes_transposed(weight: Tensor, groups: int = 1, kernel_size: int | Sequence[int] | None = None) -> Tensor:
    """Dense transposed 3D kernel (I, O/groups, k1, k2, k3) of a transposed ACS weight (I, O/groups, kh, kw).

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> embed_planes_transposed(torch.ones(1, 3, 2, 2))[0, 2, ..., 0].sum().item()
        0.0
    """
    # channels of all groups side by side, as `embed_planes` counts them: (O, I/groups, kh, kw)
    rows = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    dense = embed_planes(rows, kernel_size)
    return dense.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def acs_conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    kernel_size: int | Sequence[int] | None = None,
) -> Tensor:
    """Transposed 3D convolution with 2D kernels over three views: conv_transpose3d with `embed_planes_transposed`.

    Args:
        x: (B, C, H, W, D).
        weight: (C, O/groups, kh, kw).
        bias: (O,) or None.
        stride: as in torch.nn.functional.conv_transpose3d, like all up to `dilation`, in its order.
        padding: ints.
        output_padding: ints, below stride or dilation.
        groups: any number.
        dilation: ints.
        kernel_size: 3D kernel size that the 2D kernels serve; a cube by default.

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: if a shape or an argument does not fit, with its value.

    Example:
        >>> acs_conv_transpose3d(torch.randn(1, 4, 4, 4, 4), torch.randn(4, 6, 3, 3), stride=2).shape
        torch.Size([1, 6, 9, 9, 9])
    """
    size = read_kernel_size(weight, kernel_size)
    check_convolution(weight.shape[0], weight.shape[1] * groups, groups, "zeros", size)
    check_bias(bias, weight.shape[1] * groups)
    check_input(x, weight.shape[0], 3)
    strides, dilations = list(ntuple(stride, 3, "stride", 1)), list(ntuple(dilation, 3, "dilation", 1))
    pads, extra = list(ntuple(padding, 3, "padding")), list(ntuple(output_padding, 3, "output_padding"))
    check_output_padding(extra, strides, dilations)
    return acs_transpose_apply3d(x, weight, bias, list(size), strides, pads, extra, dilations, groups)
