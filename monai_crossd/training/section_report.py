# SPDX-License-Identifier: Apache-2.0
"""What a run trains on and validates with, said before it begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import ignite.distributed as idist

__all__ = ["report_sections"]

logger = logging.getLogger(__name__)


def report_sections(sections: Mapping[str, Sequence[Mapping]], labels: Mapping[int, str]) -> None:
    """Prints how many items each section has, and warns of classes without any; in a distributed run one process does.

    A class without validation items has no recall: it is left out of balanced accuracy, in training and evaluation.

    Args:
        sections: items by name of the section, their "label" a class number; of files that name classes, as those of
            MONAI Label, only the items are counted.
        labels: names by class number.

    Example:
        >>> report_sections({"training": [{"label": 0}, {"label": 1}], "validation": [{"label": 0}, {"label": 1}]}, {0: "a", 1: "b"})
        data: 2 classes, 2 items in training, 2 in validation
    """  # noqa: E501
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
