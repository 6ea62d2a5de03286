# SPDX-License-Identifier: Apache-2.0
"""Which items are trained on and which are tested on: the same for every contender."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.utils import optional_import

StratifiedKFold, _ = optional_import("sklearn.model_selection", name="StratifiedKFold")
StratifiedGroupKFold, _ = optional_import("sklearn.model_selection", name="StratifiedGroupKFold")

__all__ = ["ALL", "count_folds", "draw_cases", "draw_per_class", "make_folds"]

ALL = "all"

FOLDS = ("official", "swap")


def count_folds(folds: str | int) -> int:
    """How many there are.

    Args:
        folds: "official", "swap" or a number from 2.

    Raises:
        ValueError: for anything else.

    Example:
        >>> [count_folds(folds) for folds in ("official", "swap", 5)]
        [1, 2, 5]
    """
    if folds in FOLDS:
        return FOLDS.index(str(folds)) + 1
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 2:
        raise ValueError(f'folds is {folds!r}; expected "official", "swap" or a number from 2.')
    return folds


def make_folds(
    folds: str | int, labels: Sequence[int], sections: Sequence[str], patients: Sequence[str], seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test items of each fold.

    Args:
        folds: "official": the data set's own sections, training against validation and test. "swap": that, and the same
            with the sides changed. A number k: k-fold cross-validation over all items, stratified by class, no patient
            on both sides.
        labels: class of each item.
        sections: of each item, "training", "validation" or "test".
        patients: of each item; empty where nothing names them, then every item is one.
        seed: of the draw of the k folds.

    Returns:
        Pairs of indices.

    Raises:
        ValueError: where a class has too few items or patients for k folds, or a test side is empty.

    Example:
        >>> sections = ["training", "training", "validation", "test"]
        >>> [(train.tolist(), test.tolist()) for train, test in make_folds("swap", [0, 1, 0, 1], sections, [])]
        [([0, 1], [2, 3]), ([2, 3], [0, 1])]
    """
    count = count_folds(folds)
    if isinstance(folds, str):
        is_training = np.array([section == "training" for section in sections])
        sides = np.flatnonzero(is_training), np.flatnonzero(~is_training)
        if not all(map(len, sides)):
            raise ValueError(f"folds {folds!r} needs items to train on and to test on; got {[len(s) for s in sides]}.")
        return [sides, sides[::-1]][:count]
    classes, sizes = np.unique(np.array(labels), return_counts=True)
    if patients:
        sizes = np.array([len({p for p, y in zip(patients, labels, strict=True) if y == c}) for c in classes])
    if min(sizes) < count:
        unit = "patients" if patients else "items"
        raise ValueError(
            f"class {classes[sizes.argmin()]} has {min(sizes)} {unit}, fewer than the {count} folds: ask for fewer."
        )
    kind = StratifiedGroupKFold if patients else StratifiedKFold
    splitter = kind(count, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(labels)), labels, patients or None))


def draw_per_class(indices: np.ndarray, labels: Sequence[int], count: int | None, seed: int) -> np.ndarray:
    """As many training items of each class, for a study of few labels.

    Args:
        indices: to draw from.
        labels: class of every item of the data set.
        count: items per class, or as many as there are; None: all.
        seed: of the draw.

    Example:
        >>> [[0, 0, 0, 1, 1, 2][i] for i in draw_per_class(np.arange(6), [0, 0, 0, 1, 1, 2], 2, seed=0)]
        [0, 0, 1, 1, 2]
    """
    if count is None:
        return indices
    classes, rng = np.asarray(labels)[indices], np.random.default_rng(seed)
    drawn = [rng.permutation(indices[classes == c])[:count] for c in np.unique(classes)]
    return np.sort(np.concatenate(drawn))


def draw_cases(pool: np.ndarray, count: int | str, seed: int, classes: Sequence[int] | None = None) -> np.ndarray:
    """The labelled volumes of a cell: those of a smaller number are among those of a larger one, but for rounding.

    Args:
        pool: indices to draw from.
        count: how many; "all" takes all.
        seed: of the draw.
        classes: of every item of the data set, for a draw in which each class has its share, and at least one.

    Raises:
        ValueError: If the pool has fewer, or there are more classes than volumes to draw.

    Example:
        >>> draw_cases(np.arange(10), 2, seed=0, classes=[0] * 9 + [1])[-1].item()
        9
    """
    if count == ALL:
        return np.sort(pool)
    number, rng = int(count), np.random.default_rng(seed)
    if number > len(pool):
        raise ValueError(
            f"train_cases has {number}, and the data set {len(pool)} volumes to learn from: ask for fewer."
        )
    if classes is None:
        return np.sort(rng.permutation(pool)[:number])
    of = np.asarray(classes)[pool]
    kinds, sizes = np.unique(of, return_counts=True)
    if number < len(kinds):
        raise ValueError(f"train_cases has {number}, and the data set {len(kinds)} classes: each needs a volume.")
    shares = sizes * number / len(pool)
    counts = np.maximum(1, shares.astype(int))
    while counts.sum() != number:  # largest shortfall first, or largest excess of a class with more than one
        off = shares - counts
        step = 1 if counts.sum() < number else -1
        allowed = counts < sizes if step == 1 else counts > 1
        counts[np.where(allowed, step * off, -np.inf).argmax()] += step
    drawn = [rng.permutation(pool[of == kind])[:n] for kind, n in zip(kinds, counts, strict=True)]
    return np.sort(np.concatenate(drawn))
