# SPDX-License-Identifier: Apache-2.0
"""ACS convolution: 2D kernels laid into the three planes of a volume, a third of the output channels each.

The first part of the output channels sees planes across the first spatial axis (kernel 1×k×k), the second across the
second (k×1×k), the third across the third (k×k×1); the paper calls them axial, coronal and sagittal.

References:
    J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, IEEE Journal
    of Biomedical and Health Informatics 25(8), 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .acs_kernels import (
    cat_planes,
    dense_acs,
    fit_plane,
    plane_shape,
    read_kernel_size,
    view_channels,
    view_kernel,
    view_runs,
)
from .base import ConvBase, plain_conv
from .geometry import Geometry, Size, check_bias, check_input, convolve, flat_across, pad, read_geometry, with_groups
from .graphs import constants
from .rule import pick_acs_path


def acs(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`acs_conv3d` with its arguments read; TorchScript."""
    x, geometry = pad(x, geometry)
    if max(geometry.kernel_size) == 1:
        return convolve(x, weight.unsqueeze(-1), bias, geometry)
    if torch.jit.is_scripting():
        if x.is_cuda:
            return convolve(x, cat_planes(weight, geometry.kernel_size), bias, geometry)
    elif pick_acs_path(x) == "dense":
        return convolve(x, dense_acs(x, weight, geometry.kernel_size), bias, geometry)
    shape = constants(list(weight.shape))
    groups, out_per_group, in_per_group = geometry.groups, shape[0] // geometry.groups, shape[1]
    parts: list[Tensor] = []
    for view, start, end in view_runs(shape[0], groups):
        group, span = start // out_per_group, max(1, (end - start) // out_per_group)
        part_x = x if groups == span else x.narrow(1, group * in_per_group, span * in_per_group)
        part_bias = None if bias is None else bias[start:end]
        kernel = view_kernel(weight[start:end], view, geometry.kernel_size)
        parts.append(convolve(part_x, kernel, part_bias, with_groups(flat_across(geometry, view), span)))
    return torch.cat(parts, dim=1)


def embed_planes(weight: Tensor, kernel_size: Size | None = None) -> Tensor:
    """Dense 3D kernel that an ACS weight is equal to: each 2D kernel in the center plane of its view, else zeros.

    Args:
        weight: (O, I, kh, kw).
        kernel_size: 3D kernel size; a cube by default.

    Returns:
        (O, I, k1, k2, k3).

    Raises:
        ValueError: If the shapes do not fit.

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
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, padding_mode: str = "zeros", kernel_size: Size | None = None,
) -> Tensor:  # fmt: skip
    """3D convolution with 2D kernels over three views: equal to conv3d with `embed_planes(weight)`.

    On a CPU at a third of its operations; on CUDA it is that conv3d, which is faster there.

    Args:
        x: (B, C, H, W, D).
        weight: (O, C/groups, kh, kw).
        bias: (O,) or None.
        stride: As in torch.nn.Conv3d.
        padding: Ints, "same" or "valid".
        dilation: As in torch.nn.Conv3d.
        groups: As in torch.nn.Conv3d, any number.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        kernel_size: 3D kernel size that the 2D kernels serve; a cube by default.

    Returns:
        (B, O, H', W', D').

    Raises:
        ValueError: If a shape or an argument does not fit, with its value.

    Example:
        >>> acs_conv3d(torch.randn(1, 2, 8, 8, 8), torch.randn(6, 2, 3, 3), padding=1).shape
        torch.Size([1, 6, 8, 8, 8])
    """
    size, channels = read_kernel_size(weight, kernel_size), (weight.shape[1] * groups, weight.shape[0])
    geometry = read_geometry(channels, size, stride, padding, dilation, groups, padding_mode)
    check_input(x, channels[0], 3)
    check_bias(bias, channels[1])
    return acs(x, weight, bias, geometry)


class ACSConv3d(ConvBase):
    """3D convolution with 2D kernels: a third of the output channels looks at each of the three views of a volume.

    Equal to torch.nn.Conv3d with `embed_planes(weight, kernel_size)`, at about a third of its operations. The weight is
    that of a Conv2d, so 2D weights go in as they are. The arguments are those of torch.nn.Conv3d (see `ConvBase`).
    Output channels are split over the views as equally as possible, the remainder to the earlier ones; the 2D kernel of
    an uneven size is as large as any view needs, and a smaller view uses its center.

    References:
        J. Yang, X. Huang, Y. He, J. Xu, C. Yang, G. Xu and B. Ni, Reinventing 2D Convolutions for 3D Images, 2021.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Example:
        >>> ACSConv3d(4, 8, 3, padding=1)(torch.randn(1, 4, 6, 6, 6)).shape
        torch.Size([1, 8, 6, 6, 6])
    """

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        return {"weight": (self.out_channels, self.in_channels // self.groups, *plane_shape(self.kernel_size))}

    def _convolve(self, x: Tensor, geometry: Geometry) -> Tensor:
        return acs(x, self.weight, self.bias, geometry)

    def _from_kernel(self, kernel: Tensor) -> tuple[Tensor, str]:
        return fit_plane(kernel, self.kernel_size), "over three views"

    def to_conv3d(self) -> nn.Conv3d:
        """Plain Conv3d with the same output: the dense kernel, at about three times the operations."""
        return plain_conv(self, embed_planes(self.weight.detach(), self.kernel_size))

    to_plain = to_conv3d
