# SPDX-License-Identifier: Apache-2.0
"""Classifiers of several data sets: a head each, which is a row of outputs beside the others of one linear layer.

A linear layer for each data set and one layer with all their outputs are the same network, as long as nothing compares
outputs of different heads. So the network stays a ResNet, with its keys, exports and transfer; what is here keeps the
heads apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from monai.handlers import from_engine
from monai.utils import CommonKeys
from torch import Tensor, nn

from .._options import look_up_option
from .classification import BalancedAccuracy, classification_scores, scores_from_counts
from .scores import RESAMPLES, Score

__all__ = ["HeadScores", "HeadsLoss", "by_head", "head_labels", "head_scores", "head_slice", "own_head", "pick_head"]

SCORES = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "accuracy")


def _slices(heads: Mapping[str, int]) -> dict[str, slice]:
    ends = np.cumsum(list(heads.values())).tolist()
    return {name: slice(end - count, end) for (name, count), end in zip(heads.items(), ends, strict=True)}


def head_slice(heads: Mapping[str, int], head: str | None) -> slice:
    """Outputs of one head.

    Args:
        heads: number of classes by name of the data set, of :func:`monai_crossd.data.load_heads`; empty for a network
            with one head.
        head: name of a data set; None for a network with one head.

    Raises:
        ValueError: When a head has to be chosen, or there is none to choose, or none of that name.

    >>> head_slice({"chest": 2, "breast": 3}, "breast"), head_slice({}, None)
    (slice(2, 5, None), slice(None, None, None))
    """
    if not heads:
        if head is not None:
            raise ValueError(f"head is {head!r}, but the weights were trained on one data set: leave the option out.")
        return slice(None)
    if head is None:
        raise ValueError(
            f"The weights were trained on {len(heads)} data sets and have a head for each: say which one classifies, "
            f"--head {' or '.join(heads)}."
        )
    return _slices(heads)[look_up_option(head, list(heads))]


def pick_head(heads: Mapping[str, int], head: str | None) -> Callable[[Tensor], Tensor]:
    """A function that keeps of an item's outputs (C,) those of one head, for MONAI's Lambdad.

    Args:
        heads: as in :func:`head_slice`.
        head: as there.

    Raises:
        ValueError: As there.

    >>> pick_head({"chest": 2, "breast": 1}, "breast")(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [3.0]
    """
    return itemgetter(head_slice(heads, head))


def head_labels(labels: Mapping[int, str] | Sequence[str], heads: Mapping[str, int], head: str | None) -> list[str]:
    """Names of the classes of one head, without that of the data set.

    Args:
        labels: names of all classes by number.
        heads: as in :func:`head_slice`.
        head: as there.

    >>> head_labels(["chest/normal", "chest/pneumonia", "breast/benign"], {"chest": 2, "breast": 1}, "breast")
    ['benign']
    """
    names = list(labels.values()) if isinstance(labels, Mapping) else list(labels)
    return [name.removeprefix(f"{head}/") for name in names[head_slice(heads, head)]]


class HeadsLoss(nn.Module):
    """Cross-entropy of each item among the classes of its own data set, averaged over the batch.

    Args:
        heads: number of classes by name of the data set; empty for one head.
        label_smoothing: within the data set's classes.

    Shape:
        Logits (B, C) and class numbers (B,) or (B, 1) to a number.

    Example:
        >>> loss = HeadsLoss({"chest": 2, "breast": 2})
        >>> round(loss(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([1])).item(), 4)  # ln 2
        0.6931
    """

    def __init__(self, heads: Mapping[str, int], label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.heads = dict(heads)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the items of a batch."""
        labels = labels.reshape(-1)
        total = logits.new_zeros(())
        for outputs in _slices(self.heads or {"": logits.shape[1]}).values():
            of_head = (labels >= outputs.start) & (labels < outputs.stop)
            total = total + nn.functional.cross_entropy(
                logits[of_head, outputs],
                labels[of_head] - outputs.start,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
        return total / len(labels)


def own_head(logits: Tensor, labels: Tensor, heads: Mapping[str, int]) -> Tensor:
    """Logits of items, those that are not of the item's own data set at -inf.

    Args:
        logits: (B, C).
        labels: (B,) or (B, 1).
        heads: number of classes by name of the data set, C in all.

    Raises:
        ValueError: When the logits do not fit the heads.

    >>> own_head(torch.zeros(1, 3), torch.tensor([2]), {"chest": 2, "breast": 1}).tolist()
    [[-inf, -inf, 0.0]]
    """
    total = sum(heads.values())
    if logits.ndim != 2 or logits.shape[1] != total:
        raise ValueError(f"predictions have the shape {tuple(logits.shape)}; expected (items, {total}) for {heads}.")
    numbers = torch.arange(len(heads)).repeat_interleave(torch.tensor(list(heads.values()))).to(logits.device)
    return logits.masked_fill(numbers[labels.reshape(-1)][:, None] != numbers, -torch.inf)


class HeadScores(BalancedAccuracy):
    """Balanced accuracy, macro precision, recall, F1 and accuracy by data set, or the mean of one over the data sets.

    An item counts for the data set of its label, and of its prediction the outputs of that data set. A data set without
    items is left out.

    Args:
        heads: number of classes by name of the data set, of :func:`monai_crossd.data.load_heads`; empty for one.
        score: "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1" or "accuracy", for the mean of it as a
            number. None gives all of every data set, by names like "val_macro_f1/breastmnist".
        output_transform: as in :class:`BalancedAccuracy`.
        device: as there.

    Raises:
        ValueError: When the score is unknown; when predictions do not fit the heads, or a label is no class number.
        NotComputableError: When there were no items.

    Example:
        >>> metric = HeadScores({"chest": 2, "breast": 2}, "balanced_accuracy")
        >>> metric.update((torch.tensor([[2.0, 1, 9, 9], [0, 1, 5, 4]]), torch.tensor([0, 3])))  # the second is wrong
        >>> metric.compute()
        0.5
    """

    def __init__(
        self,
        heads: Mapping[str, int],
        score: str | None = None,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.heads = dict(heads)
        self.score = None if score is None else look_up_option(score, SCORES)
        super().__init__(output_transform, device)

    def update(self, output: tuple[Tensor, Tensor]) -> None:
        """Adds a batch."""
        predictions, labels = output
        if not self.heads:
            super().update(output)
            return
        if not ((labels >= 0) & (labels < sum(self.heads.values()))).all():
            raise ValueError(
                f"labels are {labels.tolist()}; expected numbers from 0 to {sum(self.heads.values()) - 1}."
            )
        super().update((own_head(predictions, labels, self.heads), labels))

    def compute(self) -> Any:
        """The mean as a number, or all scores by name."""
        super().compute()  # adds up what other processes have
        counts: Any = self._counts
        table = counts.cpu().numpy()
        scores = {
            name: scores_from_counts(table[outputs, outputs])
            for name, outputs in _slices(self.heads or {"": len(table)}).items()
            if table[outputs].any()
        }
        if self.score is not None:
            return float(np.mean([of_head[self.score] for of_head in scores.values()]))
        return {
            f"val_{score}/{name}".rstrip("/"): float(of_head[score])
            for score in SCORES
            for name, of_head in scores.items()
        }


def by_head(metrics: Mapping[str, Metric], heads: Mapping[str, int]) -> Mapping[str, Metric]:
    """Metrics of a classification, which become the means over the data sets where there are several.

    Args:
        metrics: of one data set, named as their score after "train_" or "val_", such as "val_balanced_accuracy"; a
            HeadScores stays.
        heads: as in :class:`HeadScores`.

    Returns:
        Metrics of the same names.

    Raises:
        ValueError: When a score is unknown.

    >>> from ignite.metrics import Accuracy
    >>> type(by_head({"val_accuracy": Accuracy()}, {"chest": 2, "breast": 2})["val_accuracy"]).__name__
    'HeadScores'
    """
    if not heads:
        return metrics
    outputs = from_engine([CommonKeys.PRED, CommonKeys.LABEL])
    return {
        name: metric if isinstance(metric, HeadScores) else HeadScores(heads, name.partition("_")[2], outputs)
        for name, metric in metrics.items()
    }


def head_scores(
    probabilities: np.ndarray,
    truth: np.ndarray,
    labels: Mapping[int, str],
    heads: Mapping[str, int],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Score]:
    """Scores of :func:`classification_scores` for each data set, and the mean of their balanced accuracies.

    Args:
        probabilities: (N, C), those of an item's own data set add up to 1.
        truth: (N,) class numbers.
        labels: names of all classes by number.
        heads: number of classes by name of the data set.
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        Rows whose label is the name of the data set, or "data set/class"; the first is the mean.

    Raises:
        ValueError: As there.

    Example:
        >>> probabilities = np.array([[0.9, 0.1, 0, 0], [0, 0, 0.2, 0.8]])
        >>> labels = {0: "chest/normal", 1: "chest/pneumonia", 2: "breast/benign", 3: "breast/malignant"}
        >>> scores = head_scores(probabilities, np.array([0, 3]), labels, {"chest": 2, "breast": 2})
        >>> scores[0].metric, scores[0].estimate
        ('balanced_accuracy', 1.0)
    """
    rows = []
    for name, outputs in _slices(heads).items():
        of_head = (truth >= outputs.start) & (truth < outputs.stop)
        if not of_head.any():
            continue
        names = dict(enumerate(head_labels(labels, heads, name)))
        found = classification_scores(
            probabilities[of_head, outputs], truth[of_head] - outputs.start, names, resamples, seed
        )
        rows += [s._replace(label=name if s.label == "overall" else f"{name}/{s.label}") for s in found]
    balanced = [s.estimate for s in rows if s.metric == "balanced_accuracy"]
    return [Score("balanced_accuracy", "mean", float(np.mean(balanced)), np.nan, np.nan, len(truth)), *rows]
