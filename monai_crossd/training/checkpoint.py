# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: whole, finite, the same with and without several GPUs; and those of the best epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .._replacing import replacing

__all__ = ["BestCheckpoint", "network_state", "save_checkpoint", "unwrap"]


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
    # ignite's DiskSaver leaves the parts that a killed process wrote, and its Checkpoint writes one file name only once
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


class BestCheckpoint:
    """Writes the evaluator's network to ``model.pt`` when its key metric is the best so far.

    The file is what MONAI's CheckpointSaver writes for the key metric, a state dict. That handler deletes the old file
    before it writes the new one, and forgets its score when a run is resumed. This one writes a temporary file and
    renames it, and goes by the evaluator's ``best_metric_epoch``, which :class:`ResumeHandler` restores. The first
    process writes.

    What the weights were trained with goes beside them, for :func:`trained` and MONAI Label: ``model.json`` and
    ``metadata.json``.

    Args:
        output_dir: folder of the file.
        filename: its name.
        trained_as: of :func:`describe_run`.

    Raises:
        FloatingPointError: at the end of an epoch, when the weights are no longer finite.
        OSError: at the end of an epoch, when the file cannot be written; the one before is unharmed.

    Example:
        .. code-block:: yaml

            validate:
              handlers:
              - _target_: monai_crossd.training.BestCheckpoint
                output_dir: "@ckpt_dir"
                trained_as: "@trained_as"
    """

    def __init__(
        self, output_dir: PathLike, filename: str = "model.pt", trained_as: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(output_dir) / filename
        self.trained_as = trained_as

    def attach(self, evaluator: SupervisedEvaluator) -> None:
        """Registers the handler.

        Args:
            evaluator: a MONAI evaluator with a key metric.
        """
        evaluator.add_event_handler(Events.COMPLETED, self._save)

    def _save(self, evaluator: Engine) -> None:
        if evaluator.state.best_metric_epoch == evaluator.state.epoch and idist.get_rank() == 0:
            state = network_state(evaluator.network)
            self._describe()
            save_checkpoint(state, self.path)

    def _describe(self) -> None:
        beside = self.path.with_suffix(".json")
        if self.trained_as is None:
            beside.unlink(missing_ok=True)  # of a run before, and not of these weights
            return
        described = dict(self.trained_as)
        metadata = described.pop("metadata", None)
        for path, content in ((beside, described), (self.path.with_name("metadata.json"), metadata)):
            if content is not None:
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
