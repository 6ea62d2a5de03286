# SPDX-License-Identifier: Apache-2.0
"""The last line of a training."""

from __future__ import annotations

from pathlib import Path

import ignite.distributed as idist
from monai.config import PathLike

from .compare import best_scores

__all__ = ["print_best"]


def print_best(output_dir: PathLike, metric: str, weights: PathLike) -> None:
    """Prints the best epoch of a run in one line; in a distributed run the first process does.

    Args:
        output_dir: folder of the run's history.csv, which HistoryHandler writes.
        metric: its column, larger is better.
        weights: path of the best weights, for the line.

    Raises:
        ValueError: When no epoch has a number for the metric.
    """
    if idist.get_rank() == 0:
        epoch, scores = best_scores(Path(output_dir) / "history.csv", metric)
        name = metric.removeprefix("val_").replace("_", " ")
        print(f"best validation {name} {scores['mean']:.3f} in epoch {epoch}; weights in {weights}", flush=True)
