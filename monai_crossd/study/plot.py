# SPDX-License-Identifier: Apache-2.0
"""Studies as pictures: scores of data sets, or curves over the number of labelled volumes, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import PathLike

from ..visualize.figures import need_matplotlib, save_figure
from .comparisons import Cells, Row, cells_by_method, resampled_t, split_ratio
from .curve import CurveStudy, matching
from .load import ALL

if TYPE_CHECKING:
    from .curve_report import CurvePoint

__all__ = ["save_curve", "save_plot"]

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
    by :func:`~monai_crossd.study.comparisons.resampled_t`, wider than that of independent cells. The intervals
    are those of the methods by themselves: pairs on the same folds can differ significantly where they overlap.

    Args:
        path: of the PNG; missing folders are made.
        rows: finished cells, as in :func:`~monai_crossd.study.comparisons.make_tables`.
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


# of lines, black too; more markers and dashes, because lines cross
_LINE_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
_LINE_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_DASHES = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)))


def _draw_curve(axes: Any, points: Sequence[CurvePoint], at: int, aside: float) -> Any:
    """One initialization: a line through its points and a band; where there is one alone, a bar, a little aside."""
    colour = _LINE_COLOURS[at % len(_LINE_COLOURS)]
    x = [p.volumes * (1 if len(points) > 1 else 2**aside) for p in points]
    (line,) = axes.plot(
        x, [p.score.estimate for p in points], marker=_LINE_MARKERS[at % len(_LINE_MARKERS)], color=colour,
        linestyle=_DASHES[at % len(_DASHES)], linewidth=1.8, markersize=6, markeredgecolor="white",
        markeredgewidth=0.8, label=points[0].initialization, zorder=3,
    )  # fmt: skip
    lower, upper = ([getattr(p.score, side) for p in points] for side in ("lower", "upper"))
    if len(points) > 1:
        axes.fill_between(x, lower, upper, color=colour, alpha=0.12, linewidth=0)
    else:
        axes.vlines(x, lower, upper, color=colour, alpha=0.5, linewidth=1.5)
    return line


def save_curve(path: PathLike, study: CurveStudy, points: Sequence[CurvePoint]) -> Path:
    """Writes a PNG of the study's metric against the number of labelled volumes, a line and band per initialization
    that the study's `figure` names.

    Bands are 95 % intervals over test patients and, where there are several, seeds; published scores of the metric are
    dashed lines. The legend is beside the axes, in the order of the lines at their right ends.

    Args:
        path: of the PNG; missing folders are made.
        study: with the names of metric, data set and initializations.
        points: of :func:`curve_points`; those of other metrics are left out.

    Returns:
        ``path``.

    Raises:
        OptionalImportError: If matplotlib is not installed.
    """
    chosen = [p for p in points if p.metric == study.metric and not math.isnan(p.score.estimate)]
    module = need_matplotlib("matplotlib.figure")
    figure = module.Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.subplots()
    names = [name for name in study.initializations if any(name in matching(study, p) for p in study.figure or "*")]
    lines, middle = [], (len(names) - 1) / 2
    for at, name in enumerate(names):
        own = sorted((p for p in chosen if p.initialization == name), key=lambda p: p.volumes)
        if own:
            line = _draw_curve(axes, own, at, 0.08 * (at - middle))
            lines.append((own[-1].volumes, own[-1].score.estimate, line))
    for name, scores in study.published.items():
        if study.metric in scores:
            axes.axhline(scores[study.metric], color="0.35", linewidth=1, linestyle=(0, (6, 4)), zorder=1)
            where = {"xy": (0.01, scores[study.metric]), "xycoords": ("axes fraction", "data")}
            axes.annotate(name, **where, xytext=(0, 3), textcoords="offset points", fontsize=8, color="0.35")
    ticks = {p.volumes: f"{p.volumes}\n(all)" if p.train_cases == ALL else str(p.volumes) for p in chosen}
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ticks), [ticks[x] for x in sorted(ticks)])
    axes.minorticks_off()
    if len(ticks) == 1:
        axes.set_xlim(min(ticks) / 2, min(ticks) * 2)
    seeds, patients = (max((getattr(p, what) for p in chosen), default=0) for what in ("seeds", "patients"))
    unit = chosen[0].unit if chosen else "patients"
    over = f"{patients} test {unit}" + (f" and {seeds} seeds" if seeds > 1 else ", one seed")
    axes.set(
        xlabel="labelled volumes", ylabel=study.metric.replace("_", " "), title=f"{study.name}: 95 % bands over {over}"
    )
    axes.title.set_fontsize(11)
    axes.grid(alpha=0.3)
    handles = [line for _, _, line in sorted(lines, key=lambda entry: entry[:2], reverse=True)]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    return save_figure(figure, path)
