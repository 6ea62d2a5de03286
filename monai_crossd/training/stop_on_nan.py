# SPDX-License-Identifier: Apache-2.0
"""Ends a training whose loss is no longer a number."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events

__all__ = ["StopOnNaN"]


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
