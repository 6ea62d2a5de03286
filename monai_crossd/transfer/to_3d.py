# SPDX-License-Identifier: Apache-2.0
"""A 3D network from any 2D one, layer by layer."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from .._options import look_up_option
from ..conv.crossd import CrossDConv2d
from ..conv.factory import CONVOLUTIONS
from ..conv.inflate import spatial_axis
from .compare import check_slices
from .convolutions3d import lift_conv, lift_transposed
from .modules3d import ConversionError, lift_module
from .names import unwrapped
from .rules import methods
from .to_plain import to_plain
from .tree import Ties, check_copies, check_plain, map_modules


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
    method: str = "center",
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
    network does not come to it; what else it does to axes and shapes cannot be seen from outside and is found by an
    `example`: the copy is run on it, and the code of the network is compared with what it does to an image.

    With "i3d" a volume that is constant along the depth gives the 2D output away from the first and last slices. With
    "center" and "planar" every slice gives its 2D output where nothing strides, pools or normalises along the depth: of
    a convolution with k, s, p and d for kernel, stride, padding and dilation along the first axis, slice z is the 2D
    output of slice z·s − p + d·(k // 2), which for odd kernels that keep the size is z itself, for even ones
    (k = 2, p = 0) z + 1; of padding, where there is no such slice. With `keep_depth` it is always z.

    What is compared: a second copy, in evaluation mode, in which every kernel is in the center and every layer keeps
    the depth, on a volume that repeats the middle slice of the example. Each of its slices, or its result where that
    has no depth, must be that of the 2D network, whatever the method: convolutions, pools, norms and attention over the
    whole volume all give it. Not compared are what the method puts into the kernels, values of networks that draw
    random numbers in evaluation mode, and, where the second copy runs at its own depth only, slices near the border.

    References:
        J. Carreira and A. Zisserman, Quo Vadis, Action Recognition?, 2017 ("i3d").
        J. Yang et al., Reinventing 2D Convolutions for 3D Images, 2021 ("acs").
        PlaneCycle, arXiv 2603.04165 ("plane_cycle").

    Args:
        net2d: 2D network, plain or Cross-D; it is not changed.
        method: "center", "i3d", "crossd", "acs", "soft_acs", "mean_acs", "planar", "plane_cycle" or "bank"; the default
            is what did best in docs/transfer.md, for plain and for Cross-D networks.
        depth_axis: axis of the volume that runs through the slices; MONAI's is the last.
        keep_depth: no layer strides, pools, cuts or pads along the depth, for volumes of few or thick slices: kernels
            are padded by half along it, those of even size one slice less ("center", "i3d", "planar"). Adaptive pools
            to one value take the whole depth.
        example: (B, C, H, W, D), a small volume that the result is run on and compared by, on the network's device.
        **options: of method "crossd": `mode` and `placement` ("center" or "spread") of CrossDConv3d.

    Returns:
        The copy, in the same mode, on the same device and of the same dtype, with the hooks of the network, and without
        torch.compile or DataParallel around it. Tied modules and parameters stay tied.

    Raises:
        ConversionError: (a TypeError) naming the path of a module that has no 3D form, or does something else in 3D
            than in 2D, and what to do.
        TypeError: if a convolution is a subclass, makes its weight in a hook, has a forward or modules of its own, or
            shares its weight with what is no convolution; or if a parameter has a hook; with the path.
        ValueError: for an unknown method, a layer that the method cannot carry, with its path, or another shape of the
            example.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2))
        >>> to_3d(net, "i3d")(torch.randn(1, 1, 8, 8, 8)).shape
        torch.Size([1, 4, 4, 4, 4])
    """
    method = look_up_option(method, methods())
    if options and method != "crossd":
        raise ValueError(f"method {method!r} has no options, got {', '.join(options)}.")
    if example is not None and example.dim() != 5:
        raise ValueError(f"example must be a batch of volumes (B, C, H, W, D), but has shape {list(example.shape)}.")
    check_copies(net2d)
    net2d = unwrapped(net2d)
    net3d = _convert(net2d, method, depth_axis, keep_depth, example is not None, **options)
    if example is not None:
        _check_runs(net3d, example)
        plain = to_plain(net2d)

        def stand_in(keep: bool, slices: int) -> nn.Module:
            return _convert(plain, "center", depth_axis, keep, True, slices)

        check_slices(plain, stand_in, example, spatial_axis(depth_axis) + 2, keep_depth)
    return net3d


def _convert(
    net2d: nn.Module,
    method: str,
    depth_axis: int,
    keep_depth: bool,
    is_run: bool,
    slices: int | None = None,
    **options: Any,
) -> nn.Module:
    """Copy of a network as a 3D one; of the number of slices given, strided transposed convolutions keep it too."""
    ours = CONVOLUTIONS.get(method)
    turns = None if ours is None or ours.turns is None else itertools.cycle(ours.turns(depth_axis))
    ties = Ties()

    def convert(path: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, nn.ConvTranspose2d):
            check_plain(path, module, nn.ConvTranspose2d)
            if keep_depth and slices is None and max(module.stride) > 1:
                raise ConversionError(path, "is a transposed convolution that strides, which keeps no depth")
            new = lift_transposed(module, method, depth_axis, keep_depth)
        elif isinstance(module, nn.Conv2d | CrossDConv2d):
            check_plain(path, module, nn.Conv2d if isinstance(module, nn.Conv2d) else CrossDConv2d)
            turn = {} if turns is None or max(module.kernel_size) == 1 else next(turns)
            try:
                new = lift_conv(module, method, depth_axis, keep_depth, **options, **turn)
            except ValueError as error:
                raise ValueError(f"{path or 'the network'}: {error}") from error
        else:
            return lift_module(path, module, depth_axis, is_run, keep_depth, slices)
        ties.keep(path, module, new)
        return new

    net3d = map_modules(net2d, convert)
    ties.check(net3d)
    return net3d
