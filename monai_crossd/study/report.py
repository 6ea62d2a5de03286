# SPDX-License-Identifier: Apache-2.0
"""A study's tables in the layout of the paper's Table II, as Markdown and as CSV, and what the study cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from .._replacing import replacing
from ..training.scores import write_csv
from .comparisons import AVERAGE, Comparison, Row, Table, make_tables

__all__ = ["format_cost", "format_report", "markdown_table", "plain", "show_p", "write_report"]

_METHODS = (
    "On a data set by the corrected resampled t-test over seeds and folds, on the average by Student's paired t-test "
    "over seeds, which share the data: it says nothing of other patients. p values are corrected by Holm's method over "
    "all methods of a data set and mode."
)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a Markdown table; the first `left` columns are words, the others numbers."""
    marks = [":--" if at < left else "--:" for at in range(len(header))]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, marks, *rows)]


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _arrow(comparison: Comparison | None) -> str:
    if comparison is None or not comparison.significant:
        return ""
    return " ↑" if comparison.difference > 0 else " ↓"


def _score_rows(table: Table) -> Iterable[list[str]]:
    for (source, method), by in table.scores.items():
        row = [source, method]
        for dataset in table.datasets:
            s = by.get(dataset)
            arrow = _arrow(table.comparison(source, method, dataset))
            row += [_number(s.mean) + arrow, _number(s.std)] if s else ["-", "-"]
        average = _number(table.averages.get((source, method), math.nan))
        if table.is_best(source, method):
            average = f"**{average}**"
        yield [*row, average + _arrow(table.comparison(source, method, AVERAGE))]


def _published_rows(table: Table, published: Sequence[Row]) -> Iterable[list[str]]:
    """Rows of the paper on the table's data sets; it has weak probing only."""
    found = {(row["source"], row["method"], row["dataset"]): row for row in published}
    for source, method in dict.fromkeys((s, m) for s, m, d in found if d in table.datasets):
        rows = [found.get((source, method, dataset)) for dataset in table.datasets]
        means = [row["mean"] for row in rows if row]
        cells = [text for row in rows for text in ((f"{row['mean']:.3f}", f"{row['std']:.3f}") if row else ("-", "-"))]
        average = f"{sum(means) / len(means):.3f}" if all(rows) else "-"
        yield [f"{source}, as published (accuracy)", method, *cells, average]


def _comparison_rows(table: Table) -> Iterable[list[str]]:
    for c in table.comparisons:
        interval = f"{c.lower:+.3f} to {c.upper:+.3f}" if not c.reason else f"n/a: {c.reason}"
        difference = "-" if math.isnan(c.difference) else f"{c.difference:+.3f}"
        yield [c.source, c.dataset, c.method, difference, interval, show_p(c.p), show_p(c.p_holm), str(c.pairs)]


def show_p(value: float) -> str:
    """A p value in words of a table."""
    return "n/a" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _format_table(table: Table, published: Sequence[Row]) -> list[str]:
    metric = table.metric.replace("_", " ")
    columns = [name for d, kind in table.datasets.items() for name in (f"{d} ({kind}) mean", "std")]
    rows = [*_score_rows(table), *(_published_rows(table, published) if table.mode == "weak_probe" else ())]
    lines = [f"## {table.mode.replace('_', ' ')}: {metric}", ""]
    lines += markdown_table(["Source", "Method", *columns, AVERAGE], rows, left=2)
    few = [
        f"{source}, {method}, {dataset}: {s.cells}"
        for (source, method), by in table.scores.items()
        for dataset, s in by.items()
        if s.cells < table.cells
    ]
    lines += ["", f"Mean and sample standard deviation over {table.cells} cells (seed × fold)."]
    lines[-1] += f" Of fewer: {'; '.join(few)}." if few else ""
    lines[-1] += " Bold: highest average of a source."
    if not table.comparisons:
        return [*lines, "", f"Nothing is compared: {table.reference} has no cell, or no other method has."]
    lines[-1] += f" ↑ ↓: significantly better or worse than {table.reference} (corrected p < 0.05). {_METHODS}"
    header = ["Source", "Data set", "Method", f"Minus {table.reference}", "95 % interval", "p", "p (Holm)", "Pairs"]
    return [*lines, "", *markdown_table(header, _comparison_rows(table), left=3)]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_cost(rows: Iterable[Row], phases: Mapping[str, float] | None = None) -> str:
    """What a study cost, in one line: computing time and cells, in all and by mode.

    Example:
        >>> rows = [{"mode": "full", "seconds": 90}, {"mode": "full", "seconds": 60}]
        >>> format_cost(rows, {"pretraining": 3600})
        'Cost: 62 min of computing, 2 cells (pretraining 60 min; full 2 cells, 2 min).'
    """
    spent: dict[str, list[float]] = {}
    for row in rows:
        spent.setdefault(str(row["mode"]), []).append(float(row["seconds"]))
    others = phases or {}
    parts = [f"{name.replace('_', ' ')} {_duration(seconds)}" for name, seconds in others.items()]
    for mode, seconds in spent.items():
        parts.append(f"{mode.replace('_', ' ')} {len(seconds)} cells, {_duration(sum(seconds))}")
    total = sum(others.values()) + sum(map(sum, spent.values()))
    cells = sum(map(len, spent.values()))
    return f"Cost: {_duration(total)} of computing, {cells} cells ({'; '.join(parts) or 'nothing yet'})."


