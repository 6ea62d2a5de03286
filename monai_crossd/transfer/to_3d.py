# SPDX-License-Identifier: Apache-2.0
"""A 3D network from any 2D one, layer by layer."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn

from .._options import look_up_option
from ..conv.base import conv_arguments3d
from ..conv.crossd import CrossDConv2d
from ..conv.factory import CONVOLUTIONS
from ..conv.from_2d import INFLATIONS, fill_layer
from ..conv.inflate import spatial_axis
from .compare import check_slices
from .modules3d import ConversionError, lift_module
from .names import unwrapped
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
    conv: str = "conv",
    inflate: str = "center",
    depth_axis: int = -1,
    *,
    keep_depth: bool = False,
    example: Tensor | None = None,
    **options: Any,
) -> nn.Module:
    """Copy of a 2D network as a 3D one, a plain nn.Module with its weights, module by module.

    Works on any network made of torch's layers: MONAI's, torchvision's, timm's, your own. Convolutions become those
    that `conv` names, filled as `load_2d` fills them; "plane_cycle" takes the slice plane and the two others by turns,
    in the order of the modules. Transposed ones are plain: each slice of their output is a 2D output. Norms, pools,
    upsampling, pixel shuffle, padding and dropout become their 3D forms. Along the depth every layer is what it is
    along the first axis of the image: as large, strided, padded and dilated (an LP pool so sums over more). A
    function of torch for images in a forward (`F.avg_pool2d`) is refused by name, unless an `example` shows that the
    network does not come to it; what else it does to axes and shapes cannot be seen from outside and is found by an
    `example`: the copy is run on it, and the code of the network is compared with what it does to an image.

    With inflate="i3d" a volume that is constant along the depth gives the 2D output away from the first and last
    slices. With "center", and of conv="planar", every slice gives its 2D output where nothing strides, pools or
    normalizes along the depth: of a convolution with k, s, p and d for kernel, stride, padding and dilation along the
    first axis, slice z is the 2D output of slice z·s − p + d·(k // 2), which for odd kernels that keep the size is z
    itself, for even ones (k = 2, p = 0) z + 1; of padding, where there is no such slice. With `keep_depth` it is always
    z.

    What is compared: a second copy, in evaluation mode, in which every kernel is in the center and every layer keeps
    the depth, on a volume that repeats the middle slice of the example. Each of its slices, or its result where that
    has no depth, must be that of the 2D network, whatever the convolution: pools, norms and attention over the whole
    volume give it too. Not compared are what is put into the kernels, values of networks that draw random numbers in
    evaluation mode, and, where the second copy runs at its own depth only, slices near the border.

    References:
        J. Carreira and A. Zisserman, Quo Vadis, Action Recognition?, 2017 ("i3d").
        J. Yang et al., Reinventing 2D Convolutions for 3D Images, 2021 ("acs").
        PlaneCycle, arXiv 2603.04165 ("plane_cycle").

    Args:
        net2d: 2D network, plain or Cross-D; it is not changed.
        conv: Convolution of the 3D network: "conv" (plain), "crossd", "acs", "soft_acs", "mean_acs", "planar" or
            "plane_cycle".
        inflate: How plain 3D kernels are filled, transposed ones among them: "center", "i3d" or "bank" (see `load_2d`);
            the defaults did best in docs/transfer.md, for plain and for Cross-D networks.
        depth_axis: axis of the volume that runs through the slices; MONAI's is the last.
        keep_depth: no layer strides, pools, cuts or pads along the depth, for volumes of few or thick slices: kernels
            are padded by half along it, those of even size one slice less (plain and planar ones). Adaptive pools
            to one value take the whole depth.
        example: (B, C, H, W, D), a small volume that the result is run on and compared by, on the network's device.
        **options: of conv="crossd": `mode` and `placement` ("center" or "spread") of CrossDConv3d.

    Returns:
        The copy, in the same mode, on the same device and of the same dtype, with the hooks of the network, and without
        torch.compile or DataParallel around it. Tied modules and parameters stay tied.

    Raises:
        ConversionError: (a TypeError) naming the path of a module that has no 3D form, or does something else in 3D
            than in 2D, and what to do.
        TypeError: if a convolution is a subclass, makes its weight in a hook, has a forward or modules of its own, or
            shares its weight with what is no convolution; or if a parameter has a hook; with the path.
        ValueError: for an unknown word, a layer that cannot become the convolution, with its path, or another shape of
            the example.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2))
        >>> to_3d(net, inflate="i3d")(torch.randn(1, 1, 8, 8, 8)).shape
        torch.Size([1, 4, 4, 4, 4])
    """
    if conv in INFLATIONS:
        raise ValueError(f"{conv!r} is a way to fill plain kernels, no convolution: pass inflate={conv!r}.")
    conv, inflate = look_up_option(conv, ("conv", *CONVOLUTIONS)), look_up_option(inflate, INFLATIONS)
    if options and conv != "crossd":
        raise ValueError(f"conv={conv!r} has no options, got {', '.join(options)}.")
    if example is not None and example.dim() != 5:
        raise ValueError(f"example must be a batch of volumes (B, C, H, W, D), but has shape {list(example.shape)}.")
    check_copies(net2d)
    net2d = unwrapped(net2d)
    net3d = _convert(net2d, conv, inflate, depth_axis, keep_depth, example is not None, **options)
    if example is not None:
        _check_runs(net3d, example)
        plain = to_plain(net2d)

        def stand_in(keep: bool, slices: int) -> nn.Module:
            return _convert(plain, "conv", "center", depth_axis, keep, True, slices)

        check_slices(plain, stand_in, example, spatial_axis(depth_axis) + 2, keep_depth)
    return net3d


def _convert(
    net2d: nn.Module,
    conv: str,
    inflate: str,
    depth_axis: int,
    keep_depth: bool,
    is_run: bool,
    slices: int | None = None,
    **options: Any,
) -> nn.Module:
    """Copy of a network as a 3D one; of the number of slices given, strided transposed convolutions keep it too."""
    ours = CONVOLUTIONS.get(conv)
    turns = None if ours is None or ours.turns is None else itertools.cycle(ours.turns(depth_axis))
    ties = Ties()

    def convert(path: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, nn.ConvTranspose2d):
            check_plain(path, module, nn.ConvTranspose2d)
            if keep_depth and slices is None and max(module.stride) > 1:
                raise ConversionError(path, "is a transposed convolution that strides, which keeps no depth")
            new = _lift_transposed(module, inflate, depth_axis, keep_depth)
        elif isinstance(module, nn.Conv2d | CrossDConv2d):
            check_plain(path, module, nn.Conv2d if isinstance(module, nn.Conv2d) else CrossDConv2d)
            turn = {} if turns is None or max(module.kernel_size) == 1 else next(turns)
            try:
                new = _lift_conv(module, conv, inflate, depth_axis, keep_depth, **options, **turn)
            except ValueError as error:
                raise ValueError(f"{path or 'the network'}: {error}") from error
        else:
            return lift_module(path, module, depth_axis, is_run, keep_depth, slices)
        ties.keep(path, module, new)
        return new

    net3d = map_modules(net2d, convert)
    ties.check(net3d)
    return net3d


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
            f"a kernel of {size} slices has no middle one, so that no padding keeps the depth: choose conv='conv' "
            "or 'planar', which take one slice less"
        )
    if arguments["padding"] == "valid":
        arguments["padding"] = (0, 0, 0)
    if not same:
        put("padding", arguments["dilation"][axis] * (size // 2))
    put("stride", 1)
    if "output_padding" in arguments:
        put("output_padding", 0)
    return arguments


def _lift_transposed(layer: nn.ConvTranspose2d, inflate: str, depth_axis: int, keep_depth: bool) -> nn.Module:
    """3D form of a transposed convolution."""
    arguments: dict[str, Any] = conv_arguments3d(layer, depth_axis)
    if keep_depth:
        arguments = _kept(arguments, spatial_axis(depth_axis), True)
    new = nn.ConvTranspose3d(**arguments)
    fill_layer(new, layer, inflate, depth_axis)
    return new


def _lift_conv(
    layer: nn.Conv2d | CrossDConv2d, conv: str, inflate: str, depth_axis: int, keep_depth: bool, **options: Any
) -> nn.Module:
    """3D form of one 2D convolution; `options` are those of the layer that it becomes.

    Raises:
        ValueError: if it cannot become that layer, or cannot keep the depth.
    """
    axis, stride, ours = spatial_axis(depth_axis), 1 if keep_depth else None, CONVOLUTIONS.get(conv)
    if ours is None:
        bank = inflate == "bank" and isinstance(layer, CrossDConv2d)
        lifted = CONVOLUTIONS["crossd"].layer3d.arguments3d if bank else conv_arguments3d
        arguments = lifted(layer, depth_axis, stride)
        if keep_depth:
            arguments = _kept(arguments, axis, inflate != "bank")
        new = nn.Conv3d(**arguments)
        fill_layer(new, layer, inflate, depth_axis)
        return new
    options = {**ours.options, **options}
    arguments = ours.layer3d.arguments3d(layer, depth_axis, stride)
    if keep_depth:
        arguments = _kept(arguments, axis, ours.layer3d.may_be_thinner(depth_axis, **options))
    return ours.layer3d.filled(layer, arguments, depth_axis, **options)
