# SPDX-License-Identifier: Apache-2.0
"""Scores with their confidence intervals by resampling the cases: as rows, as a table for people and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import PathLike

from .._replacing import replacing

__all__ = [
    "FEWEST_CASES",
    "RESAMPLES",
    "Score",
    "bootstrap_mean",
    "format_scores",
    "percentile_interval",
    "resampled_cases",
    "write_csv",
]

RESAMPLES = 1000
FEWEST_CASES = 3  # fewer say nothing about the spread from case to case
_ENTRIES = 4_000_000  # of an array over resamples and cases that is held at once


def resampled_cases(n: int, resamples: int = RESAMPLES, seed: int = 0, width: int = 1) -> Iterator[np.ndarray]:
    """Draws cases with replacement, block by block so that many cases need little memory.

    Args:
        n: number of cases.
        resamples: how often to draw ``n`` of them.
        seed: equal seeds draw equally.
        width: of what the caller computes for each resample, where that is more than ``n`` numbers.

    Yields:
        (block, n) case numbers; the blocks add up to ``resamples`` rows.
    """
    rng = np.random.default_rng(seed)
    block = max(1, _ENTRIES // max(n, width))
    for start in range(0, resamples, block):
        yield rng.integers(n, size=(min(block, resamples - start), n))


def percentile_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds between which 95 % of the resampled scores lie; no interpolation, so that infinite scores keep a meaning.

    Args:
        samples: (resamples, ...) scores; those that are nan, because the resample lacks a class, are left out.

    Returns:
        Lower and upper bound (...); nan where all are nan.
    """
    ordered = np.sort(samples, axis=0)  # nan last
    last = (~np.isnan(samples)).sum(0) - 1
    lower, upper = (
        np.take_along_axis(ordered, np.rint(q * last.clip(0)).astype(int)[None], 0)[0] for q in (0.025, 0.975)
    )
    return lower, upper


def bootstrap_mean(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float, int]:
    """Mean over cases with its 95 % percentile bootstrap interval.

    Where all cases have the same score, so have all resamples: the interval has no width, however few they are.

    References:
        B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993.

    Args:
        values: (N,) score of each case; nan where a case has none.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        Mean, lower and upper bound, number of cases that have a score. The bounds are nan below
        :data:`FEWEST_CASES` cases, the mean too without any.

    >>> mean, lower, upper, n = bootstrap_mean(np.array([0.7, 0.9, 0.8, float("nan"), 0.8]))
    >>> round(mean, 3), round(lower, 3), round(upper, 3), n
    (0.8, 0.75, 0.875, 4)
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n < FEWEST_CASES:
        return float(values.mean()) if n else np.nan, np.nan, np.nan, n
    means = np.concatenate([values[cases].mean(1) for cases in resampled_cases(n, resamples, seed)])
    lower, upper = percentile_interval(means)
    return float(values.mean()), float(lower), float(upper), n


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

    >>> few = Score("dice", "ribs", 0.5, math.nan, math.nan, 1)
    >>> print(format_scores([Score("dice", "overall", 0.81, 0.78, 0.84, 24), few]))
    metric  class    score   95 % interval  cases
    dice    overall  0.810  0.780 to 0.840     24
    dice    ribs     0.500   too few cases      1
    """
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
