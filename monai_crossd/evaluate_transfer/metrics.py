# SPDX-License-Identifier: Apache-2.0
"""The metrics of the paper's Table I."""

from __future__ import annotations

import numpy as np

from ..training.classification import confusion_counts, scores_from_counts

__all__ = ["TABLE1_METRICS", "table1_metrics"]

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

    References:
        M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting
        Operation, 2024, Table I.

    Args:
        predicted: (N,) class numbers.
        truth: (N,) class numbers.
        classes: their number.

    Returns:
        Scores by the names in :data:`TABLE1_METRICS`.

    Raises:
        ValueError: When there is no case, the arrays differ in shape, or hold no class numbers.

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
