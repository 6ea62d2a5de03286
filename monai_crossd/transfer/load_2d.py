# SPDX-License-Identifier: Apache-2.0
"""Fill a 3D network with the weights of a 2D one, key by key: all of it or nothing, with a report of every key.

What a layer gets from a 2D kernel is the layer's to say (`conv.from_2d.kernel_for`); here keys find their layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from .._options import look_up_option
from ..conv.base import ConvBase
from ..conv.from_2d import INFLATIONS, Misfit, kernel_for, without_counterpart
from ..conv.inflate import spatial_axis
from .checkpoints import read_checkpoint
from .names import COMPILED, HEADS, as_patterns, fit_names, fits, misfit_advice, unwrapped, without_compiled
from .report import TransferError, TransferReport, some

CONVOLUTIONS = (nn.modules.conv._ConvNd, ConvBase)
PHOTOS = (1, 3)  # channels of images, grey or in color
# key pattern: why a parameter of another shape in 3D has no 2D counterpart
DIMENSION_BOUND = {
    "*relative_position_bias_table": "one entry per offset in a window, and a 3D window has more offsets",
    "*relative_position_index": "counts the offsets in a window, which 3D windows have more of",
    "*position_embeddings": "one vector per patch, and a volume has more patches",
    "*pos_embed": "one vector per patch, and a volume has more patches",
    "*patch_embeddings.1.*": "reads all pixels of a patch, and a 3D patch has more",
    "*downsample.reduction.weight": "merges 4 patches in 2D and 8 in 3D",
    "*downsample.norm.*": "merges 4 patches in 2D and 8 in 3D",
}

Source = nn.Module | Mapping[str, Tensor] | str | os.PathLike


def load_2d(
    net3d: nn.Module,
    source: Source,
    inflate: str = "center",
    depth_axis: int = -1,
    *,
    exclude: str | Sequence[str] = (),
    strict: bool = True,
) -> TransferReport:
    """Fill a 3D network with the weights of the same network in 2D.

    Build the network in 3D (a MONAI network with spatial_dims=3, or a part of it such as `unet.encoder`), with the
    convolutions that you want (`use_conv`); keys are those of the 2D network, and only convolution kernels change their
    shape. Each layer knows how it is filled:

    - CrossDConv3d takes the bank as it is; of a plain 2D kernel, the bank that gives it;
    - ACSConv3d, SoftACSConv3d and PlanarConv3d take the 2D kernel into their views or their plane (of a bank: the
      kernel at its running shift);
    - plain 3D convolutions take it by `inflate`; a transposed one so that each slice of its output is a 2D output;
    - a kernel that has the rank of the layer already is copied (a 2D network from a 2D file, a 3D one from a 3D file),
      and a plain 2D network takes a bank's kernel at its running shift.

    A source may be of the publishers of ResNets: torchvision, timm, RadImageNet, MedicalNet (3D), the Cross-D-Conv
    code, MONAI. Their names are understood, and what wraps a network's names (`module.`, `_orig_mod.`, `model.`,
    `net.`, `network.`, `backbone.`, `encoder.`) is taken off. Kernels that read the image are adapted to its number of
    channels: from any number for the ResNets above, from 1 or 3 for other networks.

    What a source lacks and a network can do without is 0, and the report says so: the bias of a convolution, and the
    number of batches that a batch norm has seen. What depends on the number of dimensions beyond a kernel (position
    embeddings, tables of relative positions, patch merging) keeps its initial value. What a source may have beyond the
    network is its classifier (`fc`, `classifier`, `head`, ...), where the network has none of that name, and what
    predicts a shift, where layers have a fixed kernel.

    References:
        J. Carreira and A. Zisserman, Quo Vadis, Action Recognition?, 2017 ("i3d").
        M. C. Yavuz and Y. Yang, Cross-D Conv, 2024 ("bank").

    Args:
        net3d: Network to fill in place, also compiled or inside a DataParallel.
        source: 2D network, its state_dict, or the path of its checkpoint (see `read_checkpoint`); it is not changed.
        inflate: How plain 3D kernels are filled: "center", the 2D kernel in the middle slice and zeros elsewhere;
            "i3d", repeated along the depth and divided by it; "bank", the raw bank of a Cross-D layer, as the published
            code does.
        depth_axis: Axis of the volume that runs through the slices; MONAI's is the last.
        exclude: Pattern or patterns (as of a shell, for the whole name) of keys to leave alone, in `net3d` and in the
            source, e.g. "fc.*" for a head of other classes; each must fit a key.
        strict: Every parameter of `net3d` that is not excluded, nor bound to its dimension, must find its counterpart,
            and every one of the source its place, else nothing is loaded. Without it, what fits is loaded and the
            report says what did not.

    Returns:
        What was transferred, skipped and left at its initial value, key by key.

    Raises:
        TransferError: (a ValueError) If `strict` and something does not fit, or if nothing does; nothing is loaded, the
            report is in it.
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, for an unknown `inflate`, a pattern that fits nothing, a layer that
            was built with another depth axis, or where `inflate` or `depth_axis` is given and no kernel changes its
            dimension.
        TypeError: If `source` is none of the three.

    Example:
        >>> from monai.networks.nets import resnet10
        >>> net2d = resnet10(spatial_dims=2, n_input_channels=1, num_classes=3)
        >>> net3d = resnet10(spatial_dims=3, n_input_channels=1, num_classes=3)
        >>> load_2d(net3d, net2d, "i3d").share
        1.0
    """
    inflate, axis = look_up_option(inflate, INFLATIONS), spatial_axis(depth_axis)
    net3d = unwrapped(net3d)
    layers, target = _layers(net3d), _tensors(net3d)
    _check_depth_axis(layers, depth_axis)
    state, prefix, is_known = fit_names(_read(source), target)
    for name, tensors in (("the source", state), ("the network", target)):
        if any(value.is_meta for value in tensors.values()):
            raise ValueError(f"{name} is on the device 'meta', which holds no values: build it on another.")
    patterns = as_patterns(exclude, [*target, *(key for key in state if key not in target)], "exclude")
    adapted = _adapt_images(state, layers, any_number=is_known)
    report = TransferReport(numel={key: value.numel() for key, value in target.items()})
    report.notes.extend([f"without the prefix {prefix!r} of the source"] if prefix else [])
    values: dict[str, Tensor] = {}
    missing, left, lifted = [], [], False
    for key, value in target.items():
        path, _, name = key.rpartition(".")
        if fits(patterns, key):
            report.initial[key] = "excluded"
        elif key in state:
            try:
                given, how = _like(state[key], value), "copied"
                if name == "weight" and isinstance(layer := layers[path], CONVOLUTIONS):
                    given, how = kernel_for(layer, {**_below(path, state), name: given}, inflate, axis)
                    lifted |= how != "copied" and len(layer.kernel_size) == 3
                elif given.shape != value.shape:
                    raise Misfit(f"source {tuple(given.shape)} does not fit {tuple(value.shape)}")
                values[key], report.transferred[key] = given, how + adapted.get(key, "")
            except Misfit as error:
                if reason := _dimension_bound(key):
                    report.initial[key] = report.skipped[key] = reason
                else:
                    report.conflicts[key] = str(error)
        else:
            new, why = _without_source(key, layers, state, value)
            if new is not None:
                values[key] = new
            place = report.transferred if why.startswith("0") else report.initial
            place[key] = why or "the source has no such parameter"
            missing += [] if why else [key]
    for key in state:
        if fits(patterns, key):
            report.skipped[key] = "excluded"
        elif key not in target:
            reason = _without_target(key, target, layers)
            report.skipped[key] = reason or "the network has no such parameter"
            left += [] if reason else [key]
    if not set(report.transferred) & set(state) or (strict and (report.conflicts or missing or left)):
        raise TransferError(_misfit_message(net3d, state, report, missing, left), report)
    if not lifted and (inflate, axis) != ("center", 2):
        raise ValueError(
            f"the source is as 2D or 3D as the network: inflate ({inflate!r}) and depth_axis ({depth_axis}) have no "
            "meaning here."
        )
    with torch.no_grad():
        for key, new in values.items():
            target[key].copy_(new)
    return report


def part_of(net: nn.Module, state: Mapping[str, Tensor], part: str | None) -> nn.Module:
    """The part of a network, by its path, that a state_dict is of; the network where it has something of the rest.

    Args:
        net: Network, such as a U-Net.
        state: State_dict, such as of a classifier or of a U-Net, with or without what wraps its names.
        part: Path of the part, such as "encoder"; None for the network. A head is no sign of the rest: every network
            has one.

    Example:
        >>> net = nn.ModuleDict({"encoder": nn.Conv2d(1, 2, 3), "decoder": nn.Conv2d(2, 1, 3)})
        >>> part_of(net, {"module.weight": torch.zeros(2, 1, 3, 3)}, "encoder") is net["encoder"]
        True
    """
    if part is None:
        return net
    rest = tuple(f".{key}" for key in net.state_dict() if key.partition(".")[0] not in (part, *HEADS))
    return net if any(f".{key}".endswith(rest) for key in state) else net.get_submodule(part)


def _read(source: Source) -> dict[str, Tensor]:
    if isinstance(source, nn.Module):
        return _tensors(unwrapped(source))
    if isinstance(source, str | os.PathLike):
        return read_checkpoint(source)
    if not isinstance(source, Mapping):
        raise TypeError(f"source is a network, a state_dict or a path, but is a {type(source).__name__}.")
    other = [key for key, value in source.items() if not isinstance(value, Tensor)]
    if other:
        raise TypeError(
            f"the source is no state_dict: {other[0]!r} holds a {type(source[other[0]]).__name__}. "
            f"Pass the dictionary of tensors itself, e.g. checkpoint[{other[0]!r}]."
        )
    return dict(source)


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """State of a network, without the names that torch.compile puts in and without what modules add to it."""
    state = without_compiled(net.state_dict())
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _layers(net: nn.Module) -> dict[str, nn.Module]:
    """Every module by path, a tied one under each of its paths, without the names that torch.compile puts in."""
    named = net.named_modules(remove_duplicate=False)
    return {f"{path}.".replace(COMPILED, "").strip("."): layer for path, layer in named}


def _check_depth_axis(layers: Mapping[str, nn.Module], depth_axis: int) -> None:
    for path, layer in layers.items():
        built = getattr(layer, "depth_axis", None) if isinstance(layer, ConvBase) else None
        if built is not None and spatial_axis(built) != spatial_axis(depth_axis):
            raise ValueError(
                f"{path or 'the network'} was built with depth_axis={built}, not {depth_axis}: build it inside "
                f"`with monai_crossd.use_conv(..., depth_axis={depth_axis}):`."
            )


def _below(path: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a state_dict has of one layer, by its names inside it."""
    start = f"{path}.".lstrip(".")
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _like(source: Tensor, value: Tensor) -> Tensor:
    """A value of the source in the finer of the two precisions: of a file in half precision no kernel is made in it."""
    if not value.is_floating_point():
        return source
    if not source.is_floating_point():
        raise Misfit(f"source of {source.dtype} does not fit {value.dtype}")
    return source.to(torch.promote_types(source.dtype, value.dtype))


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """Kernel (O, I, ...) for images of another number of channels: each takes the sum over the old ones / channels.

    An image whose channels are equal, as a grey image shown in color, gives the output that it gave before.

    Example:
        >>> adapt_channels(torch.ones(1, 3, 1, 1), 2).flatten()
        tensor([1.5000, 1.5000])
    """
    return kernel.sum(dim=1, keepdim=True).repeat_interleave(channels, dim=1) / channels


