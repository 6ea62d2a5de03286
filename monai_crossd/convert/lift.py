# SPDX-License-Identifier: Apache-2.0
"""The 3D form of one convolution of a 2D network, by method."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..functional.inflate import spatial_axis
from ..layers._base import conv_arguments, conv_arguments3d, copy_state
from ..layers.acs import ACSConv3d
from ..layers.crossd import CrossDConv2d, CrossDConv3d
from ..layers.planar import PlanarConv3d
from ..layers.soft_acs import SoftACSConv3d
from .rules import Misfit, convert_kernel


def _lift_kernel(conv: nn.Module, layer: nn.Module, method: str, depth_axis: int) -> nn.Module:
    """Fill a plain 3D convolution."""
    weight: Any = conv.weight
    kernel, _ = convert_kernel(layer, weight.detach(), getattr(conv, "running_shift", None), method, depth_axis)
    copy_state(layer, conv, kernel)  # type: ignore[arg-type]
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
            f"a kernel of {size} slices has no middle one, so that no padding keeps the depth: choose 'centre', "
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
    conv: nn.Conv2d | CrossDConv2d,
    method: str,
    depth_axis: int = -1,
    plane: int | None = None,
    keep_depth: bool = False,
    **options: Any,
) -> nn.Module:
    """3D form of one 2D convolution; `plane` and `options` are those of the layer's `from_conv`.

    Raises:
        ValueError: if the layer cannot be made by the method, or cannot keep the depth.
    """
    axis, stride = spatial_axis(depth_axis), 1 if keep_depth else None
    if method == "crossd":
        dynamic = CrossDConv3d.from_conv(conv, depth_axis, stride, **options)
        made = conv_arguments(dynamic)
        if keep_depth and dynamic.padding not in ("same", _kept(made, axis, False)["padding"]):
            raise ValueError(
                f"padding {conv.padding} of a {tuple(conv.kernel_size)} kernel keeps no depth in a Cross-D layer: "
                "choose 'centre', 'planar' or 'i3d'"
            )
        return dynamic
    arguments: dict[str, Any] = conv_arguments3d(conv, depth_axis)
    if method == "bank" and isinstance(conv, CrossDConv2d):
        arguments = conv_arguments(CrossDConv3d.from_conv(conv, depth_axis, stride))
    flat = method in ("planar", "plane_cycle") and plane in (None, depth_axis, axis)
    if keep_depth:
        arguments = _kept(arguments, axis, flat or method in ("i3d", "centre"))
    if method in ("i3d", "centre", "bank"):
        try:
            return _lift_kernel(conv, nn.Conv3d(**arguments), method, depth_axis)
        except Misfit as error:
            raise ValueError(str(error)) from error
    plain = conv.to_conv2d() if isinstance(conv, CrossDConv2d) else conv
    layer: nn.Module
    extra: dict[str, Any] = {}
    if method == "acs":
        layer = ACSConv3d.from_conv(plain, depth_axis, stride)
    elif method in ("planar", "plane_cycle"):
        layer = PlanarConv3d.from_conv(plain, depth_axis, stride, plane=plane)
        extra = {"plane": layer.plane}
    else:
        layer = SoftACSConv3d.from_conv(plain, depth_axis, stride, mean=method == "mean_acs")
        extra = {"mean": layer.mean}
    if keep_depth and conv_arguments(layer) != arguments:
        old, layer = layer, type(layer)(**arguments, **extra)
        copy_state(layer, plain, old.weight)
    return layer