def format_report(
    rows: Sequence[Row],
    reference: str,
    metric: str = "balanced_accuracy",
    published: Sequence[Row] = (),
    phases: Mapping[str, float] | None = None,
) -> str:
    """A study as Markdown: per mode a table like the paper's Table II and one of the comparisons, then the cost.

    Raises:
        ValueError: If no row has the reference, a cell is there twice or has no number for the metric.
    """
    blocks = [_format_table(table, published) for table in make_tables(rows, reference, metric)]
    return "\n\n".join(["\n".join(lines) for lines in blocks] + [format_cost(rows, phases)]) + "\n"


def _wide_rows(tables: Sequence[Table]) -> tuple[list[str], list[list[Any]]]:
    """A line per mode, source and method; a data set that a mode does not have stays empty."""
    datasets = list(dict.fromkeys(d for table in tables for d in table.datasets))
    parts = ("mean", "std", "cells", "p_holm")
    columns = ["mode", "source", "method", *(f"{d} {part}" for d in datasets for part in parts)]
    lines = []
    for table in tables:
        for (source, method), by in table.scores.items():
            line: list[Any] = [table.mode, source, method]
            for dataset in datasets:
                s, c = by.get(dataset), table.comparison(source, method, dataset)
                line += [s.mean, plain(s.std), s.cells, plain(c.p_holm) if c else ""] if s else [""] * len(parts)
            c = table.comparison(source, method, AVERAGE)
            lines.append([*line, table.averages.get((source, method), ""), plain(c.p_holm) if c else ""])
    return [*columns, AVERAGE, f"{AVERAGE} p_holm"], lines


def plain(value: Any) -> Any:
    """A value as a CSV shows it: what is no number is empty."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def write_report(
    folder: PathLike,
    rows: Sequence[Row],
    reference: str,
    metric: str = "balanced_accuracy",
    published: Sequence[Row] = (),
    phases: Mapping[str, float] | None = None,
) -> list[Path]:
    """Writes report.md (:func:`format_report`), table.csv (a line per mode, source and method) and comparisons.csv.

    Each file is the old one or the new one, never a part. What is no number, or was not tested, is empty in CSV.

    Args:
        folder: made if missing.
        rows: finished cells, as `run_study` returns them.
        reference: a method, that the others are compared with.
        metric: a column.
        published: rows of the paper, shown below the study's own rows of weak probing on the same data sets.
        phases: seconds of what is in no cell, such as {"pretraining": 600}.

    Returns:
        Paths of the files.

    Raises:
        ValueError: If no row has the reference, a cell is there twice or has no number for the metric.

    Example:
        .. code-block:: python

            write_report("eval/study", run_study(study, "eval/study"), study.reference, study.metric)
    """
    text = format_report(rows, reference, metric, published, phases)
    tables = make_tables(rows, reference, metric)
    folder = Path(folder)
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    compared = [[*map(plain, c)] for t in tables for c in t.comparisons]
    return [
        folder / "report.md",
        write_csv(folder / "table.csv", *_wide_rows(tables)),
        write_csv(folder / "comparisons.csv", Comparison._fields, compared),
    ]
