# SPDX-License-Identifier: Apache-2.0
"""Planar (2.5D) convolution: one 2D kernel in one plane of a volume, with the geometry of a 3D kernel.

References:
    PlaneCycle, arXiv 2603.04165, lets the plane change from layer to layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .base import ConvBase, plane_conv3d
from .from_2d import Misfit
from .geometry import Geometry, Size, check_bias, check_input, convolve, flat_across, pad, read_geometry
from .inflate import spatial_axis


def planar(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, axis: int) -> Tensor:
    """`planar_conv3d` with its arguments read, `axis` in 0, 1, 2; TorchScript."""
    x, geometry = pad(x, geometry)
    return convolve(x, weight.unsqueeze(axis + 2), bias, flat_across(geometry, axis))


def planar_conv3d(  # noqa: D417
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, padding_mode: str = "zeros", plane: int = -1, depth: int | None = None,
) -> Tensor:  # fmt: skip
    """3D convolution with a 2D kernel that is flat across axis `plane` and stands in the center of a 3D kernel there.

    Equal to conv3d with `center_kernel(weight, depth, plane)`, at 1/depth of its operations.

    Arguments, output and errors are those of `acs_conv3d`, but for

    Args:
        weight: (O, C/groups, kh, kw), for the two other axes in their order.
        plane: Spatial axis that the kernel is flat across.
        depth: Size of the 3D kernel across the plane, for which `padding` is meant; kh by default.

    Example:
        >>> import torch
        >>> planar_conv3d(torch.randn(1, 2, 8, 8, 5), torch.randn(6, 2, 3, 3), padding=1).shape
        torch.Size([1, 6, 8, 8, 5])
    """
    if weight.dim() != 4:
        raise ValueError(f"a planar weight is a 2D kernel (O, I, kh, kw), got shape {list(weight.shape)}.")
    axis = spatial_axis(plane)
    size, channels = list(weight.shape[2:]), (weight.shape[1] * groups, weight.shape[0])
    size.insert(axis, weight.shape[2] if depth is None else depth)
    geometry = read_geometry(channels, size, stride, padding, dilation, groups, padding_mode)
    check_input(x, channels[0], 3)
    check_bias(bias, channels[1])
    return planar(x, weight, bias, geometry, axis)


def cycling_planes(depth_axis: int = -1) -> tuple[int, int, int]:
    """Axes that successive layers are flat across: the depth first, so that the first layer sees slices.

    Example:
        >>> cycling_planes(-1)
        (2, 0, 1)
    """
    axis = spatial_axis(depth_axis)
    return axis, (axis + 1) % 3, (axis + 2) % 3


def plane_by_turns(depth_axis: int = -1) -> list[dict[str, Any]]:
    """Arguments of successive layers, whose planes cycle."""
    return [{"plane": plane} for plane in cycling_planes(depth_axis)]


class PlanarConv3d(ConvBase):
    """3D convolution with a 2D kernel that is flat across one axis; stride, padding and size are those of Conv3d.

    Equal to torch.nn.Conv3d with the 2D kernel in the center of `plane`. The weight is that of a Conv2d. Layers whose
    planes change from one to the next see the whole volume (`use_conv("plane_cycle")`).

    References:
        PlaneCycle, arXiv 2603.04165 (cycling planes).

    Args:
        in_channels: As in torch.nn.Conv3d, like all up to `dtype` (see `ConvBase`).
        kernel_size: Across `plane` it is the size that `padding` is meant for.
        plane: Spatial axis that the kernel is flat across; the last is the slice axis of MONAI's volumes.

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Example:
        >>> layer = PlanarConv3d(4, 8, 3, padding=1)
        >>> layer(torch.randn(1, 4, 6, 6, 5)).shape, layer.weight.shape
        (torch.Size([1, 8, 6, 6, 5]), torch.Size([8, 4, 3, 3]))
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: str | Size = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, *, plane: int = -1,
    ) -> None:  # fmt: skip
        self.plane, self._axis = plane, spatial_axis(plane)  # before the base asks for the shapes
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        flat = self.kernel_size[: self._axis] + self.kernel_size[self._axis + 1 :]
        return {"weight": (self.out_channels, self.in_channels // self.groups, *flat)}

    def _convolve(self, x: Tensor, geometry: Geometry) -> Tensor:
        return planar(x, self.weight, self.bias, geometry, self._axis)

    @classmethod
    def options3d(cls, conv: nn.Module, depth_axis: int, **options: Any) -> dict[str, Any]:
        """The plane is that of the slices by default.

        Raises:
            Misfit: If the kernel is uneven and does not stand in another plane.
        """
        axis, (height, width) = spatial_axis(depth_axis), conv.kernel_size  # type: ignore[misc]
        plane, sizes = options.get("plane", axis), [height, width]
        sizes.insert(axis, height)
        sizes.pop(spatial_axis(plane))
        if sizes != [height, width]:
            raise Misfit(
                f"a {height}×{width} kernel cannot stand across axis {plane} of volumes whose depth is axis "
                f"{depth_axis}: only a square one can change its plane."
            )
        return {**options, "plane": plane}

    @classmethod
    def may_be_thinner(cls, depth_axis: int = -1, **options: Any) -> bool:
        """In the plane of the slices it may: there is one slice of it."""
        return spatial_axis(options.get("plane", depth_axis)) == spatial_axis(depth_axis)

    def _from_kernel(self, kernel: Tensor) -> tuple[Tensor, str]:
        return kernel, f"in the plane across axis {self._axis}"

    def to_conv3d(self) -> nn.Conv3d:
        """Plain Conv3d with the same output: a flat kernel where torch's padding can say so, else a dense one."""
        return plane_conv3d(self, self.weight, self._axis)

    to_plain = to_conv3d

    def extra_repr(self) -> str:
        """Show the plane."""
        return f"{super().extra_repr()}, plane={self.plane}"
