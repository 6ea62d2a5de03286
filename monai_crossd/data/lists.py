# SPDX-License-Identifier: Apache-2.0
"""Lists in files: dataset.json of nnU-Net with its channels, and CSV with a row per item."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .labels import is_dense
from .readers.formats import PICTURES, has_suffix

__all__ = [
    "as_text",
    "case_name",
    "count_channels",
    "find_channels",
    "group_channels",
    "pair_cases",
    "read_cases",
    "read_label_names",
    "read_table",
]

logger = logging.getLogger(__name__)

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")  # the case name, and the number of the channel

_SECTIONS = {
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    "test": "test",
}
_COLUMNS = ("image", "label", "patient", "section")
_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d\d))([ T]\d{1,2}:\d\d.*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FEW = 5  # classes; a list of fewer items may show one of each


def case_name(path: Path) -> str:
    """A file's name without its suffix; a folder's name whole, dots and all."""
    return path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem


def count_channels(content: dict[str, Any]) -> int | None:
    """Channels that a dataset.json names ("channel_names", in version 1 "modality"), or None."""
    names = content.get("channel_names", content.get("modality"))
    return len(names) if isinstance(names, (dict, list)) and names else None


def read_label_names(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Reads "labels" as number -> name (decathlon, version 1) or name -> number (version 2).

    Raises:
        ValueError: When they are neither, or what this package does not train: regions and an ignored label.
    """
    labels = content.get("labels", {})
    if isinstance(labels, dict):
        if regions := [name for name, number in labels.items() if isinstance(number, (list, tuple))]:
            raise ValueError(
                f'{path}: "labels" has regions, {regions[0]!r}: {labels[regions[0]]}, which may overlap. Give a number '
                'to each label, like {"background": 0, "edema": 1, "core": 2}.'
            )
        if "ignore" in labels:
            raise ValueError(
                f'{path}: "labels" has the label "ignore" ({labels["ignore"]}) of nnU-Net, which would be trained as a '
                "class here. Fill its voxels and remove it."
            )
    try:
        pairs = [(k, v) if isinstance(v, str) else (v, k) for k, v in labels.items()]
        numbers = [int(number) for number, _ in pairs]
    except (AttributeError, TypeError, ValueError) as error:
        expected = 'numbers and names, like {"0": "background", "1": "liver"}'
        raise ValueError(f'{path}: "labels" is {labels!r}; expected {expected}.') from error
    if repeated := [number for number in numbers if numbers.count(number) > 1]:
        raise ValueError(f'{path}: "labels" gives the number {repeated[0]} to two names: {labels!r}.')
    return dict(sorted(zip(numbers, (name for _, name in pairs), strict=True)))


def find_channels(path: Path, channels: int | None = None) -> Path | list[Path]:
    """The files of an image that a list names: itself, or ``case_0000, case_0001, ...`` where only those are there.

    Args:
        path: as named, absolute, like ``imagesTr/case.nii.gz``.
        channels: expected, or None.

    Raises:
        ValueError: When a channel is missing.
    """
    if path.exists() or not path.parent.is_dir():
        return path
    case = case_name(path)
    suffix = path.name[len(case) :]
    found = {
        int(match["number"]): entry
        for entry in path.parent.glob(f"{_escaped(case)}_[0-9][0-9][0-9][0-9]{_escaped(suffix)}")
        if (match := _CHANNEL.fullmatch(case_name(entry)))
    }
    return _complete(case, found, channels or len(found), path.parent) if found else path


