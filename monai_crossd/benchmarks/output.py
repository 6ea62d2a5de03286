# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark as a table on the screen and as a CSV file per machine and suite."""

from __future__ import annotations

import csv
import os
import platform
import re
from pathlib import Path

import torch

from .._replacing import replacing


def hardware_name(device: str = "cpu") -> str:
    """Name of the GPU, or of the CPU with its number of cores, as a folder name."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
        name = f"{model.group(1) if model else platform.processor() or platform.machine()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_table(rows: list[dict]) -> None:
    """Print the columns that differ from row to row, and what is the same in all of them above."""
    if not rows:
        return
    same = [key for key in rows[0] if len(rows) > 1 and len({_text(row[key]) for row in rows}) == 1]
    print(", ".join(f"{key} {_text(rows[0][key])}" for key in same))
    keys = [key for key in rows[0] if key not in same]
    lines = [keys, *([_text(row[key]) for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def append_csv(path: Path, rows: list[dict]) -> None:
    """Append rows to a CSV file; a new file gets a header. The old content stays whole until the new one is written.

    Raises:
        ValueError: if the file has other columns.
    """
    if not rows:
        return
    old = path.read_text("utf-8") if path.exists() else ""
    header = ",".join(rows[0])
    if old and old.splitlines()[0] != header:
        raise ValueError(f"{path} has the columns {old.splitlines()[0]!r}, not {header!r}: move it away first.")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(old)
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if not old:
            writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)
