# SPDX-License-Identifier: Apache-2.0
"""Makes an epoch the same whenever it is run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines import Trainer
from monai.utils import set_determinism

__all__ = ["EpochSeed", "epoch_seed"]


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Seed of an epoch in a process; that of others is unrelated to it.

    Args:
        seed: of the run.
        epoch: its number.
        rank: of the process.

    Returns:
        A whole number below 2³².

    >>> epoch_seed(0, 1), epoch_seed(0, 2), epoch_seed(1, 1)
    (3964924996, 3141116543, 1189033389)
    """
    return int(np.random.SeedSequence((seed, epoch, rank)).generate_state(1)[0])


def seed_loader(loader: Any, seed: int) -> None:
    """Seeds what a loader draws by: generators of its own and of its sampler, its data set, random transforms."""
    for owner in (loader, getattr(loader, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if generator is not None:
            generator.manual_seed(seed)
    dataset = getattr(loader, "dataset", None)
    set_rnd(dataset, seed)
    set_rnd(getattr(dataset, "transform", None), seed)  # set_rnd stops at data sets that draw themselves


class EpochSeed:
    """Sets all random state at the start of every epoch from the run's seed, the epoch and the process's rank.

    So an epoch that is run again after a crash is the same epoch, which :class:`ResumeHandler` needs to end with the
    weights of an uninterrupted run. Seeds torch on all devices, numpy, Python, the generators of the loader and its
    sampler, and the random transforms of the data set, and then starts a new pass over the loader. Worker processes
    take their seeds from torch's when they start. (A SmartCacheDataset holds what the epochs before have left in it:
    there, a resumed epoch has other items.)

    Args:
        seed: of the run, 0 or larger.

    Raises:
        ValueError: When the seed is no such number; in ``attach``, when the workers outlive the epoch
            (``persistent_workers``), so that nothing reseeds them.

    Example:
        .. code-block:: yaml

            train:
              handlers:
              - _target_: monai_crossd.training.EpochSeed
                seed: "@seed"
    """

    def __init__(self, seed: int) -> None:
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}; expected a whole number, 0 or larger.")
        self.seed = seed

    def attach(self, trainer: Trainer) -> None:
        """Registers the handler.

        Args:
            trainer: a MONAI trainer.
        """
        if getattr(trainer.data_loader, "persistent_workers", False):
            raise ValueError(
                "The workers of the training's loader keep their random state from epoch to epoch: give the loader "
                "persistent_workers=False."
            )
        trainer.state.seed = self.seed  # ResumeHandler compares it
        trainer.add_event_handler(Events.EPOCH_STARTED, self._start)

    def _start(self, trainer: Engine) -> None:
        seed = epoch_seed(self.seed, trainer.state.epoch, idist.get_rank())
        set_determinism(seed)
        if isinstance(last := trainer._dataloader_iter, Generator):
            last.close()  # where it was not read to its end, its thread would go on drawing
        seed_loader(trainer.data_loader, seed)
        trainer.set_data(trainer.data_loader)  # a new iterator: samplers and workers draw their seeds when it is made
