# SPDX-License-Identifier: Apache-2.0
"""The items that a run did without, listed where its reader looks: at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

__all__ = ["SkippedReport"]

logger = logging.getLogger(__name__)


class SkippedReport:
    """Logs a warning at the end of a run with every item that was left out, and why; of several processes one does.

    Args:
        datasets: of :func:`monai_crossd.data.build_dataset`; those without ``skipped`` left out nothing.

    Example:
        .. code-block:: yaml

            train:
              handlers:
              - _target_: monai_crossd.training.SkippedReport
                datasets: ["@train#dataset", "@validate#dataset"]
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.skipped = [entry for dataset in datasets for entry in getattr(dataset, "skipped", [])]

    def attach(self, engine: Engine) -> None:
        """Registers the handler.

        Args:
            engine: a MONAI trainer or evaluator.
        """
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _report(self, _: Engine) -> None:
        if self.skipped and idist.get_rank() == 0:
            lines = "\n".join(f"  {item}: {cause}" for item, cause in self.skipped)
            logger.warning("%d items were skipped:\n%s", len(self.skipped), lines)
