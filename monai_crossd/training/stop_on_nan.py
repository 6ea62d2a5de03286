# SPDX-License-Identifier: Apache-2.0
"""Ignite's TerminateOnNan in the form that MONAI's handler lists take."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import TerminateOnNan
from monai.handlers import from_engine

__all__ = ["StopOnNaN"]


class StopOnNaN(TerminateOnNan):
    """Ends the training when the loss is nan or infinite; ignite's handler watches, this adds the ``attach`` it lacks.

    Example:
        .. code-block:: yaml

            handlers:
            - _target_: monai_crossd.training.StopOnNaN
    """

    def __init__(self) -> None:
        super().__init__(output_transform=from_engine(["loss"], first=True))

    def attach(self, trainer: Engine) -> None:
        """Registers the handler.

        Args:
            trainer: a MONAI trainer.
        """
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self)
