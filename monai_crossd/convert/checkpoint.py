# SPDX-License-Identifier: Apache-2.0
"""Start a 3D network from a checkpoint on disk."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from monai.utils import look_up_option
from torch import Tensor, nn

from .report import TransferReport
from .rules import CHOICES, SCRATCH
from .weights import transfer_weights

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """State_dict of a checkpoint file, on the CPU, with `weights_only=True`.

    A dictionary that wraps it under "model", "state_dict" or "network" is unwrapped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint of tensors, with the path and the cause.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no checkpoint {os.fspath(path)!r}: check the path, or make it first.")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a checkpoint of tensors ({error}).") from error
    for key in ("model", "state_dict", "network"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{os.fspath(path)!r} holds no state_dict (a {type(state).__name__} was found).")
    return state


def transfer_checkpoint(
    path: str | os.PathLike | None,
    net3d: nn.Module,
    method: str = "crossd",
    depth_axis: int = -1,
    *,
    exclude: Sequence[str] = (),
) -> TransferReport | None:
    """Fill a 3D network from the checkpoint of its 2D form and log what went over: what a bundle's config calls.

    Args:
        path: file of a state_dict; None leaves the network as it is (from scratch).
        net3d: network to fill, see `transfer_weights` for this and the rest.
        method: how kernels are carried; "conv3d" carries nothing, whatever the path (from scratch).
        depth_axis: axis of the volume that runs through the slices.
        exclude: patterns of keys to leave alone.

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
    report = transfer_weights(read_checkpoint(path), net3d, method, depth_axis, exclude=exclude)
    logger.info("from %s: %s", path, report.summary())
    return report
