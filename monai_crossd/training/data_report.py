# SPDX-License-Identifier: Apache-2.0
"""What a run trains on and validates with, said before it begins, and what it did without, said at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

__all__ = ["SkippedReport", "report_sections"]

logger = logging.getLogger(__name__)


def report_sections(sections: Mapping[str, Sequence[Mapping]], labels: Mapping[int, str]) -> None:
    """Prints how many items each section has, and warns of classes without any; in a distributed run one process does.

    A class without validation items has no recall: it is left out of balanced accuracy, in training and evaluation.

    Args:
        sections: items by name of the section, their "label" a class number; of files that name classes, as those of
            MONAI Label, only the items are counted.
        labels: names by class number.

    Example:
        >>> items = [{"label": 0}, {"label": 1}]
        >>> report_sections({"training": items, "validation": items}, {0: "a", 1: "b"})
        data: 2 classes, 2 items in training, 2 in validation
    """
    if idist.get_rank() != 0:
        return
    (first, count), *others = ((name, len(items)) for name, items in sections.items())
    counts = [f"{count} items in {first}", *(f"{number} in {name}" for name, number in others)]
    print(f"data: {len(labels)} classes, {', '.join(counts)}", flush=True)
    for section, items in sections.items():
        if any(isinstance(item["label"], str) for item in items):
            continue
        held = {int(item["label"]) for item in items}
        if absent := [name for number, name in labels.items() if number not in held]:
            what = "are not learned" if section == "training" else "are left out of balanced accuracy"
            logger.warning("no items of %s in %s: these classes %s", ", ".join(map(repr, absent)), section, what)


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
