# SPDX-License-Identifier: Apache-2.0
"""Start a 3D network from a checkpoint on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .._options import look_up_option
from ..conv.factory import name_of
from .files import read_file
from .report import TransferReport
from .rules import CHOICES, SCRATCH
from .weights import transfer_weights

logger = logging.getLogger(__name__)

# names that programs give to the network's state_dict beside the optimizer's and the rest
WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "net_state_dict", "network_weights",
)  # fmt: skip


def _is_state(value: Any) -> bool:
    """Whether it is, or wraps, a state_dict: an optimizer's has numbers for keys and dictionaries for values."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    return any(isinstance(v, Tensor) for v in value.values()) or any(_is_state(value.get(key)) for key in WRAPPERS)


def find_state(content: Any, path: str) -> dict[str, Tensor]:
    """The state_dict in what a checkpoint file holds.

    It is looked for under the names of WRAPPERS, in one another too. What else stands beside its tensors (an epoch, a
    word) is left out.

    Raises:
        ValueError: If there is none, or which of several is meant cannot be seen; with what was found.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{path!r} holds no state_dict (a {type(content).__name__} was found).")
    parts = [key for key, value in content.items() if isinstance(value, Mapping) and _is_state(value)]
    wrappers = [key for key in WRAPPERS if key in parts]
    if len(wrappers) == 1:
        return find_state(content[wrappers[0]], path)
    if parts:
        raise ValueError(
            f"{path!r} holds {'several state_dicts' if len(parts) > 1 else 'a state_dict under an unusual name'} "
            f"({', '.join(map(repr, parts))}): choose one, "
            f"state = monai_crossd.transfer.read_file({path!r})[{parts[0]!r}], and pass it to transfer_weights, or "
            "save it alone."
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        found = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in list(content.items())[:6])
        raise ValueError(f"{path!r} holds no state_dict (a dictionary of {found or 'nothing'} was found).")
    return state


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """State_dict of a checkpoint file, on the CPU, with `weights_only=True`.

    A dictionary that wraps it is unwrapped ("state_dict", "model_state_dict", "model", "net", "network", "module",
    "net_state_dict", "network_weights"); what stands beside it, such as the optimizer's state, is left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, damaged, or no checkpoint of tensors; with the path, the cause and what to do.
    """
    return find_state(read_file(path), os.fspath(path))


def transfer_checkpoint(
    path: str | os.PathLike | None,
    net3d: nn.Module,
    method: str = "crossd",
    depth_axis: int = -1,
    *,
    exclude: str | Sequence[str] = (),
    part: str | None = None,
) -> TransferReport | None:
    """Fill a 3D network from the checkpoint of its 2D form and log what went over: what a bundle's config calls.

    Args:
        path: file of a state_dict; None leaves the network as it is (from scratch).
        net3d: network to fill, see `transfer_weights` for this and the rest.
        method: how kernels are carried; "conv3d" carries nothing, whatever the path (from scratch).
        depth_axis: axis of the volume that runs through the slices.
        exclude: pattern or patterns of keys to leave alone.
        part: path of a part of `net3d`, such as "encoder", which is filled alone where the file is of that part and not
            of a whole network.

    Returns:
        The report of `transfer_weights`, or None from scratch.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown method, or if the file is no checkpoint, or does not fill the network; nothing is
            loaded then.
    """
    method = look_up_option(method, CHOICES)
    if path is None or method == SCRATCH:
        reason = "no 2D weights" if path is None else f"{method} takes no 2D weights"
        logger.info("%s: the network starts from scratch", reason)
        return None
    state = read_checkpoint(path)
    if part is not None and not any(f".{part}." in f".{key}" for key in state):
        net3d = net3d.get_submodule(part)
    report = transfer_weights(state, net3d, method, depth_axis, exclude=exclude)
    logger.info("from %s: %s", path, report.summary())
    return report


def start_from_2d(
    net3d: nn.Module,
    path: str | os.PathLike | None,
    inflate: str = "center",
    *,
    part: str | None = None,
    exclude: str | Sequence[str] = (),
) -> TransferReport | None:
    """Fill a 3D network from the checkpoint of its 2D form and log what went over: what a bundle's config calls.

    Args:
        net3d: network to fill.
        path: file of a state_dict; None leaves the network as it is (from scratch).
        inflate: how plain 3D kernels are filled, "center", "i3d" or "bank".
        part: path of a part of `net3d`, such as "encoder", which is filled alone where the file is of that part and not
            of a whole network.
        exclude: pattern or patterns of keys to leave alone.

    Returns:
        What went over, key by key; None from scratch.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, or does not fill the network; nothing is loaded then.
    """
    names = [name for layer in net3d.modules() if (name := name_of(layer)) is not None]
    return transfer_checkpoint(path, net3d, names[0] if names else inflate, exclude=exclude, part=part)
