# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints into MONAI's ResNets, in 2D and in 3D."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from ..layers.crossd import CrossDConv2d
from .checkpoint import read_checkpoint
from .formats import STEM, adapt_channels, to_monai_names
from .report import TransferReport
from .rules import CONVOLUTIONS_3D
from .weights import load_values, transfer_weights


def _adapt_stem(state: dict[str, Tensor], net: nn.Module) -> dict[str, str]:
    """Adapt in place what reads the image to the network's number of channels; says what was done, by key."""
    target, done = net.state_dict(), {}
    for key in (f"{STEM}weight", f"{STEM}predictor.0.weight"):
        if key in state and key in target and state[key].shape[1] != target[key].shape[1]:
            old, new = state[key].shape[1], target[key].shape[1]
            state[key] = adapt_channels(state[key], new)
            done[key] = f", {old} input channels made {new}"
    return done


def _copy(state: dict[str, Tensor], net: nn.Module, exclude: Sequence[str], strict: bool) -> TransferReport:
    """Load a checkpoint into a network of the same number of dimensions."""
    target = net.state_dict()
    layers = dict(net.named_modules())
    report = TransferReport("copy", numel={key: value.numel() for key, value in target.items()})
    values: dict[str, Tensor] = {}
    missing = []
    for key, value in target.items():
        path, _, name = key.rpartition(".")
        source = state.get(key)
        if any(fnmatchcase(key, pattern) for pattern in exclude):
            report.initial[key] = "excluded"
        elif source is None and (name in ("running_shift", "gate") or ".predictor." in f".{key}"):
            report.initial[key] = "the source has no such parameter"
        elif source is None:
            report.initial[key] = "the source has no such parameter"
            missing.append(key)
        elif isinstance(layers[path], CrossDConv2d) and name == "weight" and source.shape == value[:, :, 0].shape:
            values[key] = source.roll((-1, -1), (2, 3)).unsqueeze(2).expand_as(value)
            report.transferred[key] = "2D kernel repeated through the bank"
        elif source.shape == value.shape:
            values[key], report.transferred[key] = source, "copied"
        else:
            report.conflicts[key] = f"source {tuple(source.shape)} does not fit {tuple(value.shape)}"
    report.skipped.update({k: "the network has no such parameter" for k in state if k not in target})
    report.skipped.update({k: "excluded" for k, why in report.initial.items() if why == "excluded" and k in state})
    load_values(net, values, report, missing, strict)
    return report


def load_checkpoint(
    path: str | os.PathLike,
    net: nn.Module,
    method: str | None = None,
    depth_axis: int = -1,
    *,
    exclude: Sequence[str] = (),
    strict: bool = True,
) -> TransferReport:
    """Fill a MONAI ResNet, in 2D or 3D, from a published checkpoint.

    Understood are files of torchvision's and timm's ResNets, RadImageNet's PyTorch release, MedicalNet (3D), the
    published Cross-D-Conv code, and MONAI's and our own ResNets (`formats.FORMATS` has their keys). A stem for another
    number of image channels is adapted. Read with `weights_only=True`.

    Args:
        path: of the file.
        net: MONAI ResNet or what has its keys, such as `unet.encoder`; filled in place.
        method: how 2D kernels become 3D, needed for a 3D network and a 2D file only; see `transfer_weights`.
        depth_axis: axis of the volume that runs through the slices, for the same case.
        exclude: patterns (as of a shell) of keys of `net` to leave alone, e.g. "fc.*" for a head of other classes.
        strict: every parameter of `net` that is not excluded must be in the file, else nothing is loaded.

    Returns:
        What was transferred, skipped and left at its initial value, key by key.

    Raises:
        FileNotFoundError: if there is no such file.
        TransferError: (a ValueError) if `strict` and something does not fit; nothing is loaded, the report is in it.
        ValueError: if the file or its format is not understood, a method is needed, or one is given for nothing.
    """
    state, known = to_monai_names(read_checkpoint(path))
    adapted = _adapt_stem(state, net)
    in_3d = any(isinstance(layer, CONVOLUTIONS_3D) for layer in net.modules())
    kernel = state.get(f"{STEM}weight")
    file_3d = kernel is not None and kernel.dim() == 5 and not known.bank
    if in_3d and not file_3d:
        if method is None:
            raise ValueError(
                f"{os.fspath(path)!r} ({known.name}) holds 2D weights and the network is 3D: say how they go over, "
                "e.g. method='i3d' for plain 3D convolutions."
            )
        report = transfer_weights(state, net, method, depth_axis, exclude=exclude, strict=strict)
    elif method is not None or depth_axis != -1:
        raise ValueError(
            f"{os.fspath(path)!r} ({known.name}) is as 2D or 3D as the network: method ({method!r}) and depth_axis "
            f"({depth_axis}) have no meaning here."
        )
    else:
        report = _copy(state, net, exclude, strict)
    for key, text in adapted.items():
        if key in report.transferred:
            report.transferred[key] += text
    return report
