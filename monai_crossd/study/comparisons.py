# SPDX-License-Identifier: Apache-2.0
"""Means over seeds and folds, paired comparisons of methods that saw the same folds, and a study's cells as tables."""

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
    "summarize",
]

AVERAGE = "Average"
FEWEST_PAIRS = 2  # fewer have no standard deviation

Row = Mapping[str, Any]  # a finished cell, as the runner writes it
Cells = dict[tuple[int, int], Row]  # by (seed, fold)


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


class Summary(NamedTuple):
    """Scores of a method in one mode on one data set.

    Attributes:
        source: what was pretrained on.
        dataset: what was fine-tuned on.
        mode: of fine-tuning.
        method: of initialization.
        mean: over seeds and folds.
        std: sample standard deviation over them; nan of one cell.
        cells: their number.
    """

    source: str
    dataset: str
    mode: str
    method: str
    mean: float
    std: float
    cells: int


class Comparison(NamedTuple):
    """A method against the reference, on the cells that both have.

    Attributes:
        source: what was pretrained on.
        dataset: what was fine-tuned on, or :data:`AVERAGE`.
        mode: of fine-tuning.
        method: of initialization.
        reference: the method it is compared with.
        difference: mean of method minus reference; nan without a pair.
        lower: bound of its 95 % confidence interval; nan where there is no test.
        upper: its other bound.
        p: of the two-sided test, for this comparison alone; nan where there is no test.
        p_holm: corrected for all comparisons of the same data set and mode.
        pairs: number of pairs compared.
        reason: why there is no test, or empty.
    """

    source: str
    dataset: str
    mode: str
    method: str
    reference: str
    difference: float
    lower: float
    upper: float
    p: float
    p_holm: float
    pairs: int
    reason: str

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.p_holm < 0.05


def cells_by_method(rows: Iterable[Row], metric: str) -> dict[tuple[str, str, str, str], Cells]:
    """Cells of each (source, dataset, mode, method), in the order of the rows.

    Args:
        rows: finished cells, as in :func:`summarize`.
        metric: a column.

    Returns:
        Rows by (seed, fold), by those names.

    Raises:
        ValueError: When a cell is there twice or has no number for the metric.
    """
    result: dict[tuple[str, str, str, str], Cells] = defaultdict(dict)
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
    drawn = [str(row.get("resampled", True)) == "True" for row in rows]
    ratios = [
        is_drawn * float(row["n_test"]) / float(row["n_train"]) for row, is_drawn in zip(rows, drawn, strict=True)
    ]
    return float(np.mean(ratios)) if ratios else 0.0


def summarize(rows: Iterable[Row], metric: str = "balanced_accuracy") -> list[Summary]:
    """Mean and sample standard deviation over seeds and folds, of each method, mode, data set and source.

    Args:
        rows: finished cells, dictionaries with source, dataset, mode, method, seed, fold and the metric.
        metric: a column.

    Returns:
        In the order in which they first appear.

    Raises:
        ValueError: When a cell is there twice or has no number for the metric.

    Example:
        >>> cell = {"source": "slices", "dataset": "ct", "mode": "full", "method": "acs", "seed": 0}
        >>> (s,) = summarize([{**cell, "fold": 0, "f1": 0.5}, {**cell, "fold": 1, "f1": 0.7}], "f1")
        >>> f"{s.mean:.2f} ± {s.std:.2f} of {s.cells}"
        '0.60 ± 0.14 of 2'
    """
    result = []
    for name, cells in cells_by_method(rows, metric).items():
        values = [float(row[metric]) for row in cells.values()]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        result.append(Summary(*name, float(np.mean(values)), std, len(values)))
    return result


def _compare(name: tuple[str, str, str, str], reference: str, differences: list[float], ratio: float) -> Comparison:
    """One comparison, not yet corrected for the others."""
    pairs, unit = len(differences), "seed" if name[1] == AVERAGE else "cell"
    mean = float(np.mean(differences)) if pairs else math.nan
    if pairs < FEWEST_PAIRS:
        reason = f"{pairs} {unit}{'' if pairs == 1 else 's'} in common with {reference}, a test needs {FEWEST_PAIRS}"
    elif np.ptp(differences) < 1e-9:  # rounding apart they are equal
        reason = "all differences are equal: no spread to test against"
    else:
        lower, upper, p = resampled_t(differences, ratio)
        return Comparison(*name, reference, mean, lower, upper, p, p, pairs, "")
    nan = math.nan
    return Comparison(*name, reference, mean, nan, nan, nan, nan, pairs, reason)


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """The comparisons with Holm's correction over each data set and mode."""
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, comparison in enumerate(comparisons):
        families[comparison.dataset, comparison.mode].append(at)
    for members in families.values():
        for at, p in zip(members, holm([comparisons[at].p for at in members]), strict=True):
            comparisons[at] = comparisons[at]._replace(p_holm=p)
    return comparisons


def _known_reference(names: Iterable[tuple[str, str, str, str]], reference: str) -> None:
    methods = list(dict.fromkeys(method for *_, method in names))
    if methods and reference not in methods:
        raise ValueError(f"reference is {reference!r}; expected a method of the rows: {', '.join(methods)}.")


