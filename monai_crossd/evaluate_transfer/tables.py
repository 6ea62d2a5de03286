# SPDX-License-Identifier: Apache-2.0
"""A study's cells as tables: a row per source and method, a column per data set, an average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from .statistics import Comparison, Row, Summary, compare_averages, compare_methods, summarise

__all__ = ["Table", "make_tables"]


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
        summaries = summarise(of_mode, metric)
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
