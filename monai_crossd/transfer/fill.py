# SPDX-License-Identifier: Apache-2.0
"""Fill a network from a state_dict of its own names: all of it or nothing, with a report of every key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..conv.base import ConvBase
from .names import COMPILED, HEADS, as_patterns, fits, misfit_advice, without_compiled
from .report import TransferError, TransferReport, _some
from .rules import Misfit, dimension_bound

CONVOLUTIONS = (nn.modules.conv._ConvNd, ConvBase)
PHOTOS = (1, 3)  # channels of images, grey or in colour

# gets the layer, its path, the name of the parameter, the value in the source and the one to be filled
Make = Callable[[nn.Module, str, str, Tensor, Tensor], tuple[Tensor, str]]


def layers_of(net: nn.Module) -> dict[str, nn.Module]:
    """Every module by path, a tied one under each of its paths, without the names that torch.compile puts in."""
    named = net.named_modules(remove_duplicate=False)
    return {f"{path}.".replace(COMPILED, "").strip("."): layer for path, layer in named}


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """Kernel (O, I, ...) for images of another number of channels: each takes the sum over the old ones / channels.

    An image whose channels are equal, as a grey image shown in colour, gives the output that it gave before.

    Example:
        >>> import torch
        >>> adapt_channels(torch.ones(1, 3, 1, 1), 2).flatten()
        tensor([1.5000, 1.5000])
    """
    return kernel.sum(dim=1, keepdim=True).repeat_interleave(channels, dim=1) / channels


def adapt_images(state: dict[str, Tensor], net: nn.Module, channels: Sequence[int] = PHOTOS) -> dict[str, str]:
    """Adapt in place the kernels that read the image to a network for images of another number of channels.

    They are those of the first convolution and of others with the same two numbers of input channels.

    Args:
        state: of the source.
        net: to be filled.
        channels: of the images that sources read; any number where it is empty.

    Returns:
        What was done, by key.
    """
    target = {path: layer for path, layer in layers_of(net).items() if isinstance(layer, CONVOLUTIONS)}
    pairs = {}
    for path, layer in target.items():
        key = f"{path}.weight".lstrip(".")
        if key in state and state[key].dim() > 2 and layer.groups == 1 and not layer.transposed:
            pairs[key] = (state[key].shape[1], layer.in_channels)
    old, new = next(iter(pairs.values()), (0, 0))
    if old == new or (channels and old not in channels):
        return {}
    done = {}
    for key, pair in pairs.items():
        if pair == (old, new):
            precision = torch.promote_types(state[key].dtype, torch.float32)
            state[key] = adapt_channels(state[key].to(precision), int(new))
            done[key] = f", {old} input channels made {new}"
    return done


def _absent(
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
    if owner is None:
        return None, ""
    return owner.without_source(own, state.get(f"{key.removesuffix(own)}weight"))


def _owner(key: str, layers: Mapping[str, nn.Module]) -> tuple[ConvBase | None, str]:
    """The layer of ours that a key belongs to, and its name inside it."""
    names = key.split(".")
    for at in range(len(names) - 1, -1, -1):
        layer = layers.get(".".join(names[:at]))
        if isinstance(layer, ConvBase):
            return layer, ".".join(names[at:])
    return None, key


def _is_needless(key: str, target: Mapping[str, Tensor], layers: Mapping[str, nn.Module]) -> str:
    """Why a key of the source may go nowhere; empty if it may not."""
    first = key.split(".")[0]
    if first in HEADS and not any(other.startswith(f"{first}.") for other in target):
        return "a classifier, and the network has none of that name"
    owner, own = _owner(key, layers)
    if owner is not None and (reason := owner.without_target(own)):
        return reason
    path, _, name = key.rpartition(".")
    if name == "num_batches_tracked" and f"{path}.running_mean" in target:
        return "the network does not count its batches"
    return dimension_bound(key) or ""


def fill(
    net: nn.Module,
    state: Mapping[str, Tensor],
    method: str,
    make: Make,
    *,
    exclude: str | Sequence[str] = (),
    strict: bool = True,
    needless: Callable[[str], str] = lambda key: "",
    notes: Sequence[str] = (),
) -> TransferReport:
    """Fill a network key by key.

    Args:
        net: to fill in place.
        state: by the names of `net`.
        method: for the report.
        make: makes a value of that of the source, and says how.
        exclude: pattern or patterns (as of a shell) of keys to leave alone, on either side.
        strict: load nothing if something is missing, does not fit, or would go nowhere.
        needless: why a key of the source may go nowhere; empty if it may not.
        notes: for the report.

    Raises:
        TransferError: If `strict` and something does not fit, or if nothing fits.
        ValueError: If a pattern fits nothing, or a network is on the device "meta".
    """
    target = {key: value for key, value in without_compiled(net.state_dict()).items() if isinstance(value, Tensor)}
    for name, tensors in (("the source", state), ("the network", target)):
        if any(value.is_meta for value in tensors.values()):
            raise ValueError(f"{name} is on the device 'meta', which holds no values: build it on another.")
    layers = layers_of(net)
    patterns = as_patterns(exclude, [*target, *(key for key in state if key not in target)], "exclude")
    report = TransferReport(method, numel={key: value.numel() for key, value in target.items()}, notes=list(notes))
    values: dict[str, Tensor] = {}
    missing = []
    for key, value in target.items():
        path, _, name = key.rpartition(".")
        if fits(patterns, key):
            report.initial[key] = "excluded"
        elif key in state:
            try:
                values[key], report.transferred[key] = make(layers[path], path, name, _like(state[key], value), value)
            except Misfit as error:
                if reason := dimension_bound(key):
                    report.initial[key] = report.skipped[key] = reason
                else:
                    report.conflicts[key] = str(error)
        else:
            new, why = _absent(key, layers, state, value)
            if new is not None:
                values[key] = new
            (report.transferred if why.startswith("0") else report.initial)[key] = (
                why or "the source has no such parameter"
            )
            if not why:
                missing.append(key)
    left = []
    for key in state:
        if fits(patterns, key):
            report.skipped[key] = "excluded"
        elif key not in target:
            reason = needless(key) or _is_needless(key, target, layers)
            report.skipped[key] = reason or f"the {'' if method == 'copy' else '3D '}network has no such parameter"
            if not reason:
                left.append(key)
    if not set(report.transferred) & set(state) or (strict and (report.conflicts or missing or left)):
        raise TransferError(_misfit_message(net, state, target, report, missing, left), report)
    with torch.no_grad():
        for key, new in values.items():
            target[key].copy_(new)
    return report


def _like(source: Tensor, value: Tensor) -> Tensor:
    """A value of the source in the finer of the two precisions: of a file in half precision no kernel is made in it."""
    if not value.is_floating_point():
        return source
    if not source.is_floating_point():
        raise Misfit(f"source of {source.dtype} does not fit {value.dtype}")
    return source.to(torch.promote_types(source.dtype, value.dtype))


def _misfit_message(
    net: nn.Module,
    state: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    report: TransferReport,
    missing: list[str],
    left: list[str],
) -> str:
    counts = {
        "do not fit": list(report.conflicts),
        "are not in the source": missing,
        "of the source would go nowhere": left,
    }
    what = "; ".join(f"{len(keys)} {text} ({_some(keys, 3)})" for text, keys in counts.items() if keys)
    return (
        f"the source does not fill this {type(net).__name__}; nothing was loaded: {what or 'nothing agrees'}.\n"
        f"Is it a checkpoint of another network?{misfit_advice(list(state), list(target))} Exclude what is meant to "
        f"differ (exclude=['fc.*']) or pass strict=False.\n{report}"
    )


def copied(source: Tensor, value: Tensor) -> tuple[Tensor, str]:
    """A value that goes over as it is.

    Raises:
        Misfit: If it has another shape.
    """
    if source.shape != value.shape:
        raise Misfit(f"source {tuple(source.shape)} does not fit {tuple(value.shape)}")
    return source, "copied"
