# SPDX-License-Identifier: Apache-2.0
"""Scores of a classifier over all cases with confidence intervals, and balanced accuracy while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from .scores import FEWEST_CASES, RESAMPLES, Score, percentile_interval, resampled_cases

__all__ = ["BalancedAccuracy", "classification_scores", "confusion_counts"]


def confusion_counts(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Number of cases by true class (row) and predicted class (column).

    Args:
        predicted: (N,) class numbers.
        truth: (N,) class numbers.
        classes: their number C.

    Returns:
        (C, C) counts.

    >>> confusion_counts(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, nan where nothing is divided by nothing."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def _mean(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Mean over the counted classes; a class without a value counts as 0, as in scikit-learn."""
    return _ratio(np.where(counted, np.nan_to_num(values), 0).sum(-1), counted.sum(-1))


def scores_from_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Overall scores (...,) and scores per class (..., C) of confusion matrices (..., C, C)."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    recall, precision = _ratio(hits, true), _ratio(hits, predicted)
    precision = np.where((predicted == 0) & (true > 0), 0, precision)  # its cases are there and none was found
    f1 = _ratio(2 * hits, true + predicted)
    seen = true + predicted > 0
    return {
        "accuracy": _ratio(hits.sum(-1), true.sum(-1)),
        "balanced_accuracy": _mean(recall, true > 0),
        "macro_precision": _mean(precision, seen),
        "macro_recall": _mean(recall, seen),
        "macro_f1": _mean(f1, seen),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def _aucs(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of each class against the rest (R, C), the cases counting as often as ``weights`` (R, N) says.

    The share of pairs of a case of the class and another one in which the first has the higher probability; ties
    count half.
    """
    result = np.full((len(weights), probabilities.shape[1]), np.nan)
    for c, scores in enumerate(probabilities.T):
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of groups of equal scores
        inside = truth[order] == c
        sorted_weights = weights[:, order]
        positive = np.add.reduceat(sorted_weights * inside, starts, axis=1)
        negative = np.add.reduceat(sorted_weights * ~inside, starts, axis=1)
        below = np.cumsum(negative, axis=1)
        won = (positive * (below - negative / 2)).sum(1)
        result[:, c] = _ratio(won, positive.sum(1) * below[:, -1])
    return result


def _scores(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """All scores, overall (R,) or per class (R, C), of resamples given as case counts (R, N)."""
    classes = probabilities.shape[1]
    cells, cell_of = np.unique(truth * classes + probabilities.argmax(1), return_inverse=True)
    order = np.argsort(cell_of, kind="stable")
    starts = np.searchsorted(cell_of[order], np.arange(len(cells)))
    counts = np.zeros((len(weights), classes**2))
    counts[:, cells] = np.add.reduceat(weights[:, order], starts, axis=1)
    aucs = _aucs(probabilities, truth, weights)
    scores = scores_from_counts(counts.reshape(-1, classes, classes))
    overall = {name: value for name, value in scores.items() if value.ndim == 1}
    return {**overall, "macro_auc": _mean(aucs, ~np.isnan(aucs)), **scores, "auc": aucs}


def classification_scores(
    probabilities: np.ndarray,
    truth: np.ndarray,
    labels: Mapping[int, str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Score]:
    """Scores of a classifier with 95 % percentile bootstrap intervals over cases.

    Overall: accuracy, balanced accuracy (mean recall of the classes that have cases), macro precision, recall and F1
    (over the classes that have cases or predictions), macro AUC (one class against the rest). Per class: precision,
    recall, F1, AUC. They are scikit-learn's; an AUC without cases on both sides is left out of the mean.

    Args:
        probabilities: (N, C), of the classes for each case.
        truth: (N,) class numbers.
        labels: names by class number, C of them.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        A row per score. Bounds are nan where fewer than :data:`FEWEST_CASES` cases hold the class, or exist at all.

    Raises:
        ValueError: When the arrays do not fit together or the labels, or rows are no probabilities.

    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    >>> scores = classification_scores(probabilities, np.array([0, 0, 0, 1]), {0: "benign", 1: "malignant"})
    >>> scores[0].metric, scores[0].label, scores[0].estimate, scores[0].n
    ('accuracy', 'overall', 0.75, 4)
    """
    names = [name for _, name in sorted(labels.items())]
    if probabilities.shape != (len(truth), len(names)) or not len(truth):
        raise ValueError(
            f"probabilities have shape {probabilities.shape}; expected ({len(truth)}, {len(names)}), at least one "
            f"case, for {len(truth)} true classes and the labels {names}."
        )
    if not (np.allclose(probabilities.sum(1), 1, atol=1e-3) and (probabilities >= 0).all()):
        raise ValueError("Rows of probabilities must not be negative and must add up to 1: apply softmax to logits.")
    if truth.min() < 0 or truth.max() >= len(names):
        raise ValueError(
            f"True classes go from {truth.min()} to {truth.max()}, but the labels are 0..{len(names) - 1}."
        )
    n = len(truth)
    estimates = _scores(probabilities, truth, np.ones((1, n)))
    blocks = []
    for cases in resampled_cases(n, resamples, seed, width=len(names) ** 2):
        rows = np.arange(len(cases))[:, None] * n
        weights = np.bincount((cases + rows).ravel(), minlength=cases.size).reshape(cases.shape).astype(float)
        blocks.append(_scores(probabilities, truth, weights))
    of_class = np.bincount(truth, minlength=len(names))
    result = []
    for metric, value in estimates.items():
        lower, upper = percentile_interval(np.concatenate([block[metric] for block in blocks]))
        where = [("overall", n)] if value.ndim == 1 else list(zip(names, of_class, strict=True))
        for (label, cases_of), *bounds in zip(where, value.ravel(), lower.ravel(), upper.ravel(), strict=True):
            few = cases_of < FEWEST_CASES
            estimate, low, high = (float(b) for b in bounds)
            result.append(Score(metric, label, estimate, *((np.nan, np.nan) if few else (low, high)), int(cases_of)))
    return result


class BalancedAccuracy(Metric):
    """Mean recall over the classes that have items, as scikit-learn's ``balanced_accuracy_score``.

    A class without items has no recall and is left out; ignite's ``Recall(average=True)`` counts it as 0, so that a
    perfect prediction of three classes out of four would be 0.75. :class:`ClassificationReport` gives the same number.

    Args:
        output_transform: as in ignite; gives predictions (B, C), of which the largest counts, and labels: class numbers
            (B,) or (B, 1), or one-hot vectors (B, C).
        device: where the numbers are added up.

    Raises:
        ValueError: When predictions or labels have another shape, or a label is no class number.
        NotComputableError: When there were no items.

    Example:
        >>> metric = BalancedAccuracy()
        >>> metric.update((torch.eye(4)[[1, 1, 2, 3]], torch.tensor([1, 2, 2, 3])))  # no item of class 0
        >>> round(metric.compute(), 3)
        0.833
    """

    _state_dict_all_req_keys = ("_counts",)

    def __init__(self, output_transform: Callable = lambda output: output, device: str | torch.device = "cpu") -> None:
        super().__init__(output_transform, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forgets what was added."""
        self._counts: Tensor | None = None

    @reinit__is_reduced
    def update(self, output: tuple[Tensor, Tensor]) -> None:
        """Adds a batch."""
        predictions, labels = (value.detach().cpu() for value in output)
        if predictions.ndim != 2:
            raise ValueError(f"predictions have the shape {tuple(predictions.shape)}; expected (items, classes).")
        items, classes = predictions.shape
        truth = labels.argmax(1) if labels.shape == predictions.shape and classes > 1 else labels.reshape(-1)
        if len(truth) != items or not ((truth >= 0) & (truth < classes)).all():
            raise ValueError(f"labels are {labels.tolist()}; expected {items} numbers from 0 to {classes - 1}.")
        counts = confusion_counts(predictions.argmax(1).numpy(), truth.long().numpy(), classes)
        counted = torch.from_numpy(counts).to(self._device)
        self._counts = counted if self._counts is None else self._counts + counted

    @sync_all_reduce("_counts")
    def compute(self) -> float:
        """The mean of the recalls."""
        if self._counts is None:
            raise NotComputableError("Balanced accuracy needs at least one item.")
        return float(scores_from_counts(self._counts.cpu().numpy())["balanced_accuracy"])
