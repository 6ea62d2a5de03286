# SPDX-License-Identifier: Apache-2.0
"""The 3D form of one convolution of a 2D network, by method."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..conv.base import conv_arguments3d, copy_state
from ..conv.crossd import CrossDConv2d
from ..conv.factory import CONVOLUTIONS
from ..conv.inflate import spatial_axis
from .rules import convert_kernel


def _lift_kernel(conv: nn.Module, layer: nn.Module, method: str, depth_axis: int) -> nn.Module:
    """Fill a plain 3D convolution."""
    weight: Any = conv.weight
    kernel, _ = convert_kernel(layer, weight.detach(), getattr(conv, "running_shift", None), method, depth_axis)
    copy_state(layer, conv, kernel)
    return layer


def _kept(arguments: dict[str, Any], axis: int, shrinks: bool) -> dict[str, Any]:
    """Arguments of a layer that leaves as many slices as it gets: unstrided, and padded by half a kernel on each side.

    Raises:
        ValueError: if the kernel has no middle slice, and may not shrink to the next smaller size that has one.
    """
    arguments = dict(arguments)

    def put(name: str, value: int) -> None:
        old = arguments[name]
        arguments[name] = (*old[:axis], value, *old[axis + 1 :])

    size, same = arguments["kernel_size"][axis], arguments["padding"] == "same"
    if size % 2 == 0 and shrinks:
        put("kernel_size", size - 1)
        size -= 1
    if size % 2 == 0 and not same:
        raise ValueError(
            f"a kernel of {size} slices has no middle one, so that no padding keeps the depth: choose 'center', "
            "'planar' or 'i3d', which take one slice less"
        )
    if arguments["padding"] == "valid":
        arguments["padding"] = (0, 0, 0)
    if not same:
        put("padding", arguments["dilation"][axis] * (size // 2))
    put("stride", 1)
    if "output_padding" in arguments:
        put("output_padding", 0)
    return arguments


def lift_transposed(conv: nn.ConvTranspose2d, method: str, depth_axis: int, keep_depth: bool) -> nn.Module:
    """3D form of a transposed convolution."""
    arguments: dict[str, Any] = conv_arguments3d(conv, depth_axis)
    if keep_depth:
        arguments = _kept(arguments, spatial_axis(depth_axis), True)
    return _lift_kernel(conv, nn.ConvTranspose3d(**arguments), method, depth_axis)


def lift_conv(
    conv: nn.Conv2d | CrossDConv2d, method: str, depth_axis: int = -1, keep_depth: bool = False, **options: Any
) -> nn.Module:
    """3D form of one 2D convolution; `options` are those of the layer's `from_conv`.

    Raises:
        ValueError: if the layer cannot be made by the method, or cannot keep the depth.
    """
    axis, stride, ours = spatial_axis(depth_axis), 1 if keep_depth else None, CONVOLUTIONS.get(method)
    if ours is None:
        bank = method == "bank" and isinstance(conv, CrossDConv2d)
        lifted = CONVOLUTIONS["crossd"].layer3d.arguments3d if bank else conv_arguments3d
        arguments = lifted(conv, depth_axis, stride)
        if keep_depth:
            arguments = _kept(arguments, axis, method in ("i3d", "center"))
        return _lift_kernel(conv, nn.Conv3d(**arguments), method, depth_axis)
    options = {**ours.options, **options}
    arguments = ours.layer3d.arguments3d(conv, depth_axis, stride)
    if keep_depth:
        arguments = _kept(arguments, axis, ours.layer3d.may_be_thinner(depth_axis, **options))
    return ours.layer3d.filled(conv, arguments, depth_axis, **options)
