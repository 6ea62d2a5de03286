# SPDX-License-Identifier: Apache-2.0
"""Items that cannot be read, found before the training and not in the middle of an epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from monai.transforms import Compose

__all__ = ["ON_ERROR", "cause_of", "find_readable"]

ON_ERROR = ("raise", "skip-and-report")
THREADS = 4  # reading and unpacking run beside each other, and a volume each is in memory

logger = logging.getLogger(__name__)


def cause_of(error: BaseException) -> str:
    """First line of an error, without those that MONAI puts around it to name the transform."""
    while error.__cause__ is not None and str(error).startswith("applying transform"):
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def find_readable(data: Sequence, transform: Compose, end: int) -> tuple[list, list[tuple[Any, str]]]:
    """Applies the first transforms to every item, and parts the items by whether that works.

    Args:
        data: items.
        transform: a Compose.
        end: number of its transforms to apply.

    Returns:
        The items that work, and pairs of item and cause of the others, which are logged.

    Raises:
        ValueError: When none works.
    """

    def fails(item: Any) -> str | None:
        try:
            transform(item, end=end, threading=True)
        # whatever a library raises for a bad file
        except Exception as error:
            return cause_of(error)
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        causes = list(pool.map(fails, data))
    skipped = [(item, cause) for item, cause in zip(data, causes, strict=True) if cause is not None]
    if data and len(skipped) == len(data):
        raise ValueError(f"None of {len(data)} items can be read; the first: {skipped[0][1]}")
    for item, cause in skipped:
        logger.warning("skipped %s: %s", item, cause)
    return [item for item, cause in zip(data, causes, strict=True) if cause is None], skipped
