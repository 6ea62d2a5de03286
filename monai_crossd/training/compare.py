# SPDX-License-Identifier: Apache-2.0
"""Runs beside each other by the tables of their epochs: the best epoch, and one picture of their curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import ignite.distributed as idist
from monai.config import PathLike

from ..visualize import save_curves
from .history import as_curves, read_history

__all__ = ["best_scores", "compare_runs", "print_best"]


def best_scores(path: PathLike, metric: str) -> tuple[int, dict[str, float]]:
    """Best epoch of a run by a metric, and its scores: the metric's own under "mean" and those per class.

    Args:
        path: of a history.csv.
        metric: its column, larger is better.

    Raises:
        ValueError: When no epoch has a number for the metric.
    """
    rows = {e: row for e, row in read_history(path).items() if not math.isnan(row.get(metric, math.nan))}
    if not rows:
        raise ValueError(f"{path} has no number for {metric!r}: was the run validated?")
    epoch = max(rows, key=lambda e: rows[e][metric])
    classes = {name.partition("/")[2]: value for name, value in rows[epoch].items() if name.startswith(f"{metric}/")}
    return epoch, {"mean": rows[epoch][metric], **classes}


def compare_runs(runs: Mapping[str, PathLike], metric: str = "val_mean_dice", picture: PathLike | None = None) -> str:
    r"""Prints and returns a table of the best epoch of each run, and draws their curves into one picture.

    Args:
        runs: folder of each run (with the history.csv of HistoryHandler) by name.
        metric: to compare by, larger is better.
        picture: path of the PNG; none is drawn without.

    Returns:
        The table as text: a row per class, a column per run; "-" where a class does not occur.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for run, dice in (("scratch", 0.5), ("from_2d", 0.7)):
        ...         Path(folder, run).mkdir()
        ...         _ = Path(folder, run, "history.csv").write_text(f"epoch,val_mean_dice\n1,{dice}\n")
        ...     table = compare_runs({"from scratch": f"{folder}/scratch", "from 2D": f"{folder}/from_2d"})
        val_mean_dice  from scratch    from 2D
        mean                  0.500      0.700
        best epoch                1          1
    """
    best = {name: best_scores(Path(folder) / "history.csv", metric) for name, folder in runs.items()}
    classes = list(dict.fromkeys(name for _, scores in best.values() for name in scores))
    left = max(len(name) for name in [*classes, metric])
    widths = [max(len(name), 9) for name in best]
    lines = [f"{metric:<{left}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(best, widths, strict=True))]
    for name in classes:
        cells = [scores.get(name, math.nan) for _, scores in best.values()]
        texts = ["-" if math.isnan(c) else f"{c:.3f}" for c in cells]
        lines.append(f"{name:<{left}}  " + "  ".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True)))
    epochs = [str(epoch) for epoch, _ in best.values()]
    lines.append(f"{'best epoch':<{left}}  " + "  ".join(f"{t:>{w}}" for t, w in zip(epochs, widths, strict=True)))
    table = "\n".join(lines)
    print(table, flush=True)
    if picture is not None:
        histories = {name: as_curves(read_history(Path(folder) / "history.csv")) for name, folder in runs.items()}
        save_curves(picture, histories)
    return table


def print_best(output_dir: PathLike, metric: str, weights: PathLike) -> None:
    r"""Prints the best epoch of a run in one line; in a distributed run the first process does.

    Args:
        output_dir: folder of the run's history.csv, which HistoryHandler writes.
        metric: its column, larger is better.
        weights: path of the best weights, for the line.

    Raises:
        ValueError: When no epoch has a number for the metric.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "history.csv").write_text("epoch,val_mean_dice\n1,0.5\n2,0.7\n")
        ...     print_best(folder, "val_mean_dice", "model.pt")
        best validation mean dice 0.700 in epoch 2; weights in model.pt
    """
    if idist.get_rank() == 0:
        epoch, scores = best_scores(Path(output_dir) / "history.csv", metric)
        name = metric.removeprefix("val_").replace("_", " ")
        print(f"best validation {name} {scores['mean']:.3f} in epoch {epoch}; weights in {weights}", flush=True)
