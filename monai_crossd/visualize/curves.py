# SPDX-License-Identifier: Apache-2.0
"""Training curves of one run or of several over one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from .figures import need_matplotlib, save_figure

__all__ = ["History", "save_curves"]

_COLUMNS = 4  # of panels

# metric name -> (epoch, value) in the order of the epochs; "metric/class" holds the values of one class
History = Mapping[str, Sequence[tuple[float, float]]]


def save_curves(path: PathLike, history: History | Mapping[str, History]) -> Path:
    """Writes a PNG with one panel per metric.

    Values of single classes, named ``"metric/class"``, share one panel per metric, drawn for a single run only.

    Args:
        path: of the PNG; missing folders are made.
        history: ``{"train_loss": [(1, 0.9), (2, 0.7)], "val_mean_dice": [...]}``, or several of them by the name of
            their run, ``{"from 2D": {...}, "from scratch": {...}}``. nan leaves a gap.

    Returns:
        ``path``.

    Raises:
        ValueError: When there is no metric.
        OptionalImportError: When matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_curves(f"{folder}/curves.png", {"train_loss": [(1, 0.9), (2, 0.7)]}).name
        'curves.png'
    """
    several = any(isinstance(value, Mapping) for value in history.values())
    runs: Mapping[str, Any] = history if several else {"": history}
    panels: dict[str, list[tuple[str, Sequence]]] = {}
    for run, metrics in runs.items():
        for name, points in metrics.items():
            metric, _, label = name.partition("/")
            if not label:
                panels.setdefault(metric, []).append((run, points))
            elif not several:
                panels.setdefault(f"{metric} per class", []).append((label, points))
    if not panels:
        raise ValueError('The history is empty: expected at least one metric, like {"train_loss": [(1, 0.9)]}.')
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = need_matplotlib("matplotlib.figure").Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        for label, points in curves:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set(title=title.replace("_", " "), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if "dice" in title or "acc" in title:
            axes.set_ylim(0, 1.02)
        if any(label for label, _ in curves):
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0, frameon=False)
    return save_figure(figure, path)
