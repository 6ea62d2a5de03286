# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of scores by resampling the cases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["FEWEST_CASES", "RESAMPLES", "bootstrap_mean", "percentile_interval", "resampled_cases"]

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
