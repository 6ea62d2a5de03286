# SPDX-License-Identifier: Apache-2.0
"""CSV lists: a row per item, with the columns image and label, and patient and section where they are needed."""

from __future__ import annotations

import csv
from pathlib import Path

__all__ = ["read_table"]

_SECTIONS = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    "test": "test",
}
_COLUMNS = ("image", "label", "patient", "section")


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Each row with its place, for messages; columns of other names are dropped."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            lines = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(lines, [])]
            rows = [(f"{path}, line {lines.line_num}", [cell.strip() for cell in row]) for row in lines if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV in UTF-8: {error}. Save it as comma separated UTF-8.") from error
    columns = {name: header.index(name) for name in _COLUMNS if name in header}
    for name in ("image", "label"):
        if name not in columns:
            raise ValueError(
                f'{path}, line 1 has no column "{name}" (found: {header}). Add it; columns are separated by commas.'
            )
    if not rows:
        raise ValueError(f"{path} holds no item: add a line for each, under the columns {header}.")
    for where, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"{where} has {len(row)} cells; expected {len(header)}, like the header. Put quotes around commas."
            )
        for name, column in columns.items():
            if not row[column]:
                raise ValueError(f'{where}: the cell "{name}" is empty. Fill it or remove the line.')
    return [(where, {name: row[column] for name, column in columns.items()}) for where, row in rows]


def _absolute(path: str, folder: Path) -> str:
    return str(folder / Path(path).expanduser())


def _number_classes(rows: list[tuple[str, str, dict[str, str]]], path: Path) -> tuple[dict[str, int], dict[int, str]]:
    """Class number of each label text, and names of the classes; the training rows say which classes there are."""
    texts = {row["label"] for section, _, row in rows if section == "training"}
    if not texts:
        raise ValueError(f'{path} has no training row: write "training" into the column "section" of some.')
    if all(text.isdecimal() for text in texts):
        names = {number: f"class {number}" for number in range(max(map(int, texts)) + 1)}
        numbers = {text: int(text) for text in texts}
    else:
        names = dict(enumerate(sorted(texts)))
        numbers = {name: number for number, name in names.items()}
    for _, where, row in rows:
        if row["label"] not in numbers:
            raise ValueError(
                f"{where}: the label {row['label']!r} has no training row (classes: {sorted(texts)[:20]})."
            )
    return numbers, names


def read_table(path: Path, task: str) -> tuple[dict[str, list[dict]], dict[int, str], dict[str, str]]:
    """Reads a CSV list with the columns image, label and, where there are any, patient and section.

    Args:
        path: the file; relative paths in it are relative to its folder.
        task: "segmentation", where labels are paths, or "classification", where they are all numbers from 0, or names,
            then numbered in sorted order.

    Returns:
        Items by section, names of the classes by number, and the line of each image.

    Raises:
        ValueError: When the file is no CSV, lacks a column or a cell, or has an unknown section or label.
    """
    rows = []
    for where, row in _rows(path):
        section = row.get("section", "training").lower()
        if section not in _SECTIONS:
            raise ValueError(f"{where}: the section is {section!r}; expected training, validation or test.")
        rows.append((_SECTIONS[section], where, row))
    numbers, names = _number_classes(rows, path) if task == "classification" else ({}, {})
    sections: dict[str, list[dict]] = {}
    lines = {}
    for section, where, row in rows:
        image = _absolute(row["image"], path.parent)
        label = numbers[row["label"]] if task == "classification" else _absolute(row["label"], path.parent)
        item = {"image": image, "label": label}
        sections.setdefault(section, []).append(item | ({"patient": row["patient"]} if "patient" in row else {}))
        lines[image] = where
    return sections, names, lines
