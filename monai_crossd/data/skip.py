# SPDX-License-Identifier: Apache-2.0
"""Items that cannot be read, found before the training and not in the middle of an epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from .preparation import PreparationError

__all__ = ["ON_ERROR", "THREADS", "ItemList", "Skipped", "prepare_each"]

ON_ERROR = ("raise", "skip-and-report")
THREADS = 4  # reading and unpacking run beside each other, and a volume each is in memory

logger = logging.getLogger(__name__)


class Skipped(NamedTuple):
    """An item that was left out, and why."""

    item: Any
    cause: str

    def __str__(self) -> str:
        return f"{self.item}: {self.cause}"


class ItemList(list):
    """A list of items that knows those that were left out of it.

    Args:
        items: of the list.
        skipped: the others.
    """

    def __init__(self, items: Iterable = (), skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(items)
        self.skipped = list(skipped)


def prepare_each(data: Sequence, prepare: Callable[[Any], Any], keep: bool = False) -> tuple[list, list, list[Skipped]]:
    """Prepares every item once, and parts the items by whether that works.

    Args:
        data: items.
        prepare: makes something of an item.
        keep: what is made; else it is dropped, and only its making counts.

    Returns:
        The items that work, what was made of them (None unless kept), and the others, which are logged.

    Raises:
        ValueError: When none works.
    """

    def attempt(item: Any) -> Any:
        try:
            made = prepare(item)
            return made if keep else None
        except PreparationError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(attempt, data))
    skipped = [Skipped(item, m.cause) for item, m in zip(data, made, strict=True) if isinstance(m, PreparationError)]
    for entry in skipped:
        logger.warning("skipped %s", entry)
    if skipped and len(skipped) == len(data):
        raise ValueError(f"None of {len(data)} items can be read; the first: {skipped[0]}")
    whole = [(item, m) for item, m in zip(data, made, strict=True) if not isinstance(m, PreparationError)]
    return [item for item, _ in whole], [m for _, m in whole], skipped
