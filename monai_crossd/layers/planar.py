# SPDX-License-Identifier: Apache-2.0
"""Planar (2.5D) convolution layer: a 2D kernel in one plane of the volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..functional._geometry import check_input
from ..functional.inflate import spatial_axis
from ..functional.planar import planar_apply3d
from ._base import ConvBase, conv_arguments3d, copy_state, plane_conv3d


def cycling_planes(depth_axis: int = -1) -> tuple[int, int, int]:
    """Axes that successive layers are flat across: the depth first, so that the first layer sees slices.

    Example:
        >>> cycling_planes(-1)
        (2, 0, 1)
    """
    axis = spatial_axis(depth_axis)
    return axis, (axis + 1) % 3, (axis + 2) % 3


class PlanarConv3d(ConvBase):
    """3D convolution with a 2D kernel that is flat across one axis; stride, padding and size are those of Conv3d.

    Equal to torch.nn.Conv3d with the 2D kernel in the centre of `plane`. The weight is that of a Conv2d. Layers whose
    planes change from one to the next see the whole volume (`use_conv("plane_cycle")`).

    References:
        PlaneCycle, arXiv 2603.04165 (cycling planes).

    Args:
        in_channels: as in torch.nn.Conv3d, like all up to `dtype`.
        out_channels: number of output channels.
        kernel_size: an int or three; across `plane` it is the size that `padding` is meant for.
        stride: an int or three.
        padding: ints, "same" or "valid".
        dilation: an int or three.
        groups: number that divides both channel counts.
        bias: adds a learnable bias.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of the parameters.
        dtype: of the parameters.
        plane: spatial axis that the kernel is flat across; the last is the slice axis of MONAI's volumes.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Raises:
        ValueError: if an argument or the input does not fit, with its value.

    Example:
        >>> layer = PlanarConv3d(4, 8, 3, padding=1)
        >>> layer(torch.randn(1, 4, 6, 6, 5)).shape, layer.weight.shape
        (torch.Size([1, 8, 6, 6, 5]), torch.Size([8, 4, 3, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        plane: int = -1,
    ) -> None:
        super().__init__(3, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self.plane = plane
        self._axis = spatial_axis(plane)
        self._kernel_size = list(self.kernel_size)
        flat = self._kernel_size[: self._axis] + self._kernel_size[self._axis + 1 :]
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *flat, device=device, dtype=dtype))
        self._make_bias(bias, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as torch.nn.Conv2d does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._reset_bias(self.weight[0].numel())

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, depth_axis: int = -1, depth_stride: int | None = None, *, plane: int | None = None
    ) -> PlanarConv3d:
        """Planar layer with the kernel, geometry, dtype, device, bias, requires_grad and mode of a Conv2d.

        Along the depth it has the nominal kernel size, padding and dilation that `conv` has along its first axis.

        Args:
            conv: the plain layer; it is not changed.
            depth_axis: axis of the volume that runs through the slices.
            depth_stride: stride along the depth; that of the first axis by default.
            plane: axis that the kernel is flat across; the depth by default.

        Raises:
            ValueError: if another plane than the slice is asked for and the kernel is not square.
        """
        plane = depth_axis if plane is None else plane
        layer = cls(**conv_arguments3d(conv, depth_axis, depth_stride), plane=plane)  # type: ignore[arg-type]
        if layer.weight.shape != conv.weight.shape:
            raise ValueError(
                f"a {conv.weight.shape[2]}×{conv.weight.shape[3]} kernel cannot stand across axis {plane} of volumes "
                f"whose depth is axis {depth_axis}: only a square one can change its plane."
            )
        copy_state(layer, conv, conv.weight)
        return layer

    def to_conv3d(self) -> nn.Conv3d:
        """Plain Conv3d with the same output: a flat kernel where torch's padding can say so, else a dense one."""
        return plane_conv3d(self, self.weight, self._axis)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch of volumes, or one volume without batch axis."""
        batched = self._promote(x)
        check_input(batched, self.in_channels, 3)
        y = planar_apply3d(
            batched,
            self.weight,
            self.bias,
            self._kernel_size,
            self._stride,
            self._pads,
            self._dilation,
            self.groups,
            self.padding_mode,
            self._axis,
        )
        return y if batched.dim() == x.dim() else y.squeeze(0)

    def extra_repr(self) -> str:
        """Show the plane."""
        return f"{super().extra_repr()}, plane={self.plane}"
