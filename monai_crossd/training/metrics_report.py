# SPDX-License-Identifier: Apache-2.0
"""Reports of an evaluation: scores of each case and of each class, of a segmentation or a classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from monai.config import PathLike
from monai.handlers import from_engine

from ..visualize import save_confusion
from ..visualize.figures import need_matplotlib
from .classification import classification_scores, confusion_counts
from .heads import head_scores, own_head
from .predictions import CaseHandler, case_paths, gather
from .scores import RESAMPLES, Score, bootstrap_mean, format_scores, write_csv

__all__ = ["ClassificationReport", "MetricsReport", "case_scores"]


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


class MetricsReport(CaseHandler):
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

    def _start(self, evaluator: Engine) -> None:
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


class ClassificationReport(MetricsReport):
    """Writes a classifier's scores with 95 % bootstrap intervals, its predictions and its confusion matrix.

    ``metrics.csv`` has the scores of :func:`classification_scores`, and is printed; ``metrics_per_case.csv`` the true
    class, the predicted one and the probabilities of each case; ``confusion_matrix.csv`` and ``.png`` the number of
    cases by true (row) and predicted class (column). The evaluator's "pred" holds logits or probabilities, its "label"
    class numbers or one-hot vectors. Processes and epochs are treated as in :class:`MetricsReport`.

    Args:
        output_dir: folder of the files.
        labels: names by class number.
        resamples: number of resamples.
        seed: of the resampling.
        heads: of a network with a head for each of several data sets, of :func:`monai_crossd.data.load_heads`: scores
            are those of each data set (:func:`head_scores`), and probabilities are among the classes of the item's own;
            "pred" then holds logits.

    Raises:
        OptionalImportError: When matplotlib is not installed; at once, not after the run.
        ValueError: at the end of the run, when predictions are not of these classes.

    Example:
        .. code-block:: yaml

            handlers:
            - _target_: monai_crossd.training.ClassificationReport
              output_dir: "@output_dir"
              labels: "@labels"
    """

    def __init__(
        self,
        output_dir: PathLike,
        labels: Mapping[int, str],
        resamples: int = RESAMPLES,
        seed: int = 0,
        heads: Mapping[str, int] | None = None,
    ) -> None:
        need_matplotlib("matplotlib.figure")
        super().__init__(output_dir, labels, resamples, seed)
        self.heads = dict(heads or {})
        self._predictions: list[tuple[np.ndarray, int]] = []

    def _start(self, evaluator: Engine) -> None:
        super()._start(evaluator)
        self._predictions = []

    def _add(self, evaluator: Engine) -> None:
        super()._add(evaluator)
        for pred, label in zip(*from_engine(["pred", "label"])(evaluator.state.output), strict=True):
            self._predictions.append((torch.as_tensor(pred).detach().cpu().double().flatten().numpy(), _number(label)))

    def _report(self, evaluator: Engine, cases: list[str], write: bool) -> None:
        predictions = gather(self._predictions)
        if not write:
            return
        names = list(self.labels.values())
        outputs = np.stack([pred for pred, _ in predictions])
        truth = np.array([label for _, label in predictions])
        if self.heads:
            outputs = own_head(torch.from_numpy(outputs), torch.from_numpy(truth), self.heads).numpy()
        probabilities = _softmax(outputs)
        if self.heads:
            scores = head_scores(probabilities, truth, self.labels, self.heads, self.resamples, self.seed)
        else:
            scores = classification_scores(probabilities, truth, self.labels, self.resamples, self.seed)
        predicted = probabilities.argmax(1)
        counts = confusion_counts(predicted, truth, len(names))
        write_csv(
            self.output_dir / "confusion_matrix.csv",
            ["true class", *names],
            [(name, *row) for name, row in zip(names, counts.tolist(), strict=True)],
        )
        save_confusion(self.output_dir / "confusion_matrix.png", counts, names)
        rows = [
            (case, names[t], names[p], *row)
            for case, t, p, row in zip(cases, truth, predicted, probabilities.tolist(), strict=True)
        ]
        self._write(scores, ["case", "label", "prediction", *(f"probability/{name}" for name in names)], rows)


def _number(label: Any) -> int:
    label = torch.as_tensor(label)
    return int(label.argmax() if label.numel() > 1 else label)


def _softmax(rows: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of logits; what are probabilities already stay."""
    if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3):
        return rows
    return torch.from_numpy(rows).softmax(1).numpy()
