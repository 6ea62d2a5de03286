# SPDX-License-Identifier: Apache-2.0
"""Scores with their confidence intervals, as a table for people and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.config import PathLike

from .._replacing import replacing
from .bootstrap import FEWEST_CASES

__all__ = ["Score", "format_scores", "write_csv"]


class Score(NamedTuple):
    """One row of a table of metrics.

    Attributes:
        metric: its name.
        label: name of the class, or "overall".
        estimate: the score; nan where the class does not occur.
        lower: bound of the 95 % confidence interval; nan with too few cases.
        upper: its other bound.
        n: number of cases that hold the class.
    """

    metric: str
    label: str
    estimate: float
    lower: float
    upper: float
    n: int


def format_scores(scores: Sequence[Score]) -> str:
    """Table for people.

    Args:
        scores: rows.

    >>> print(format_scores([Score("dice", "overall", 0.81, 0.78, 0.84, 24), Score("dice", "ribs", 0.5, *[math.nan] * 2, 1)]))
    metric  class    score   95 % interval  cases
    dice    overall  0.810  0.780 to 0.840     24
    dice    ribs     0.500   too few cases      1
    """  # noqa: E501
    rows = [("metric", "class", "score", "95 % interval", "cases")]
    for s in scores:
        interval = f"{s.lower:.3f} to {s.upper:.3f}"
        if math.isnan(s.lower):
            interval = "too few cases" if s.n < FEWEST_CASES else "-"
        rows.append((s.metric, s.label, "-" if math.isnan(s.estimate) else f"{s.estimate:.3f}", interval, str(s.n)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{'<' if i < 2 else '>'}{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def write_csv(path: PathLike, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Writes a table under a temporary name and moves it into place.

    Args:
        path: of the CSV; missing folders are made.
        columns: their names.
        rows: a value per column each.

    Returns:
        ``path``.

    Raises:
        OSError: When it cannot be written, with the free space of its disk.
    """
    path = Path(path)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path
