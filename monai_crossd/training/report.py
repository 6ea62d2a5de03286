# SPDX-License-Identifier: Apache-2.0
"""Handler that writes the per-case metrics of an evaluator, with a confidence interval per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike

from .bootstrap import RESAMPLES, bootstrap_mean
from .case_names import case_paths
from .scores import Score, format_scores, write_csv

__all__ = ["MetricsReport", "case_scores"]


def case_scores(
    metric: str, details: np.ndarray, names: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> list[Score]:
    """Mean of a per-case metric, overall and per class, with 95 % percentile bootstrap intervals over cases.

    The overall score is MONAI's default reduction, which engines report: the mean over cases of each case's mean over
    the classes it holds.

    Args:
        metric: its name.
        details: (N, C) score per case and class; nan where the case does not hold the class.
        names: of the C classes.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        The overall row, then one per class; n is the number of cases that hold the class.

    >>> dice = np.array([[0.9, 0.5], [0.8, np.nan], [1.0, np.nan]])
    >>> [(s.label, round(s.estimate, 3), s.n) for s in case_scores("dice", dice, ["liver", "tumour"])]
    [('overall', 0.833, 3), ('liver', 0.9, 3), ('tumour', 0.5, 1)]
    """
    columns = {"overall": _mean_over_classes(details), **dict(zip(names, details.T, strict=True))}
    return [Score(metric, name, *bootstrap_mean(values, resamples, seed)) for name, values in columns.items()]


def _mean_over_classes(details: np.ndarray) -> np.ndarray:
    held = ~np.isnan(details)
    total = np.where(held, details, 0).sum(1)
    return np.where(held.any(1), total / np.maximum(held.sum(1), 1), np.nan)


def gather(values: list) -> list:
    """Lists of all processes, one after the other by rank, which is MONAI's order of what its metrics gather."""
    if idist.get_world_size() == 1:
        return values
    parts: list[Any] = [None] * idist.get_world_size()
    torch.distributed.all_gather_object(parts, values)
    return [value for part in parts for value in part]


class MetricsReport:
    """Writes ``metrics.csv`` and ``metrics_per_case.csv`` of an evaluator's per-case metrics, and prints the first.

    For every metric of the evaluator that keeps a score per case and class (MONAI's, made with
    ``save_details=True``, their default): the mean overall and per class with its 95 % bootstrap interval over cases.
    All processes of a distributed run take part and the first writes; give its sampler ``even_divisible: false``, or
    cases that fill the last batch count twice. On the evaluator of a training, it reports when the epoch was the best
    so far by the key metric, so that the report is of the weights that are kept.

    Args:
        output_dir: folder of the files.
        labels: names by class number, C of them; a metric has C scores per case, or C − 1 without the background.
        resamples: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: at the end of the run, when no metric keeps scores per case, or not of these classes.

    Example:
        .. code-block:: yaml

            handlers:
            - _target_: monai_crossd.training.MetricsReport
              output_dir: "@output_dir"
              labels: "@labels"
    """

    def __init__(
        self, output_dir: PathLike, labels: Mapping[int, str], resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        self.output_dir = Path(output_dir)
        self.labels = dict(sorted(labels.items()))
        self.resamples = resamples
        self.seed = seed
        self._paths: list[str] = []

    def attach(self, evaluator: Engine) -> None:
        """Registers the handlers.

        Args:
            evaluator: a MONAI evaluator.
        """
        evaluator.add_event_handler(Events.STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        evaluator.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, _: Engine) -> None:
        self._paths = []

    def _add(self, evaluator: Engine) -> None:
        self._paths.extend(case_paths(evaluator.state.batch))

    def _finish(self, evaluator: Engine) -> None:
        cases = [path or f"case{i}" for i, path in enumerate(gather(self._paths))]
        best = evaluator.state.best_metric_epoch in (-1, evaluator.state.epoch)
        self._report(evaluator, cases, write=best and idist.get_rank() == 0)

    def _report(self, evaluator: Engine, cases: list[str], write: bool) -> None:
        details = getattr(evaluator.state, "metric_details", {})
        if not details:
            raise ValueError("The evaluator has no metric with scores per case: give MeanDice save_details=True.")
        if not write:
            return
        scores: list[Score] = []
        columns: dict[str, np.ndarray] = {}
        for metric, tensor in details.items():
            values = tensor.detach().cpu().double().numpy()
            names = self._class_names(metric, values)
            scores += case_scores(metric, values, names, self.resamples, self.seed)
            columns[metric] = _mean_over_classes(values)
            columns |= {f"{metric}/{name}": column for name, column in zip(names, values.T, strict=True)}
        rows = [(case, *row) for case, row in zip(cases, np.stack(list(columns.values()), 1).tolist(), strict=True)]
        self._write(scores, ["case", *columns], rows)

    def _class_names(self, metric: str, values: np.ndarray) -> list[str]:
        names = list(self.labels.values())
        if values.ndim != 2 or values.shape[1] not in (len(names), len(names) - 1):
            raise ValueError(
                f"Metric {metric!r} has scores of shape {values.shape}; expected (cases, {len(names)}), or one class "
                f"less without the background, for the labels {names}."
            )
        return names[-values.shape[1] :]

    def _write(self, scores: Sequence[Score], columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        write_csv(self.output_dir / "metrics.csv", Score._fields, scores)
        write_csv(self.output_dir / "metrics_per_case.csv", columns, rows)
        print(format_scores(scores), flush=True)
