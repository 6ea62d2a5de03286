# SPDX-License-Identifier: Apache-2.0
"""Confusion matrix of a classifier as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.config import PathLike

from .figures import need_matplotlib, save_figure

__all__ = ["save_confusion"]

_MOST_NUMBERS = 25  # classes; more cells have no room for their number


def save_confusion(path: PathLike, counts: np.ndarray, names: Sequence[str]) -> Path:
    """Writes a PNG with a row per true class, coloured by its share of the row's cases.

    Args:
        path: of the PNG; missing folders are made.
        counts: (C, C) number of cases by true class (row) and predicted class (column).
        names: of the C classes.

    Returns:
        ``path``.

    Raises:
        ValueError: When the shapes do not fit.
        OptionalImportError: When matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_confusion(f"{folder}/confusion.png", np.array([[8, 2], [1, 9]]), ["benign", "malignant"]).name
        'confusion.png'
    """
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"counts have shape {counts.shape}; expected {(len(names),) * 2} for the {len(names)} names.")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2 + 0.55 * min(len(names), 2 * _MOST_NUMBERS)
    figure = need_matplotlib("matplotlib.figure").Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    size = 9 if len(names) <= _MOST_NUMBERS else 4
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(names) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(picture, label="share of the true class", shrink=0.8)
    return save_figure(figure, path)
