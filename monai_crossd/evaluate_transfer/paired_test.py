# SPDX-License-Identifier: Apache-2.0
"""The test of paired differences from cross-validation, and the correction for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from monai.utils import optional_import

__all__ = ["holm", "resampled_t"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values of one family by Holm's step-down method; nan stays and does not count.

    The i-th smallest of m values (i from 0) becomes max over j <= i of min(1, (m - j) p_j).

    References:
        S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.

    Args:
        p_values: of the comparisons.

    Returns:
        Corrected values, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    counted = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    result, highest = list(p_values), 0.0
    for rank, (p, at) in enumerate(counted):
        highest = max(highest, min(1.0, (len(counted) - rank) * p))
        result[at] = highest
    return result


def resampled_t(differences: Sequence[float], ratio: float) -> tuple[float, float, float]:
    """Two-sided corrected resampled t-test of paired differences from repeated k-fold cross-validation.

    With J differences of mean m and sample variance v, t = m / sqrt((1 / J + ratio) v) has J - 1 degrees of freedom.
    Training sets of different folds overlap: without the ratio (Student's paired test) differences count as
    independent and far too many of them are called significant.

    References:
        C. Nadeau and Y. Bengio, Inference for the Generalization Error, 2003.
        R. R. Bouckaert and E. Frank, Evaluating the Replicability of Significance Tests for Comparing Learning
        Algorithms, 2004.

    Args:
        differences: (J,), two or more, that are not all equal.
        ratio: cases in the test part / cases in the training part of a fold; 0 gives Student's paired t-test.

    Returns:
        Lower and upper bound of the 95 % confidence interval of the mean, and p.

    Raises:
        OptionalImportError: When scipy is not installed.

    Example:
        >>> lower, upper, p = resampled_t([0.02, 0.04, 0.03, 0.05], ratio=1 / 3)
        >>> f"{lower:.3f} to {upper:.3f}, p = {p:.3f}"
        '0.004 to 0.066, p = 0.038'
    """
    t, found = optional_import(
        "scipy.stats", name="t", descriptor="{} failed: significance tests need `pip install scipy`"
    )
    if not found:
        t()  # MONAI's placeholder raises when it is used
    j, mean = len(differences), float(np.mean(differences))
    error = math.sqrt((1 / j + ratio) * float(np.var(differences, ddof=1)))
    half = float(t.ppf(0.975, j - 1)) * error
    return mean - half, mean + half, float(2 * t.sf(abs(mean) / error, j - 1))
