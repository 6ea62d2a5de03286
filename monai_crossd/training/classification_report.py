# SPDX-License-Identifier: Apache-2.0
"""Handler that writes a classifier's scores over all cases of an evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.config import PathLike
from monai.handlers import from_engine

from ..visualize import save_confusion
from ..visualize.figures import need_matplotlib
from .bootstrap import RESAMPLES
from .classification import classification_scores, confusion_counts
from .heads import head_scores, own_head
from .report import MetricsReport, gather
from .scores import write_csv

__all__ = ["ClassificationReport"]


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
