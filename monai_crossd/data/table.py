# SPDX-License-Identifier: Apache-2.0
"""CSV lists: a row per item, with the columns image and label, and patient and section where they are needed."""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path

from .label_maps import is_dense

__all__ = ["read_table"]

_SECTIONS = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    "test": "test",
}
_COLUMNS = ("image", "label", "patient", "section")
_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d\d))([ T]\d{1,2}:\d\d.*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FEW = 5  # classes; a list of fewer items may show one of each

logger = logging.getLogger(__name__)


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


def _check_classes(rows: list[dict[str, str]], path: Path) -> None:
    """Refuses a column of dates, measurements or identifiers, which are no classes."""
    texts = [row["label"] for row in rows]
    classes = sorted(set(texts))
    shown = f'{path}: the column "label" holds {classes[:5]}'
    remedy = "Give a class to each item, as a whole number from 0 or a word, and keep other columns under other names."
    if empty := [text for text in classes if text.lower() in ("nan", "nat", "null", "none")]:
        raise ValueError(f"{path}: the label {empty[0]!r} stands for a missing one. Fill it or remove the line.")
    if any(_DATE.fullmatch(text) for text in classes):
        raise ValueError(f"{shown}, dates, which are no classes. {remedy}")
    if all(_NUMBER.fullmatch(text) for text in classes) and not all(map(_is_whole, classes)):
        raise ValueError(f"{shown}, numbers with a fraction, which are no classes. {remedy}")
    if (len(classes) == len(texts) >= _FEW) or (2 * len(classes) > len(texts) and len(classes) > 2 * _FEW):
        raise ValueError(f"{shown}, ..., {len(classes)} classes of {len(texts)} items: identifiers? {remedy}")
    if len(classes) >= _FEW and all(row.get("patient") == row["label"] for row in rows):
        raise ValueError(f'{shown}, ..., the same as the column "patient". {remedy}')


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _number_classes(rows: list[tuple[str, str, dict[str, str]]], path: Path) -> tuple[dict[str, int], dict[int, str]]:
    """Class number of each label text, and names of the classes; the training rows say which classes there are.

    Numbers from 0 are those of the classes. Other numbers (1 to 5, or 0 and 255) are names like any word.
    """
    training = [row for section, _, row in rows if section == "training"]
    if not training:
        raise ValueError(f'{path} has no training row: write "training" into the column "section" of some.')
    _check_classes(training, path)
    texts = {row["label"] for row in training}
    if all(text.isdecimal() for text in texts) and is_dense(found := {int(text) for text in texts}):
        names = {number: f"class {number}" for number in range(max(found) + 1)}
        numbers = {text: int(text) for text in texts}
    else:
        order = sorted(texts, key=int) if all(map(_is_whole, texts)) else sorted(texts)
        names = dict(enumerate(order))
        numbers = {name: number for number, name in names.items()}
        if all(map(_is_whole, texts)):
            logger.warning("%s: the labels %s are the classes %s.", path, order[:20], list(names)[:20])
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
        task: "segmentation", where labels are paths, or "classification", where they are all numbers from 0, or names
            or other numbers, then numbered in sorted order.

    Returns:
        Items by section, names of the classes by number, and the line of each image.

    Raises:
        ValueError: When the file is no CSV, lacks a column or a cell, has an unknown section or label, or labels
            that are no classes: dates, fractions, identifiers.
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
