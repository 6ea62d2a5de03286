# SPDX-License-Identifier: Apache-2.0
"""The 3D form of everything in a 2D network that is no convolution: norms, pools, padding, upsampling, dropout.

A layer changes its class and the entries it has per axis, and keeps the rest: parameters, buffers, flags, hooks. Along
the depth it is what it is along the first axis of the image.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

import torch
from torch import nn

from ..conv.inflate import spatial_axis
from ..conv.shuffle import SlicePixelShuffle, SlicePixelUnshuffle
from ..conv.timm_blocks import BatchNormAct3d, SEModule3d, SqueezeExcite3d

POOL = ("kernel_size", "stride", "padding")
# 2D class: its 3D class, and the attributes with an entry per axis
CLASSES: dict[type[nn.Module], tuple[type[nn.Module], tuple[str, ...]]] = {
    nn.BatchNorm2d: (nn.BatchNorm3d, ()),
    nn.InstanceNorm2d: (nn.InstanceNorm3d, ()),
    nn.Dropout2d: (nn.Dropout3d, ()),
    nn.MaxPool2d: (nn.MaxPool3d, (*POOL, "dilation")),
    nn.AvgPool2d: (nn.AvgPool3d, POOL),
    nn.LPPool2d: (nn.LPPool3d, ("kernel_size", "stride")),
    nn.MaxUnpool2d: (nn.MaxUnpool3d, POOL),
    nn.AdaptiveAvgPool2d: (nn.AdaptiveAvgPool3d, ("output_size",)),
    nn.AdaptiveMaxPool2d: (nn.AdaptiveMaxPool3d, ("output_size",)),
    nn.Upsample: (nn.Upsample, ("size", "scale_factor")),
    nn.UpsamplingNearest2d: (nn.Upsample, ("size", "scale_factor")),
    nn.UpsamplingBilinear2d: (nn.Upsample, ("size", "scale_factor")),
}
PADDING: dict[type[nn.Module], type[nn.Module]] = {
    nn.ConstantPad2d: nn.ConstantPad3d,
    nn.ZeroPad2d: nn.ZeroPad3d,
    nn.ReflectionPad2d: nn.ReflectionPad3d,
    nn.ReplicationPad2d: nn.ReplicationPad3d,
    nn.CircularPad2d: nn.CircularPad3d,
}
# what timm builds its networks of, by path of the class: its 3D class, or None where its children tell it all
FOREIGN: dict[str, type[nn.Module] | None] = {
    "timm.layers.norm_act.BatchNormAct2d": BatchNormAct3d,
    "timm.layers.squeeze_excite.SEModule": SEModule3d,
    "timm.models._efficientnet_blocks.SqueezeExcite": SqueezeExcite3d,
    "timm.layers.adaptive_avgmax_pool.SelectAdaptivePool2d": None,
}
# path of a class: why its 2D form cannot be carried into 3D module by module
REFUSED = {
    "monai.networks.blocks.upsample.SubpixelUpsample": "a 3D pixel shuffle needs more channels",
    "monai.networks.blocks.patchembedding.PatchEmbeddingBlock": "it has one position per patch of the image",
    "monai.networks.nets.swin_unetr.WindowAttention": "it has a table of the offsets in a 2D window",
    "monai.networks.blocks.warp.Warp": "it moves pixels by a field of two components",
    "monai.networks.layers.simplelayers.ChannelPad": "it counts the axes of an image",
    "monai.networks.nets.autoencoderkl.AsymmetricPad": "it pads two axes",
    "monai.networks.layers.vector_quantizer.EMAQuantizer": "it permutes the axes of an image",
    "monai.networks.blocks.mednext_block.MedNeXtBlock": "it cuts and normalizes the axes of an image",
    "monai.networks.blocks.mednext_block.MedNeXtDownBlock": "it cuts and normalizes the axes of an image",
    "monai.networks.blocks.mednext_block.MedNeXtUpBlock": "it pads two axes",
    "torch.nn.modules.fold.Unfold": "it lists the patches of an image",
    "torch.nn.modules.fold.Fold": "it puts an image together of patches",
    "torchvision.ops.misc.Permute": "it permutes the four axes of a batch of images",
}
# layers along one axis: counted from the end, the channels of a volume stand one further to the left
ALONG_AXIS = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU)
ADVICE = "build the 3D network with spatial_dims=3 and fill it by monai_crossd.load_2d."


class ConversionError(TypeError):
    """A 2D network has a part that no 3D form is known of; the text names its path and what to do.

    Example:
        >>> from monai_crossd import to_3d
        >>> try:
        ...     to_3d(nn.Sequential(nn.Fold((4, 4), 3)))
        ... except ConversionError as error:
        ...     str(error)[:35]
        '0 is a Fold, which works in 2D only'
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'the network'} {problem}: {ADVICE}")


def _per_axis(value: Any, axis: int) -> Any:
    """An entry for the depth: that of the first axis of the image."""
    return (*value[:axis], value[0], *value[axis:]) if isinstance(value, tuple | list) else value


