# SPDX-License-Identifier: Apache-2.0
"""How the shifts of a network's Cross-D layers are distributed, epoch by epoch."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from monai.config import PathLike

from .bank import BANK_AXES, COLOURS
from .figures import need_matplotlib, save_figure

__all__ = ["ShiftSummary", "draw_shifts", "read_shifts"]

_COLUMNS = 6  # of panels


class ShiftSummary(NamedTuple):
    """A row of ``shifts.csv``: shifts of one layer along one axis of its bank in one epoch, in voxels."""

    epoch: int
    layer: str
    axis: str  # depth, row or column
    samples: int
    mean: float
    std: float
    q05: float
    q25: float
    q50: float
    q75: float
    q95: float


def read_shifts(path: PathLike) -> list[ShiftSummary]:
    r"""Reads the table that :class:`monai_crossd.training.ShiftHandler` writes.

    Args:
        path: of shifts.csv.

    Returns:
        Its rows.

    Raises:
        ValueError: When the file is no such table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder, "shifts.csv")
        ...     _ = table.write_text(f"{','.join(ShiftSummary._fields)}\n1,conv1,depth,8,1,0.1,0.8,0.9,1,1.1,1.2\n")
        ...     [(row.layer, row.q50) for row in read_shifts(table)]
        [('conv1', 1.0)]
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    try:
        if tuple(lines[0]) != ShiftSummary._fields:
            raise ValueError(f"its columns are {lines[0]}")
        return [ShiftSummary(int(e), layer, axis, int(n), *map(float, rest)) for e, layer, axis, n, *rest in lines[1:]]
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of shifts ({error}): remove or rename it.") from error


def draw_shifts(csv_path: PathLike, path: PathLike) -> Path:
    """Writes a PNG with a panel per layer: the median shift along each axis of the bank over the epochs.

    The dark band holds the middle half of the samples, the pale one those from the 5th to the 95th percentile. All
    panels have one scale. The three shifts of a sample sum to 3; 1 is the shift at angle 0.

    Args:
        csv_path: of shifts.csv, which :class:`monai_crossd.training.ShiftHandler` writes.
        path: of the PNG; missing folders are made.

    Returns:
        ``path``.

    Raises:
        ValueError: When the table is none, or empty.
        OptionalImportError: When matplotlib is not installed.

    Example:
        .. code-block:: python

            draw_shifts("eval/shifts.csv", "eval/shifts.png")
    """
    panels: dict[str, dict[str, list[ShiftSummary]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(read_shifts(csv_path), key=lambda row: row.epoch):
        panels[row.layer][row.axis].append(row)
    if not panels:
        raise ValueError(f"{csv_path} holds no shifts: expected a row for at least one epoch.")
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (max(1.65 * columns + 0.4, 4.2), 1.45 * rows + 0.9)  # the legend needs its width
    figure = need_matplotlib("matplotlib.figure").Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for (name, curves), axes in zip(panels.items(), grid, strict=False):
        for axis, colour in zip(BANK_AXES, COLOURS, strict=True):
            curve = curves[axis]
            epochs = [row.epoch for row in curve]
            for low, high, alpha in (("q05", "q95", 0.15), ("q25", "q75", 0.3)):
                edges = ([getattr(row, low) for row in curve], [getattr(row, high) for row in curve])
                axes.fill_between(epochs, *edges, color=colour, alpha=alpha, linewidth=0)
            marker = "." if len(epochs) < 30 else ""
            axes.plot(epochs, [row.q50 for row in curve], color=colour, marker=marker, label=axis)
        axes.axhline(1, color="black", linewidth=0.6)
        axes.set_title(name or "the network", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for at in range(max(len(panels) - columns, 0), len(panels)):  # the lowest panel of each column
        grid[at].set_xlabel("epoch", fontsize=8)
        grid[at].tick_params(labelbottom=True)
    figure.supylabel("shift / voxel", fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    title = "median, middle half and 5–95 % of the samples, by axis of the bank"
    figure.legend(handles, labels, title=title, title_fontsize=8, loc="outside upper center", ncols=3, fontsize=8)
    return save_figure(figure, path)