def _adapt_images(state: dict[str, Tensor], layers: Mapping[str, nn.Module], any_number: bool) -> dict[str, str]:
    """Adapt in place the kernels that read the image, and say what was done, by key.

    They are those of the first convolution and of others with the same two numbers of input channels.
    """
    pairs = {}
    for path, layer in layers.items():
        key = f"{path}.weight".lstrip(".")
        if not isinstance(layer, CONVOLUTIONS) or key not in state or state[key].dim() < 3:
            continue
        if layer.groups == 1 and not layer.transposed:
            pairs[key] = (state[key].shape[1], layer.in_channels)
    old, new = next(iter(pairs.values()), (0, 0))
    if old == new or not (any_number or old in PHOTOS):
        return {}
    done = {key: f", {old} input channels made {new}" for key, pair in pairs.items() if pair == (old, new)}
    for key in done:
        precision = torch.promote_types(state[key].dtype, torch.float32)
        state[key] = adapt_channels(state[key].to(precision), int(new))
    return done


def _dimension_bound(key: str) -> str:
    """Why a parameter depends on the number of dimensions beyond its kernel; empty if it does not."""
    return next((why for pattern, why in DIMENSION_BOUND.items() if fnmatchcase(key, pattern)), "")


def _owner(key: str, layers: Mapping[str, nn.Module]) -> tuple[nn.Module | None, str]:
    """The convolution that a key belongs to, one of ours before those inside it, and its name inside that."""
    names = key.split(".")
    for kind in (ConvBase, CONVOLUTIONS):
        for at in range(len(names)):
            layer = layers.get(".".join(names[:at]))
            if isinstance(layer, kind):
                return layer, ".".join(names[at:])
    return None, key


