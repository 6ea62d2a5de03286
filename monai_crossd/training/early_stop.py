# SPDX-License-Identifier: Apache-2.0
"""Ends a training that no longer gets better."""

from __future__ import annotations

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["EarlyStop"]


class EarlyStop:
    """Ends the training after so many epochs without a better validation metric.

    MONAI's EarlyStopHandler is named by the evaluator and needs the trainer, a circle in a bundle's config, and its
    counter is lost when a run is resumed. This one counts from the evaluator's ``best_metric_epoch``.

    Args:
        patience: number of epochs since the best one; 0: never ends.
        evaluator: with a key metric. Only epochs in which it ran can be the last.

    Raises:
        ValueError: When ``patience`` is negative.

    Example:
        .. code-block:: yaml

            train:
              handlers:
              - _target_: monai_crossd.training.EarlyStop
                patience: "@early_stop"
                evaluator: "@validate#evaluator"
    """

    def __init__(self, patience: int, evaluator: Evaluator) -> None:
        if patience < 0:
            raise ValueError(f"patience is {patience}; expected a number of epochs, or 0 to never end early.")
        self.patience = patience
        self.evaluator = evaluator

    def attach(self, trainer: Engine) -> None:
        """Registers the handler.

        Args:
            trainer: a MONAI trainer.
        """
        if self.patience:
            self.evaluator.add_event_handler(Events.COMPLETED, self._check, trainer)

    def _check(self, evaluator: Engine, trainer: Engine) -> None:
        best, epoch = evaluator.state.best_metric_epoch, evaluator.state.epoch
        if epoch - best < self.patience:
            return
        if idist.get_rank() == 0:
            metric = evaluator.state.key_metric_name
            print(f"no better {metric} since epoch {best}: the training ends with epoch {epoch}", flush=True)
        trainer.terminate()
