# SPDX-License-Identifier: Apache-2.0
"""Cross-D convolution of volumes, with the bank of the 2D one.

References:
    M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
    Operation, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import conv_arguments3d, plain_conv, plane_conv3d
from .crossd import CrossDBase, CrossDConv2d, check_shift, check_word, mixing_at
from .from_2d import Misfit
from .geometry import Geometry, Size, check_bias, check_input, flat_across, pad, read_geometry
from .graphs import constants
from .inflate import spatial_axis, spread_kernel
from .per_sample import mixed_conv
from .shift import check_bank

MODES = ("dynamic", "static")
PLACEMENTS = ("center", "spread")


def crossd3d(
    x: Tensor, weight: Tensor, mixing: Tensor, bias: Tensor | None, geometry: Geometry, axis: int, placement: str
) -> Tensor:
    """`crossd_conv3d` with its arguments read, the shift as `mixing_at` has it, `axis` in 0, 1, 2; TorchScript."""
    x, geometry = pad(x, geometry)
    if placement == "spread":
        # the rows of the kernel's plane, one plane per slice
        size = geometry.kernel_size.copy()
        depth = size.pop(axis)
        planes = (mixing / depth).unflatten(-2, size).unsqueeze(axis - 4)
        mixing = torch.cat([planes] * depth, dim=axis - 4).flatten(-4, -2)
    else:
        geometry = flat_across(geometry, axis)
    return mixed_conv(x, weight, mixing, bias, geometry)


def crossd_conv3d(  # noqa: D417
    x: Tensor, weight: Tensor, shift: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, padding_mode: str = "zeros", depth_axis: int = -1,
    placement: str = "center",
) -> Tensor:  # fmt: skip
    """3D convolution of each volume with its effective 2D kernel, set in the slice plane or spread over the depth.

    The output is that of a conv3d whose kernel has the bank's depth on `depth_axis`: the effective kernel stands in its
    center slice ("center") or, divided by the depth, in every slice ("spread").

    Arguments and errors are those of `crossd_conv2d`, sizes in the order of the axes of `x`, and

    Args:
        x: (B, C, H, W, D).
        depth_axis: Spatial axis of `x` that runs through the slices, MONAI's is the last.
        placement: "center" or "spread".

    Example:
        >>> volume, bank = torch.randn(2, 1, 8, 8, 5), torch.randn(4, 1, 3, 3, 3)
        >>> crossd_conv3d(volume, bank, torch.zeros(2, 3), padding=1).shape
        torch.Size([2, 4, 8, 8, 5])
    """
    axis = spatial_axis(depth_axis)
    check_word("placement", placement, PLACEMENTS)
    check_bank(weight)
    bank, channels = constants(list(weight.shape[2:])), (weight.shape[1] * groups, weight.shape[0])
    size = [*bank[1 : axis + 1], bank[0], *bank[axis + 1 :]]
    geometry = read_geometry(channels, size, stride, padding, dilation, groups, padding_mode)
    check_input(x, channels[0], 3)
    check_bias(bias, channels[1])
    check_shift(x, shift)
    return crossd3d(x, weight, mixing_at(shift, bank), bias, geometry, axis, placement)


class CrossDConv3d(CrossDBase):
    """3D convolution with the bank of a CrossDConv2d: its parameters and keys are the same.

    "dynamic" runs the predictor pointwise on the volume's features, one shift per volume; "static" uses the running
    shift that was learned in 2D and has no predictor. The effective 2D kernel stands in the center of a kernel of the
    bank's depth, or is spread over it.

    `from_conv` takes a CrossDConv2d, with its bank, predictor and running shift, or a plain Conv2d, whose kernel every
    volume has at first (the predicted angle is 0). Along the depth it is padded so that it keeps or cuts as many slices
    as the 2D layer keeps or cuts rows.

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
        Operation, 2024. (The published code copies the raw bank into a Conv3d; `load_2d(..., inflate="bank")` does.)

    Args:
        in_channels: As in torch.nn.Conv3d, like all up to `dtype` (see `ConvBase`).
        kernel_size: In the order of the volume's axes; on `depth_axis` it is the depth of the bank.
        hidden_channels: Width of the predictor.
        max_angle: Largest angle θ in radians.
        bank_init: "repeat" or "paper", see CrossDConv2d.
        mode: "dynamic" or "static".
        depth_axis: Spatial axis that runs through the slices, MONAI's is the last.
        placement: "center" or "spread".

    Shape:
        (B, C, H, W, D) or (C, H, W, D) to (B, O, H', W', D') or (O, H', W', D'), as torch.nn.Conv3d.

    Example:
        >>> CrossDConv3d(4, 8, 3, padding=1)(torch.randn(2, 4, 8, 8, 5)).shape
        torch.Size([2, 8, 8, 8, 5])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: str | Size = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: torch.device | str | None = None, dtype: torch.dtype | None = None, *, hidden_channels: int = 16,
        max_angle: float = math.pi / 4, bank_init: str = "repeat", mode: str = "dynamic", depth_axis: int = -1,
        placement: str = "center",
    ) -> None:  # fmt: skip
        check_word("mode", mode, MODES)
        check_word("placement", placement, PLACEMENTS)
        self._read_options(hidden_channels, max_angle, bank_init)
        self.mode, self.depth_axis, self.placement = mode, depth_axis, placement
        self._axis = spatial_axis(depth_axis)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )

    def _bank(self) -> tuple[int, ...]:
        size, axis = self.kernel_size, self._axis
        return size[axis], *size[:axis], *size[axis + 1 :]

    def _is_dynamic(self) -> bool:
        return self.mode == "dynamic"

    def _convolve(self, x: Tensor, geometry: Geometry) -> Tensor:
        return crossd3d(x, self.weight, self._mixing(x), self.bias, geometry, self._axis, self.placement)

    @classmethod
    def arguments3d(cls, conv: nn.Module, depth_axis: int, depth_stride: int | None = None) -> dict[str, Any]:
        """Arguments of the layer that a 2D convolution becomes; along the depth they are those of its bank."""
        arguments, axis = conv_arguments3d(conv, depth_axis, depth_stride), spatial_axis(depth_axis)
        size, padding, dilation = arguments["kernel_size"], arguments["padding"], arguments["dilation"]
        depth = max(size)  # of the bank, see CrossDConv2d
        more = dilation[axis] * (depth - size[axis])
        arguments["kernel_size"] = (*size[:axis], depth, *size[axis + 1 :])
        if not isinstance(padding, str):
            if more % 2:
                flat = tuple(conv.kernel_size)  # type: ignore[arg-type]
                raise Misfit(
                    f"a bank of depth {depth} cannot be padded like the first axis of a {flat} kernel with padding "
                    f"{conv.padding}: choose a static method such as 'center'."
                )
            arguments["padding"] = (*padding[:axis], padding[axis] + more // 2, *padding[axis + 1 :])
        return arguments

    @classmethod
    def options3d(cls, conv: nn.Module, depth_axis: int, **options: Any) -> dict[str, Any]:
        """Those of a CrossDConv2d, and the axis of the bank's depth."""
        names = ("hidden_channels", "max_angle", "bank_init") if isinstance(conv, CrossDConv2d) else ()
        return {**{name: getattr(conv, name) for name in names}, "depth_axis": depth_axis, **options}

    @classmethod
    def filled(cls, conv: nn.Module, arguments: dict[str, Any], depth_axis: int = -1, **options: Any) -> CrossDConv3d:
        """`from_conv` with all arguments of the geometry given."""
        layer = super().filled(conv, arguments, depth_axis, **options)
        layer.momentum = getattr(conv, "momentum", layer.momentum)
        return layer

    def to_conv3d(self, shift: Tensor | Sequence[float] | None = None) -> nn.Conv3d:
        """Plain Conv3d that gives every volume the kernel at one shift: exact for mode="static".

        Args:
            shift: (3,), in voxels; the running shift by default.

        Raises:
            ValueError: if `shift` has not three numbers.
        """
        kernel = self._kernel_at(shift)
        if self.placement == "center":
            return plane_conv3d(self, kernel, self._axis)
        return plain_conv(self, spread_kernel(kernel, self.weight.shape[2], self._axis))

    to_plain = to_conv3d

    def extra_repr(self) -> str:
        """Show how the kernel stands in the volume."""
        return f"{super().extra_repr()}, mode={self.mode!r}, depth_axis={self.depth_axis}, placement={self.placement!r}"