def _without_depth(name: str, value: Any, axis: int, slices: int | None) -> Any:
    """An entry for the depth of what leaves it alone: a pool of one slice, an upsampling by 1."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if name == "output_size":  # None is the size that is there; to one value per channel means the whole volume
        return (*pair[:axis], 1 if pair == (1, 1) else None, *pair[axis:])
    return (*pair[:axis], {"padding": 0, "size": slices}.get(name, 1), *pair[axis:])


def _pads(value: tuple[int, ...], axis: int, keep_depth: bool) -> tuple[int, ...]:
    left, right, top, bottom = value
    pairs = [(top, bottom), (left, right)]
    pairs.insert(axis, (0, 0) if keep_depth else (top, bottom))
    return tuple(p for pair in reversed(pairs) for p in pair)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _codes(kind: type, method: str, seen: set[str]) -> list[CodeType]:
    """Code of a method and of the methods of the same class that it mentions."""
    code = getattr(getattr(kind, method, None), "__code__", None)
    if code is None:
        return []
    new = set(code.co_names) - seen
    return [code, *(found for name in sorted(new) for found in _codes(kind, name, seen | new))]


def _for_images(kind: type, is_run: bool) -> str | None:
    """What the code of a forward does to images only, where it does not know volumes too; a run finds functions."""
    codes = _codes(kind, "forward", {"forward"})
    names = {name for code in codes for name in code.co_names}
    for name in sorted(names):
        if not is_run and name.endswith("2d") and hasattr(nn.functional, name) and f"{name[:-2]}3d" not in names:
            return f"calls {name} in its forward, a function for images (if it never comes to that, pass `example=`)"
    constants = {value for code in codes for value in code.co_consts if isinstance(value, tuple)}
    if constants & {(2, 3), (-2, -1), (-1, -2)} and not constants & {(2, 3, 4), (-3, -2, -1), (-1, -2, -3)}:
        return "works on the two axes of an image in its forward"
    return None


def _check_foreign(path: str, module: nn.Module, is_run: bool) -> None:
    """Refuse a module that shows, by name or state, that it works on images only."""
    kind = type(module)
    if reason := REFUSED.get(_name(kind)):
        raise ConversionError(path, f"is a {kind.__name__}, which works in 2D only ({reason})")
    known = next((base.__name__ for base in (*CLASSES, *PADDING, nn.PixelShuffle) if isinstance(module, base)), None)
    if known is not None:
        raise ConversionError(path, f"is a {kind.__name__}, a {known} with a behaviour of its own")
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError(path, "is scripted, and its code is for images (pass the network that was scripted)")
    own_forward = kind.forward not in (nn.Sequential.forward, nn.Module.forward)
    if "2d" in kind.__name__.lower() and own_forward:
        raise ConversionError(path, f"is a {kind.__name__}, a 2D module that no 3D form is known of")
    if own_forward and (reason := _for_images(kind, is_run)):
        raise ConversionError(path, reason)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        raise ConversionError(path, f"is a LayerNorm over images of one size {module.normalized_shape}")
    for name, value in vars(module).items():
        if isinstance(value, str) and value in ("bilinear", "bicubic"):
            raise ConversionError(path, f"is a {kind.__name__} that interpolates images ({name} is {value!r})")


def _lift_upsample(path: str, module: Any, keeps_size: bool) -> None:
    """Check an upsampling and give it the 3D mode; whether it is to a size that would have to keep a depth."""
    if module.mode == "bicubic":
        raise ConversionError(path, "is a bicubic Upsample, and torch has no tricubic one")
    if keeps_size and module.scale_factor is None:
        raise ConversionError(path, f"is an Upsample to the size {module.size}, which keeps no depth")
    module.mode = "trilinear" if module.mode == "bilinear" else module.mode


def lift_module(
    path: str,
    module: nn.Module,
    depth_axis: int,
    is_run: bool = False,
    keep_depth: bool = False,
    slices: int | None = None,
) -> nn.Module | None:
    """Make a module that is no convolution 3D, in place.

    Args:
        path: of the module, for messages.
        module: it is changed.
        depth_axis: axis of the volume that runs through the slices.
        is_run: whether the network is run on a volume afterwards, which finds what cannot work.
        keep_depth: pools, padding and upsampling leave the depth alone; an adaptive pool to one value takes it all.
        slices: depth that upsampling to a size keeps, where it is known.

    Returns:
        The 3D module, or None if there is nothing to change in it, so that its children are to be visited.

    Raises:
        ConversionError: if it works on images only.
    """
    axis, kind = spatial_axis(depth_axis), type(module)
    state: Any = module
    if kind is nn.PixelShuffle:
        return SlicePixelShuffle(state.upscale_factor, depth_axis, keep_depth).train(module.training)
    if kind is nn.PixelUnshuffle:
        return SlicePixelUnshuffle(state.downscale_factor, depth_axis, keep_depth).train(module.training)
    if kind is nn.Softmax2d:
        return nn.Softmax(dim=-4).train(module.training)
    if kind in ALONG_AXIS and state.dim == -3:
        state.dim = -4
        return module
    if kind in PADDING:
        state.padding = _pads(state.padding, axis, keep_depth)
        module.__class__ = PADDING[kind]
        return module
    if _name(kind) in FOREIGN:
        module.__class__ = FOREIGN[_name(kind)] or kind
        return None
    if kind not in CLASSES:
        _check_foreign(path, module, is_run)
        for name in ("spatial_dims", "dimensions"):  # what MONAI's blocks branch on
            if getattr(module, name, None) == 2:
                setattr(module, name, 3)
        return None
    new, names = CLASSES[kind]
    if new is nn.Upsample:
        _lift_upsample(path, module, keep_depth and slices is None)
    if kind is nn.AvgPool2d and state.divisor_override is not None and not keep_depth:
        size = state.kernel_size
        state.divisor_override *= size if isinstance(size, int) else size[0]
    for name in names:
        value = getattr(module, name)
        if keep_depth and value is not None:
            setattr(module, name, _without_depth(name, value, axis, slices))
        else:
            setattr(module, name, _per_axis(value, axis))
    module.__class__ = new
    return module