def _without_source(
    key: str, layers: Mapping[str, nn.Module], state: Mapping[str, Tensor], value: Tensor
) -> tuple[Tensor | None, str]:
    """Value and reason of a key that the source has not, transferred if the reason begins with 0."""
    path, _, name = key.rpartition(".")
    beside = {other: f"{path}.{other}".lstrip(".") in state for other in ("weight", "running_mean")}
    if name == "bias" and isinstance(layers.get(path), CONVOLUTIONS) and beside["weight"]:
        return torch.zeros_like(value), "0: the convolution of the source has no bias"
    if name == "num_batches_tracked" and beside["running_mean"]:
        return torch.zeros_like(value), "0: the source does not count its batches"
    owner, own = _owner(key, layers)
    if not isinstance(owner, ConvBase):
        return None, ""
    return owner.without_source(own, state.get(f"{key.removesuffix(own)}weight"))


def _without_target(key: str, target: Mapping[str, Tensor], layers: Mapping[str, nn.Module]) -> str:
    """Why a key of the source may go nowhere; empty if it may not."""
    first = key.split(".")[0]
    if first in HEADS and not any(other.startswith(f"{first}.") for other in target):
        return "a classifier, and the network has none of that name"
    owner, own = _owner(key, layers)
    if owner is not None:
        reason = owner.without_target(own) if isinstance(owner, ConvBase) else without_counterpart(own)
        if reason:
            return reason
    path, _, name = key.rpartition(".")
    if name == "num_batches_tracked" and f"{path}.running_mean" in target:
        return "the network does not count its batches"
    return _dimension_bound(key)


def _misfit_message(
    net: nn.Module, state: Mapping[str, Tensor], report: TransferReport, missing: list[str], left: list[str]
) -> str:
    counts = {
        "do not fit": list(report.conflicts),
        "are not in the source": missing,
        "of the source would go nowhere": left,
    }
    what = "; ".join(f"{len(keys)} {text} ({some(keys, 3)})" for text, keys in counts.items() if keys)
    return (
        f"the source does not fill this {type(net).__name__}; nothing was loaded: {what or 'nothing agrees'}.\n"
        f"Is it a checkpoint of another network?{misfit_advice(list(state), list(report.numel))} Exclude what is meant "
        f"to differ (exclude=['fc.*']) or pass strict=False.\n{report}"
    )