def compare_methods(rows: Iterable[Row], reference: str, metric: str = "balanced_accuracy") -> list[Comparison]:
    """Each method against the reference on each data set, by :func:`resampled_t` on the (seed, fold) both have.

    The reference is that of the same source, data set and mode. The ratio is the mean of n_test / n_train over the
    pairs. p values are corrected by :func:`holm` over all methods of one data set and mode.

    Args:
        rows: finished cells, as in :func:`summarize`, with n_train and n_test.
        reference: a method.
        metric: a column.

    Returns:
        A comparison per source, data set, mode and method but the reference. Fewer than two pairs, or differences that
        are all equal, give nan and a reason.

    Raises:
        ValueError: When no row has the reference, a cell is there twice or has no number for the metric.
    """
    found = cells_by_method(rows, metric)
    _known_reference(found, reference)
    result = []
    for name, cells in found.items():
        if name[3] == reference:
            continue
        others = found.get((*name[:3], reference), {})
        both = [(row, others[cell]) for cell, row in cells.items() if cell in others]
        differences = [float(row[metric]) - float(other[metric]) for row, other in both]
        result.append(_compare(name, reference, differences, split_ratio([row for row, _ in both])))
    return _corrected(result)


def compare_averages(rows: Iterable[Row], reference: str, metric: str = "balanced_accuracy") -> list[Comparison]:
    """Each method against the reference on the average of all data sets, by Student's paired t-test over seeds.

    Of each seed, the differences on the folds both have are averaged, then those of the data sets. A seed counts where
    every data set has such a pair. The seeds share the data: the test says whether the difference outlasts chance in
    training and splitting, not whether it holds for other patients.

    Args:
        rows: finished cells, as in :func:`summarize`.
        reference: a method.
        metric: a column.

    Returns:
        A comparison per source, mode and method but the reference, with :data:`AVERAGE` as data set and the number of
        seeds as pairs; corrected over the methods of a mode.

    Raises:
        ValueError: When no row has the reference, a cell is there twice or has no number for the metric.
    """
    found = cells_by_method(rows, metric)
    _known_reference(found, reference)
    datasets: dict[tuple[str, str], set[str]] = defaultdict(set)
    for source, dataset, mode, _ in found:
        datasets[source, mode].add(dataset)
    result = []
    for source, mode, method in dict.fromkeys((s, m, x) for s, _, m, x in found if x != reference):
        per_seed: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for dataset in datasets[source, mode]:
            others = found.get((source, dataset, mode, reference), {})
            for cell, row in found.get((source, dataset, mode, method), {}).items():
                if cell in others:
                    per_seed[cell[0]][dataset].append(float(row[metric]) - float(others[cell][metric]))
        whole = [by for by in per_seed.values() if len(by) == len(datasets[source, mode])]
        differences = [float(np.mean([np.mean(folds) for folds in by.values()])) for by in whole]
        result.append(_compare((source, AVERAGE, mode, method), reference, differences, 0.0))
    return _corrected(result)


class Table(NamedTuple):
    """One mode of a study: what Table II of the paper is.

    Attributes:
        mode: of fine-tuning.
        metric: that is shown.
        reference: method that the others are compared with.
        datasets: modality by data set, those of a modality beside each other.
        scores: by (source, method) and data set; methods of a source beside each other.
        averages: mean of the means by (source, method), of those that have every data set.
        comparisons: of the data sets, then of the average; none in a mode without the reference.
    """

    mode: str
    metric: str
    reference: str
    datasets: dict[str, str]
    scores: dict[tuple[str, str], dict[str, Summary]]
    averages: dict[tuple[str, str], float]
    comparisons: list[Comparison]

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
    """Scores, averages and comparisons of each mode of a study.

    Args:
        rows: finished cells, dictionaries with source, dataset, modality, mode, method, seed, fold, n_train, n_test and
            the metric.
        reference: a method, that the others are compared with.
        metric: a column.

    Returns:
        A table per mode, in the order of the rows.

    Raises:
        ValueError: When no row has the reference, a cell is there twice or has no number for the metric.
    """
    modes: dict[str, list[Row]] = {}
    for row in rows:
        modes.setdefault(str(row["mode"]), []).append(row)
    methods = dict.fromkeys(str(row["method"]) for of_mode in modes.values() for row in of_mode)
    if methods and reference not in methods:
        raise ValueError(f"reference is {reference!r}; expected a method of the rows: {', '.join(methods)}.")
    tables = []
    for mode, of_mode in modes.items():
        modalities = {str(row["dataset"]): str(row["modality"]) for row in of_mode}
        order = list(dict.fromkeys(modalities.values()))
        datasets = {name: kind for at in order for name, kind in modalities.items() if kind == at}
        summaries = summarize(of_mode, metric)
        scores: dict[tuple[str, str], dict[str, Summary]] = {}
        for source in dict.fromkeys(s.source for s in summaries):
            for s in summaries:
                if s.source == source:
                    scores.setdefault((source, s.method), {})[s.dataset] = s
        whole = {name: by for name, by in scores.items() if len(by) == len(datasets)}
        averages = {name: sum(s.mean for s in by.values()) / len(by) for name, by in whole.items()}
        comparisons: list[Comparison] = []
        if any(method == reference for _, method in scores):
            comparisons = compare_methods(of_mode, reference, metric) + compare_averages(of_mode, reference, metric)
        tables.append(Table(mode, metric, reference, datasets, scores, averages, comparisons))
    return tables
