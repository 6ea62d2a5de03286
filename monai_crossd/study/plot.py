# SPDX-License-Identifier: Apache-2.0
"""A study as a picture: every seed, the means, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike

from ..visualize.figures import need_matplotlib, save_figure
from .comparisons import Cells, Row, cells_by_method, resampled_t, split_ratio

__all__ = ["save_plot"]

# Okabe and Ito's colours, told apart with any colour vision, without black and the pale yellow; the markers, in another
# number, tell apart what has the same colour, and what is printed in grey
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v")
_LINE = 0.3  # inches of height per method and data set


def _seed_means(cells: Cells, metric: str) -> list[float]:
    seeds: dict[int, list[float]] = {}
    for (seed, _), row in cells.items():
        seeds.setdefault(seed, []).append(float(row[metric]))
    return [float(np.mean(values)) for values in seeds.values()]


def _interval(cells: Cells, metric: str) -> tuple[float, float] | None:
    """Corrected 95 % interval of the mean; None of one cell, or where all are equal."""
    values = [float(row[metric]) for row in cells.values()]
    if len(values) < 2 or np.ptp(values) < 1e-9:
        return None
    return resampled_t(values, split_ratio(cells.values()))[:2]


def _draw(axes: Any, y: float, cells: Cells, metric: str, colour: str, marker: str) -> None:
    """One method on one data set: a pale bar for the interval, dots for the seeds, a large marker for the mean."""
    interval = _interval(cells, metric)
    if interval:
        axes.plot(interval, [y, y], color=colour, alpha=0.3, linewidth=4.5, solid_capstyle="butt", zorder=2)
    values = _seed_means(cells, metric)
    axes.plot(values, [y] * len(values), "o", color=colour, markersize=3.2, markeredgewidth=0, zorder=3)
    mean = float(np.mean([float(row[metric]) for row in cells.values()]))
    axes.plot([mean], [y], marker, color=colour, markersize=7.5, markeredgecolor="white", markeredgewidth=1, zorder=4)


def save_plot(path: PathLike, rows: Iterable[Row], metric: str = "balanced_accuracy") -> Path:
    """Writes a PNG with a panel per mode: methods from top to bottom, a colour and a marker per data set.

    A dot is the mean over the folds of a seed; the marker is the mean over all cells, the pale bar its 95 % interval
    by :func:`~monai_crossd.study.resampled_t`, which is wider than that of independent cells. The intervals
    are those of the methods by themselves: pairs on the same folds can differ significantly where they overlap.

    Args:
        path: of the PNG; missing folders are made.
        rows: finished cells, as in :func:`~monai_crossd.study.make_tables`.
        metric: a column.

    Returns:
        ``path``.

    Raises:
        ValueError: When there are no rows, a cell is there twice or has no number for the metric.
        OptionalImportError: When matplotlib or scipy is not installed.
    """
    found = cells_by_method(rows, metric)
    if not found:
        raise ValueError("There are no rows: expected at least one finished cell.")
    modes = list(dict.fromkeys(mode for _, _, mode, _ in found))
    datasets = list(dict.fromkeys(dataset for _, dataset, _, _ in found))
    sources = list(dict.fromkeys(source for source, *_ in found))
    pairs = [(s, m) for s in sources for m in dict.fromkeys(m for x, *_, m in found if x == s)]
    step = 0.8 / len(datasets)  # of the unit between two methods
    height = 1.3 + max(0.45, _LINE * 0.62 * len(datasets)) * len(pairs)
    module = need_matplotlib("matplotlib.figure")
    figure = module.Figure(figsize=(2.6 + 3.6 * len(modes), max(2.4, height)), layout="constrained")
    panels = figure.subplots(1, len(modes), squeeze=False, sharex=True, sharey=True)[0]
    for axes, mode in zip(panels, modes, strict=True):
        for at, dataset in enumerate(datasets):
            colour, marker = _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]
            axes.plot([], [], marker, color=colour, label=dataset)
            for y, (source, method) in enumerate(pairs):
                cells = found.get((source, dataset, mode, method))
                if cells:
                    _draw(axes, y + (at - (len(datasets) - 1) / 2) * step, cells, metric, colour, marker)
        for y in range(1, len(pairs)):
            axes.axhline(y - 0.5, color="0.85", linewidth=0.8, zorder=0)
        axes.set(title=mode.replace("_", " "), xlabel=metric.replace("_", " "), ylim=(len(pairs) - 0.5, -0.5))
        axes.set_yticks(range(len(pairs)), [m if len(sources) == 1 else f"{m}\n({s})" for s, m in pairs])
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="x", alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), int(1.2 * len(modes)) + 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return save_figure(figure, path)
