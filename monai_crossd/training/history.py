# SPDX-License-Identifier: Apache-2.0
"""The table of a training run: a row per epoch, a column per value, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from monai.config import PathLike

from .._replacing import replacing

__all__ = ["Rows", "as_curves", "read_history", "write_history"]

Rows = dict[int, dict[str, float]]  # epoch -> column -> value


def write_history(path: PathLike, rows: Mapping[int, Mapping[str, float]]) -> Path:
    """Writes the table under a temporary name and moves it into place.

    Args:
        path: of the CSV; missing folders are made.
        rows: values by epoch and column; what an epoch lacks stays empty.

    Returns:
        ``path``.

    Raises:
        OSError: When it cannot be written, with the free space of its disk.
    """
    path = Path(path)
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *columns])
        writer.writeheader()
        writer.writerows({"epoch": epoch, **row} for epoch, row in sorted(rows.items()))
    return path


def read_history(path: PathLike) -> Rows:
    """Reads what :func:`write_history` wrote.

    Args:
        path: of the CSV.

    Returns:
        Values by epoch and column.

    Raises:
        ValueError: When the file is no such table.
    """
    rows: Rows = {}
    with Path(path).open(newline="") as file:
        try:
            for line in csv.DictReader(file):
                epoch = int(line.pop("epoch"))
                rows[epoch] = {name: float(value) for name, value in line.items() if value != ""}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no training history ({error!r}): remove or rename it.") from error
    return rows


def as_curves(rows: Mapping[int, Mapping[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Turns the table into what :func:`monai_crossd.visualize.save_curves` draws; the seconds are left out.

    Args:
        rows: values by epoch and column.

    Returns:
        (epoch, value) pairs by column.

    >>> as_curves({1: {"train_loss": 0.9, "seconds": 3.0}, 2: {"train_loss": 0.7, "val_mean_dice": 0.4}})
    {'train_loss': [(1, 0.9), (2, 0.7)], 'val_mean_dice': [(2, 0.4)]}
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for epoch, row in sorted(rows.items()):
        for name, value in row.items():
            if name != "seconds":
                curves.setdefault(name, []).append((epoch, value))
    return curves
