# SPDX-License-Identifier: Apache-2.0
"""Scores of a tested network: the paper's, and under any weighting of test patients, so that they can be resampled.

A result is what a cell of a curve study writes: of each test item its patient and, for a classification, its class and
the probabilities given to it, or, for a segmentation, Dice and surface distance of each structure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..training.classification import confusion_counts, scores_from_counts

__all__ = ["METRICS", "TABLE1_METRICS", "metric_names", "patient_weights", "table1_metrics", "weighted_score"]

Result = Mapping[str, Any]


def _recalls(weights: np.ndarray, predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """(B, classes), nan of a class without an item."""
    held = np.stack([weights[:, truth == c].sum(1) for c in range(classes)], 1)
    right = np.stack([weights[:, (truth == c) & (predicted == c)].sum(1) for c in range(classes)], 1)
    with np.errstate(invalid="ignore"):
        return right / held


def _balanced_accuracy(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return _mean(_recalls(weights, probabilities.argmax(1), truth, probabilities.shape[1]))


def _accuracy(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return weights @ (probabilities.argmax(1) == truth) / weights.sum(1)


def _macro_f1(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    predicted, scores = probabilities.argmax(1), []
    for c in range(probabilities.shape[1]):
        both = weights[:, (truth == c) & (predicted == c)].sum(1)
        either = weights[:, truth == c].sum(1) + weights[:, predicted == c].sum(1)
        with np.errstate(invalid="ignore"):
            scores.append(2 * both / either)
    return _mean(np.stack(scores, 1))


def _auc(weights: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of two classes that of the second, of more the mean over one against the rest, as MedMNIST's."""
    areas = []
    for c in range(1 if probabilities.shape[1] == 2 else 0, probabilities.shape[1]):
        own, other = probabilities[truth == c, c], probabilities[truth != c, c]
        above = (own[:, None] > other) + 0.5 * (own[:, None] == other)
        a, b = weights[:, truth == c], weights[:, truth != c]
        with np.errstate(invalid="ignore"):
            areas.append(((a @ above) * b).sum(1) / (a.sum(1) * b.sum(1)))
    return _mean(np.stack(areas, 1))


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, without what is nan; nan where all are."""
    held = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(held, values, 0).sum(-1) / held.sum(-1)


def _over_patients(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted mean of (n,), without what is nan."""
    held = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return weights @ np.where(held, values, 0) / (weights @ held)


_CLASSIFICATION: dict[str, Callable[..., np.ndarray]] = {
    "balanced_accuracy": _balanced_accuracy,
    "auc": _auc,
    "macro_f1": _macro_f1,
    "accuracy": _accuracy,
}
# by task; the first is the one that is shown by default
METRICS: dict[str, tuple[str, ...]] = {
    "classification": tuple(_CLASSIFICATION),
    "segmentation": ("dice", "surface_distance"),
}


def metric_names(result: Result) -> list[str]:
    """Metrics of a result; of a segmentation also those of each structure, as "dice/liver".

    Example:
        >>> metric_names({"structures": ["liver"], "dice": [[0.9]], "surface_distance": [[1.0]]})
        ['dice', 'dice/liver', 'surface_distance', 'surface_distance/liver']
    """
    if "probabilities" in result:
        return list(METRICS["classification"])
    parts = result["structures"]
    return [name for metric in METRICS["segmentation"] for name in (metric, *(f"{metric}/{part}" for part in parts))]


def weighted_score(result: Result, metric: str, weights: np.ndarray) -> np.ndarray:
    """A score of a test, for each of many weightings of its items.

    Args:
        result: of a cell.
        metric: one of :func:`metric_names`. "dice" and "surface_distance" are means over items of each item's mean
            over the structures that it has; a structure that an item lacks, or that was not found and so has no
            surface, does not count.
        weights: (B, n), how often each of the n test items counts.

    Returns:
        (B,) scores; nan where the weighting leaves nothing to score.

    Example:
        >>> weighted_score({"probabilities": [[1, 0], [1, 0]], "truth": [0, 1]}, "accuracy", np.array([[1, 1], [3, 1]]))
        array([0.5 , 0.75])
    """
    weights = np.asarray(weights, float)
    if "probabilities" in result:
        probabilities, truth = np.array(result["probabilities"], float), np.array(result["truth"])
        return _CLASSIFICATION[metric](weights, probabilities, truth)
    kind, _, structure = metric.partition("/")
    values = np.array(result[kind], float)  # null is nan
    chosen = values[:, result["structures"].index(structure)] if structure else _mean(values)
    return _over_patients(weights, chosen)


def patient_weights(patients: Sequence[str], resamples: int, seed: int = 0) -> np.ndarray:
    """(resamples, n): how often each item counts when patients are drawn with replacement, with all their items.

    Example:
        >>> patient_weights(["a", "a"], 2)
        array([[1., 1.],
               [1., 1.]])
    """
    names, item = np.unique(np.asarray(patients), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, item].astype(float)


# by their column; the name is that of ClassificationReport
TABLE1_METRICS = {
    "precision": "macro_precision",
    "recall": "macro_recall",
    "f1": "macro_f1",
    "balanced_accuracy": "balanced_accuracy",
    "accuracy": "accuracy",
}


def table1_metrics(predicted: np.ndarray, truth: np.ndarray, classes: int) -> dict[str, float]:
    """Macro precision, macro recall, macro F1, balanced accuracy and accuracy, as scikit-learn defines them.

    Macro scores are means over the classes that have cases or predictions, 0 for one without the other; balanced
    accuracy is the mean recall of the classes that have cases.

    They are what Table I of the paper has, by the names in :data:`TABLE1_METRICS`, of (N,) class numbers.

    Raises:
        ValueError: If there is no case, the arrays differ in shape, or hold no class numbers.

    Example:
        >>> scores = table1_metrics(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), classes=2)
        >>> {name: round(score, 3) for name, score in scores.items()}
        {'precision': 0.75, 'recall': 0.833, 'f1': 0.733, 'balanced_accuracy': 0.833, 'accuracy': 0.75}
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(
            f"predicted has shape {predicted.shape}, truth {truth.shape}; expected one class number per case in both, "
            "and at least one case."
        )
    for name, numbers in (("predicted", predicted), ("truth", truth)):
        if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0 or numbers.max() >= classes:
            raise ValueError(
                f"{name} holds {numbers.dtype} from {numbers.min()} to {numbers.max()}; expected class numbers, "
                f"integers 0 to {classes - 1}. Apply argmax to probabilities."
            )
    scores = scores_from_counts(confusion_counts(predicted, truth, classes))
    return {column: float(scores[name]) for column, name in TABLE1_METRICS.items()}