def _escaped(text: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", text)


def _complete(case: str, found: dict[int, Path], channels: int, folder: Path) -> Path | list[Path]:
    if sorted(found) != list(range(channels)):
        lacking = sorted(set(range(channels)) - set(found)) or sorted(found)[channels:]
        missing = lacking[0] < channels and lacking[0] not in found
        raise ValueError(
            f"{folder / case} has the channels {[f'_{number:04d}' for number in sorted(found)]}; expected {channels}, "
            f"_0000 to _{channels - 1:04d}. "
            + (f"Add {case}_{lacking[0]:04d}." if missing else "Name all in dataset.json, or remove the others.")
        )
    return found[0] if channels == 1 else [found[number] for number in range(channels)]


def pair_cases(
    images: Iterable[Path], labels: Iterable[Path], folders: tuple[Path, Path], channels: int | None = None
) -> list[dict]:
    """Pairs images and label maps by file name; ``case_0000, case_0001`` become a list.

    Args:
        images: files, or folders of a series.
        labels: the same.
        folders: of both, for messages.
        channels: of each case, as dataset.json says. None: all cases have as many as the one with most.

    Raises:
        ValueError: When one has no partner, two label maps are of one case, or a case lacks a channel.
    """
    cases: dict[str, Path] = {}
    for path in labels:
        if other := cases.get(case_name(path)):
            raise ValueError(f"{other} and {path} are both the label map of {case_name(path)}: remove one of them.")
        cases[case_name(path)] = path
    whole: dict[str, Path] = {}
    parts: dict[str, dict[int, Path]] = {}
    for path in images:
        name, match = case_name(path), _CHANNEL.fullmatch(case_name(path))
        if match and name not in cases:
            name, number = match["case"], int(match["number"])
            other = parts.setdefault(name, {}).setdefault(number, path)
        else:
            other = whole.setdefault(name, path)
        if other != path:
            raise ValueError(f"{other} and {path} are both the image of {case_name(path)}: remove one of them.")
    for name in sorted((whole.keys() | parts.keys()) ^ cases.keys()):
        found = cases.get(name) or whole.get(name) or next(iter(parts[name].values()))
        lacks = folders[0] if name in cases else folders[1]
        raise ValueError(f"{found} has no partner in {lacks}: add it under the same name, or remove the file.")
    if both := sorted(whole.keys() & parts.keys()):
        raise ValueError(
            f"{whole[both[0]]} and {next(iter(parts[both[0]].values()))} are both the image of {both[0]}: remove one."
        )
    count = channels or max((len(found) for found in parts.values()), default=1)
    if whole and parts and count > 1:
        name = min(whole)
        raise ValueError(f"{whole[name]} is one channel; expected {count}: {name}_0000 to {name}_{count - 1:04d}.")
    joined: dict[str, Path | list[Path]] = dict(whole)
    joined |= {name: _complete(name, found, count, folders[0]) for name, found in parts.items()}
    return [{"image": as_text(joined[name]), "label": str(cases[name])} for name in sorted(joined)]


def group_channels(paths: Iterable[str]) -> list[str | list[str]]:
    """Makes one image of nnU-Net's ``case_0000.nii.gz``, ``case_0001.nii.gz``: the list of its channels.

    Numbers are channels where every case of a folder has the same ones, from 0000 without a gap, and the folder has
    several cases or is one of nnU-Net's (``imagesTs``). Otherwise they are part of the names.

    Args:
        paths: image files, in order.

    Returns:
        A path, or the list of its channels, for each image.

    Raises:
        ValueError: When a case lacks a channel that another case of the folder has.

    Example:
        >>> group_channels(["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"])
        [['a_0000.nii.gz', 'a_0001.nii.gz'], ['b_0000.nii.gz', 'b_0001.nii.gz']]
    """
    paths = list(paths)
    folders: dict[Path, dict[str, dict[int, str]]] = {}
    for path in paths:
        match = _CHANNEL.fullmatch(_stem(path))
        if match and (not has_suffix(path, PICTURES) or _is_nnunet(Path(path).parent)):
            cases = folders.setdefault(Path(path).parent, {})
            cases.setdefault(match["case"], {})[int(match["number"])] = path
    grouped: dict[str, list[str]] = {}
    for folder, cases in folders.items():
        whole = [case for case, channels in cases.items() if sorted(channels) == list(range(len(channels)))]
        count = max((len(cases[case]) for case in whole), default=1)
        if count == 1 or (len(cases) == 1 and not _is_nnunet(folder)):
            continue
        for case, channels in cases.items():
            if lacking := sorted(set(range(count)) - set(channels)):
                raise ValueError(
                    f"{folder / case} has the channels {sorted(channels)}, other cases of the folder have {count}: add "
                    f"{case}_{lacking[0]:04d}, or rename files whose last four digits are no channel."
                )
            grouped |= {path: [channels[k] for k in range(count)] for path in channels.values()}
    return [grouped.get(path, path) for path in paths if path not in grouped or grouped[path][0] == path]


def _stem(path: str) -> str:
    return Path(Path(path).name.removesuffix(".gz")).stem


def _is_nnunet(folder: Path) -> bool:
    return folder.name.startswith(("imagesT", "imagesV"))


def as_text(image: Path | Sequence[Path]) -> str | list[str]:
    """A path, or those of the channels."""
    return str(image) if isinstance(image, Path) else [str(path) for path in image]


def read_cases(content: dict[str, Any], path: Path) -> list[dict]:
    """Reads the optional key "dataset" of version 2: images and label map of each case.

    Raises:
        ValueError: When it has another form, or a case another number of channels than "channel_names".
    """
    cases = content["dataset"]
    items = []
    for name, case in cases.items() if isinstance(cases, dict) else []:
        images = case.get("images") if isinstance(case, dict) else None
        if not isinstance(images, list) or not images or not isinstance(case.get("label"), str):
            raise ValueError(f'{path}: "dataset", {name!r} is {case!r}; expected {{"images": [...], "label": ...}}.')
        if (count := count_channels(content)) and len(images) != count:
            raise ValueError(f'{path}: "dataset", {name!r} has {len(images)} images; expected {count} channels.')
        files = [path.parent / image for image in images]
        label = path.parent / case["label"]
        items.append({"image": as_text(files if len(files) > 1 else files[0]), "label": str(label)})
    if not items:
        raise ValueError(f'{path}: "dataset" is {cases!r}; expected an object with a case for each name.')
    return items


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
