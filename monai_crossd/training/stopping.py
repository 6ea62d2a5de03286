# SPDX-License-Identifier: Apache-2.0
"""Ends a training that no longer gets better, or whose loss is no longer a number."""

from __future__ import annotations

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["EarlyStop", "StopOnNaN"]


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
                patience: "@validate#early_stop"
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


class StopOnNaN:
    """Ends the training with an error when the loss is nan or infinite.

    The run ends as if it had finished, so that other handlers close their files, and then raises: what comes after a
    training, such as predictions, does not happen. Nothing of the epoch is saved; the checkpoints are those of the
    epochs before.

    Raises:
        FloatingPointError: in the trainer's ``run``, naming epoch and iteration.

    Example:
        .. code-block:: yaml

            train:
              handlers:
              - _target_: monai_crossd.training.StopOnNaN
    """

    def attach(self, trainer: Engine) -> None:
        """Registers the handler.

        Args:
            trainer: a MONAI trainer.
        """
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, trainer: Engine) -> None:
        output = trainer.state.output  # of the batch, or a list of its samples where the engine decollates
        loss = torch.as_tensor((output if isinstance(output, dict) else output[0])["loss"]).detach()
        if not loss.isfinite().all():
            trainer.add_event_handler(Events.COMPLETED, self._stop, trainer.state.iteration, loss.item())  # the last
            trainer.terminate()

    def _stop(self, trainer: Engine, iteration: int, loss: float) -> None:
        raise FloatingPointError(
            f"The loss is {loss} in iteration {iteration} (epoch {trainer.state.epoch} of {trainer.state.max_epochs}): "
            "the training has ended, and nothing of this epoch is saved. Lower the learning rate, clip the gradients, "
            "or look for nan in the images."
        )
