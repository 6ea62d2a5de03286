# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: whole, finite, and the same with and without several GPUs."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import PathLike
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .._replacing import replacing

__all__ = ["network_state", "save_checkpoint", "unwrap"]


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, without the wrapper that runs it on several GPUs.

    Args:
        network: any, or a DistributedDataParallel or DataParallel of it.
    """
    if isinstance(network, (DataParallel, DistributedDataParallel)):
        module: nn.Module = network.module
        return module
    return network


def network_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers of a network, to be saved.

    Args:
        network: wrapped for several GPUs or not.

    Raises:
        FloatingPointError: When a weight is nan or infinite.

    >>> list(network_state(nn.Linear(1, 1)))
    ['weight', 'bias']
    """
    network = unwrap(network)
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(
                f"The weights {name!r} are no longer finite and are not saved; the checkpoints are those of earlier "
                "epochs. Lower the learning rate, clip the gradients, or look for nan in the images."
            )
    return network.state_dict()


def save_checkpoint(state: Any, path: PathLike) -> None:
    """Saves under a temporary name and moves the file into place once it is whole.

    Args:
        state: what torch.save takes; tensors, numbers, text and their lists and dictionaries can be read back
            with ``weights_only=True``.
        path: of the file; missing folders are made.

    Raises:
        OSError: When it cannot be written, with the free space of its disk; the file that was there is unharmed.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
