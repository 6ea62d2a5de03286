# SPDX-License-Identifier: Apache-2.0
"""Means over seeds and folds, paired comparisons of methods that saw the same folds, and a study's cells as tables.

A row is a finished cell: source, dataset, modality, mode, method, seed, fold, n_train, n_test and scores by metric.

References:
    S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    C. Nadeau and Y. Bengio, Inference for the Generalization Error, 2003.
    R. R. Bouckaert and E. Frank, Evaluating the Replicability of Significance Tests for Comparing Learning Algorithms,
    2004.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import

__all__ = [
    "AVERAGE",
    "Comparison",
    "Summary",
    "Table",
    "cells_by_method",
    "compare_averages",
    "compare_methods",
    "holm",
    "make_tables",
    "resampled_t",
    "split_ratio",
    "summarize",
]

AVERAGE = "Average"
FEWEST_PAIRS = 2  # fewer have no standard deviation

Row = Mapping[str, Any]
Cells = dict[tuple[int, int], Row]  # by (seed, fold)
Name = tuple[str, str, str, str]  # source, data set, mode, method


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values of one family by Holm's step-down method; nan stays and does not count.

    The i-th smallest of m values (i from 0) becomes max over j <= i of min(1, (m - j) p_j).

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
    """95 % interval of the mean, and two-sided p: the corrected resampled t-test of repeated k-fold cross-validation.

    With J differences of mean m and sample variance v, t = m / sqrt((1 / J + ratio) v) has J - 1 degrees of freedom.
    Training sets of different folds overlap: without the ratio (Student's paired test) differences count as
    independent and far too many of them are called significant.

    Args:
        differences: (J,), two or more, that are not all equal.
        ratio: cases in the test part / cases in the training part of a fold; 0 gives Student's paired t-test.

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
    spread = t(j - 1, mean, math.sqrt((1 / j + ratio) * float(np.var(differences, ddof=1))))
    lower, upper = spread.interval(0.95)
    return float(lower), float(upper), float(2 * min(spread.cdf(0), spread.sf(0)))


class Summary(NamedTuple):
    """Scores of a method in one mode on one data set, over seeds and folds; the deviation of one cell is nan."""

    source: str
    dataset: str
    mode: str
    method: str
    mean: float
    std: float
    cells: int


class Comparison(NamedTuple):
    """A method against the reference, on the cells that both have."""

    source: str
    dataset: str  # or AVERAGE
    mode: str
    method: str
    reference: str
    difference: float  # mean of method minus reference; nan without a pair
    lower: float  # bounds of its 95 % interval, and p; nan where there is no test
    upper: float
    p: float
    p_holm: float  # corrected for all comparisons of the same data set and mode
    pairs: int
    reason: str  # why there is no test, or empty

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.p_holm < 0.05


def cells_by_method(rows: Iterable[Row], metric: str) -> dict[Name, Cells]:
    """Cells of each (source, dataset, mode, method), in the order of the rows.

    Raises:
        ValueError: If a cell is there twice or has no number for the metric.
    """
    result: dict[Name, Cells] = defaultdict(dict)
    for row in rows:
        name = (str(row["source"]), str(row["dataset"]), str(row["mode"]), str(row["method"]))
        cell = (int(row["seed"]), int(row["fold"]))
        where = f"Seed {cell[0]}, fold {cell[1]} of {', '.join(name)}"
        if cell in result[name]:
            raise ValueError(f"{where} is there twice: expected each cell once. Remove one of the rows.")
        if metric not in row or not math.isfinite(float(row[metric])):
            raise ValueError(f"{where} has {row.get(metric)!r} as {metric!r}: expected a number. Run the cell again.")
        result[name][cell] = row
    return result


def split_ratio(rows: Collection[Row]) -> float:
    """Test cases per training case, of cells whose splits were drawn anew; 0 of a split that never changes.

    Training sets of drawn splits overlap, which :func:`resampled_t` corrects. Of an official split all cells have the
    same test set, and their differences speak of training runs alone.

    Example:
        >>> [split_ratio([{"n_test": 10, "n_train": 40, "resampled": drawn}]) for drawn in (True, False)]
        [0.25, 0.0]
    """
    ratios = [
        float(row["n_test"]) / float(row["n_train"]) if str(row.get("resampled", True)) == "True" else 0.0
        for row in rows
    ]
    return float(np.mean(ratios)) if ratios else 0.0


def summarize(rows: Iterable[Row], metric: str = "balanced_accuracy") -> list[Summary]:
    """Mean and sample standard deviation over seeds and folds, of each method, mode, data set and source.

    Raises:
        ValueError: If a cell is there twice or has no number for the metric.
    """
    result = []
    for name, cells in cells_by_method(rows, metric).items():
        values = [float(row[metric]) for row in cells.values()]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        result.append(Summary(*name, float(np.mean(values)), std, len(values)))
    return result


def _compare(name: Name, reference: str, differences: list[float], ratio: float) -> Comparison:
    """One comparison, not yet corrected for the others."""
    pairs, unit = len(differences), "seed" if name[1] == AVERAGE else "cell"
    mean, numbers, reason = float(np.mean(differences)) if pairs else math.nan, (math.nan,) * 3, ""
    if pairs < FEWEST_PAIRS:
        reason = f"{pairs} {unit}{'' if pairs == 1 else 's'} in common with {reference}, a test needs {FEWEST_PAIRS}"
    elif np.ptp(differences) < 1e-9:  # rounding apart they are equal
        reason = "all differences are equal: no spread to test against"
    else:
        numbers = resampled_t(differences, ratio)
    return Comparison(*name, reference, mean, *numbers, numbers[2], pairs, reason)


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """The comparisons with Holm's correction over each data set and mode."""
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, comparison in enumerate(comparisons):
        families[comparison.dataset, comparison.mode].append(at)
    for members in families.values():
        for at, p in zip(members, holm([comparisons[at].p for at in members]), strict=True):
            comparisons[at] = comparisons[at]._replace(p_holm=p)
    return comparisons


def _known_reference(methods: Iterable[str], reference: str) -> None:
    methods = list(dict.fromkeys(methods))
    if methods and reference not in methods:
        raise ValueError(f"reference is {reference!r}; expected a method of the rows: {', '.join(methods)}.")


def _pairs(found: Mapping[Name, Cells], name: Name, reference: str) -> list[tuple[Row, Row]]:
    """Cells of a method, each with that of the reference on the same seed and fold."""
    others = found.get((*name[:3], reference), {})
    return [(row, others[cell]) for cell, row in found.get(name, {}).items() if cell in others]


def compare_methods(rows: Iterable[Row], reference: str, metric: str = "balanced_accuracy") -> list[Comparison]:
    """Each method against the reference on each data set, by :func:`resampled_t` on the (seed, fold) both have.

    The reference is that of the same source, data set and mode. Fewer than two pairs, or differences that are all
    equal, give nan and a reason. p values are corrected by :func:`holm` over all methods of one data set and mode.

    Raises:
        ValueError: If no row has the reference, a cell is there twice or has no number for the metric.
    """
    found = cells_by_method(rows, metric)
    _known_reference((name[3] for name in found), reference)
    result = []
    for name in (name for name in found if name[3] != reference):
        both = _pairs(found, name, reference)
        differences = [float(row[metric]) - float(other[metric]) for row, other in both]
        result.append(_compare(name, reference, differences, split_ratio([row for row, _ in both])))
    return _corrected(result)


def compare_averages(rows: Iterable[Row], reference: str, metric: str = "balanced_accuracy") -> list[Comparison]:
    """Each method against the reference on the average of all data sets, by Student's paired t-test over seeds.

    Of each seed, the differences on the folds both have are averaged, then those of the data sets. A seed counts where
    every data set has such a pair. The seeds share the data: the test says whether the difference outlasts chance in
    training and splitting, not whether it holds for other patients.

    Raises:
        ValueError: As :func:`compare_methods`.
    """
    found = cells_by_method(rows, metric)
    _known_reference((name[3] for name in found), reference)
    result = []
    for source, mode, method in dict.fromkeys((s, m, x) for s, _, m, x in found if x != reference):
        datasets = {dataset for s, dataset, m, _ in found if (s, m) == (source, mode)}
        per_seed: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for dataset in datasets:
            for row, other in _pairs(found, (source, dataset, mode, method), reference):
                per_seed[int(row["seed"])][dataset].append(float(row[metric]) - float(other[metric]))
        whole = [by for by in per_seed.values() if len(by) == len(datasets)]
        differences = [float(np.mean([np.mean(folds) for folds in by.values()])) for by in whole]
        result.append(_compare((source, AVERAGE, mode, method), reference, differences, 0.0))
    return _corrected(result)


class Table(NamedTuple):
    """One mode of a study: what Table II of the paper is."""

    mode: str
    metric: str
    reference: str
    datasets: dict[str, str]  # modality by data set, those of a modality beside each other
    scores: dict[tuple[str, str], dict[str, Summary]]  # by (source, method) and data set, a source's methods together
    averages: dict[tuple[str, str], float]  # mean of the means by (source, method), of those with every data set
    comparisons: list[Comparison]  # of the data sets, then of the average; none in a mode without the reference

    @property
    def cells(self) -> int:
        """The largest number of cells behind an entry."""
        return max(s.cells for by in self.scores.values() for s in by.values())

    def comparison(self, source: str, method: str, dataset: str) -> Comparison | None:
        """That of one entry of the table."""
        name = (source, method, dataset)
        return next((c for c in self.comparisons if (c.source, c.method, c.dataset) == name), None)

    def is_best(self, source: str, method: str) -> bool:
        """Whether no method of the source has a higher average."""
        highest = max((mean for (s, _), mean in self.averages.items() if s == source), default=math.nan)
        return self.averages.get((source, method)) == highest


def make_tables(rows: Iterable[Row], reference: str, metric: str = "balanced_accuracy") -> list[Table]:
    """Scores, averages and comparisons of each mode of a study, in the order of the rows.

    Raises:
        ValueError: As :func:`compare_methods`.
    """
    modes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        modes[str(row["mode"])].append(row)
    _known_reference((str(row["method"]) for of_mode in modes.values() for row in of_mode), reference)
    tables = []
    for mode, of_mode in modes.items():
        modalities = {str(row["dataset"]): str(row["modality"]) for row in of_mode}
        order = list(dict.fromkeys(modalities.values()))
        datasets = dict(sorted(modalities.items(), key=lambda entry: order.index(entry[1])))
        summaries = summarize(of_mode, metric)
        sources = list(dict.fromkeys(s.source for s in summaries))
        scores: dict[tuple[str, str], dict[str, Summary]] = defaultdict(dict)
        for s in sorted(summaries, key=lambda s: sources.index(s.source)):
            scores[s.source, s.method][s.dataset] = s
        whole = {name: by for name, by in scores.items() if len(by) == len(datasets)}
        averages = {name: sum(s.mean for s in by.values()) / len(by) for name, by in whole.items()}
        comparisons: list[Comparison] = []
        if any(method == reference for _, method in scores):
            comparisons = compare_methods(of_mode, reference, metric) + compare_averages(of_mode, reference, metric)
        tables.append(Table(mode, metric, reference, datasets, dict(scores), averages, comparisons))
    return tables
