# SPDX-License-Identifier: Apache-2.0
"""A 3D network from any 2D one, layer by layer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from monai.utils import look_up_option
from torch import Tensor, nn

from ..functional.inflate import spatial_axis
from ..layers._base import conv_arguments, conv_arguments3d, copy_state
from ..layers.acs import ACSConv3d
from ..layers.crossd import CrossDConv2d, CrossDConv3d
from ..layers.planar import PlanarConv3d, cycling_planes
from ..layers.soft_acs import SoftACSConv3d
from .dimension import ConversionError, lift_module
from .rules import METHODS, Misfit, convert_kernel
from .tree import check_plain, map_modules


def _lift_kernel(conv: nn.Module, layer: nn.Module, method: str, depth_axis: int) -> nn.Module:
    """Fill a plain 3D convolution."""
    weight: Any = conv.weight
    kernel, _ = convert_kernel(layer, weight.detach(), getattr(conv, "running_shift", None), method, depth_axis)
    copy_state(layer, conv, kernel)  # type: ignore[arg-type]
    return layer


def lift_conv(
    conv: nn.Conv2d | CrossDConv2d,
    method: str,
    depth_axis: int = -1,
    plane: int | None = None,
    depth_stride: int | None = None,
    **options: Any,
) -> nn.Module:
    """3D form of one 2D convolution; `plane`, `depth_stride` and `options` are those of the layer's `from_conv`.

    Raises:
        ValueError: if the layer cannot be made by the method.
    """
    if method == "crossd":
        return CrossDConv3d.from_conv(conv, depth_axis, depth_stride, **options)
    arguments: dict[str, Any] = conv_arguments3d(conv, depth_axis, depth_stride)
    if method == "bank" and isinstance(conv, CrossDConv2d):
        arguments = conv_arguments(CrossDConv3d.from_conv(conv, depth_axis, depth_stride))
    if method in ("i3d", "centre", "bank"):
        try:
            return _lift_kernel(conv, nn.Conv3d(**arguments), method, depth_axis)
        except Misfit as error:
            raise ValueError(str(error)) from error
    plain = conv.to_conv2d() if isinstance(conv, CrossDConv2d) else conv
    if method == "acs":
        return ACSConv3d.from_conv(plain, depth_axis, depth_stride)
    if method in ("planar", "plane_cycle"):
        return PlanarConv3d.from_conv(plain, depth_axis, depth_stride, plane=plane)
    return SoftACSConv3d.from_conv(plain, depth_axis, depth_stride, mean=method == "mean_acs")


def _tie(new: nn.Module, old: nn.Module, tied: dict[nn.Parameter, Any]) -> None:
    """Let new layers share a parameter where the old ones did."""
    for name in ("weight", "bias"):
        source = getattr(old, name)
        if source is not None:
            first = tied.setdefault(source, getattr(new, name))
            if first.shape == getattr(new, name).shape:
                setattr(new, name, first)


def _check_runs(net: nn.Module, example: Tensor) -> None:
    """Run a copy once, in eval mode.

    Raises:
        ConversionError: naming the module in which it failed.
    """
    probe, inside = copy.deepcopy(net).eval(), [""]

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        inside.pop()

    for path, module in probe.named_modules():
        module.register_forward_pre_hook(lambda module, args, path=path: inside.append(path))
        module.register_forward_hook(leave)
    try:
        with torch.no_grad():
            probe(example)
    except Exception as error:
        raise ConversionError(inside[-1], f"fails on a volume of shape {list(example.shape)} ({error})") from error


def to_3d(
    net2d: nn.Module,
    method: str = "centre",
    depth_axis: int = -1,
    *,
    keep_depth: bool = False,
    example: Tensor | None = None,
    **options: Any,
) -> nn.Module:
    """Copy of a 2D network as a 3D one, a plain nn.Module with its weights, module by module.

    Works on any network made of torch's layers: MONAI's, torchvision's, timm's, your own. Convolutions follow the
    method (see `transfer_weights`); "plane_cycle" takes the slice plane and the two others by turns, in the order of
    the modules. Transposed convolutions take their kernel so that each output slice is a 2D output. Norms, pools,
    upsampling, pixel shuffle, padding and dropout become their 3D forms. Along the depth every layer is what it is
    along the first axis of the image: as large, strided, padded and dilated (an LP pool so sums over more). A
    function of torch for images in a forward (`F.avg_pool2d`) is refused by name, unless an `example` shows that the
    network does not come to it; what else it does to shapes cannot be seen from outside and is found by an `example`.

    With "i3d" a volume that is constant along the depth gives the 2D output away from the first and last slices. With
    "centre" and "planar" every slice gives its 2D output where nothing strides, pools or normalises along the depth.

    References:
        J. Carreira and A. Zisserman, Quo Vadis, Action Recognition?, 2017 ("i3d").
        J. Yang et al., Reinventing 2D Convolutions for 3D Images, 2021 ("acs").
        PlaneCycle, arXiv 2603.04165 ("plane_cycle").

    Args:
        net2d: 2D network, plain or Cross-D; it is not changed.
        method: "centre", "i3d", "crossd", "acs", "soft_acs", "mean_acs", "planar", "plane_cycle" or "bank"; the default
            is what did best in docs/transfer.md, for plain and for Cross-D networks.
        depth_axis: axis of the volume that runs through the slices; MONAI's is the last.
        keep_depth: no layer strides or pools along the depth, for volumes of few or thick slices.
        example: (B, C, H, W, D), a small volume that the result is run on, on the network's device.
        **options: of method "crossd": `mode` and `placement` ("centre", "spread", "gated") of CrossDConv3d.

    Returns:
        The copy, in the same mode, on the same device and of the same dtype. Tied modules and parameters stay tied.

    Raises:
        ConversionError: (a TypeError) naming the path of a module that has no 3D form, and what to do.
        TypeError: if a convolution is a subclass or makes its weight in a hook.
        ValueError: for an unknown method, or a layer that the method cannot carry, with its path.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2))
        >>> to_3d(net, "i3d")(torch.randn(1, 1, 8, 8, 8)).shape
        torch.Size([1, 4, 4, 4, 4])
    """
    method = look_up_option(method, METHODS)
    if options and method != "crossd":
        raise ValueError(f"method {method!r} has no options, got {', '.join(options)}.")
    planes, turns = cycling_planes(depth_axis), 0
    tied: dict[nn.Parameter, Any] = {}

    def convert(path: str, module: nn.Module) -> nn.Module | None:
        nonlocal turns
        new: nn.Module
        if isinstance(module, nn.ConvTranspose2d):
            check_plain(path, module, nn.ConvTranspose2d)
            if keep_depth and max(module.stride) > 1:
                raise ConversionError(path, "is a transposed convolution that strides, which keeps no depth")
            new = nn.ConvTranspose3d(**conv_arguments3d(module, depth_axis))  # type: ignore[arg-type]
            _lift_kernel(module, new, method, depth_axis)
        elif isinstance(module, nn.Conv2d | CrossDConv2d):
            if isinstance(module, nn.Conv2d):
                check_plain(path, module, nn.Conv2d)
            plane = spatial_axis(depth_axis)
            if method == "plane_cycle" and max(module.kernel_size) > 1:
                plane, turns = planes[turns % 3], turns + 1
            try:
                new = lift_conv(module, method, depth_axis, plane, 1 if keep_depth else None, **options)
            except ValueError as error:
                raise ValueError(f"{path or 'the network'}: {error}") from error
        else:
            return lift_module(path, module, depth_axis, example is not None, keep_depth)
        _tie(new, module, tied)
        return new

    net3d = map_modules(net2d, convert)
    if example is not None:
        _check_runs(net3d, example)
    return net3d
