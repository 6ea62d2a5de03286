# SPDX-License-Identifier: Apache-2.0
"""Balanced accuracy, the same number while training as in the report of an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from .classification import confusion_counts, scores_from_counts

__all__ = ["BalancedAccuracy"]


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
