# SPDX-License-Identifier: Apache-2.0
"""What a user may name as her data set, read into one form: embedded data, a list, a MedMNIST file, or a folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import load_decathlon_datalist
from monai.utils import look_up_option

from .demo import EMBEDDED, prepare_embedded
from .folder import read_class_folders
from .medmnist import read_medmnist
from .table import read_table
from .walk import list_entries

__all__ = ["SECTIONS", "TASKS", "Source", "read_source"]

TASKS = ("segmentation", "classification")
SECTIONS = ("training", "validation", "test")
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net appends the channel number to the case name


@dataclass
class Source:
    """A data set as found on disk, not yet split or checked.

    Attributes:
        path: the file or folder it was read from, for messages.
        sections: "training", and "validation" and "test" where the data set has them; items with absolute paths.
        labels: names by number; empty where the data set has none.
        places: where a list names an image, for messages, by ``str(item["image"])``.
    """

    path: Path
    sections: dict[str, list[dict]]
    labels: dict[int, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def _case(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}. Correct the file at that position.") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}; expected an object with a "training" list.')
    return content


def _label_names(content: dict, path: Path) -> dict[int, str]:
    """Reads "labels" as number -> name (decathlon) or name -> number (nnU-Net)."""
    labels = content.get("labels", {})
    try:
        pairs = [(k, v) if isinstance(v, str) else (v, k) for k, v in labels.items()]
        return dict(sorted((int(number), name) for number, name in pairs))
    except (AttributeError, TypeError, ValueError) as error:
        expected = 'numbers and names, like {"0": "background", "1": "liver"}'
        raise ValueError(f'{path}: "labels" is {labels!r}; expected {expected}.') from error


def _from_json(path: Path, task: str) -> Source:
    content = _read_json(path)
    if "training" not in content:
        raise ValueError(
            f'{path} has no section "training" (found: {sorted(content)}). Add the list of training items.'
        )
    names = _label_names(content, path)
    sections: dict[str, list[dict]] = {}
    places = {}
    for section in SECTIONS:
        items = content.get(section, [])
        if not isinstance(items, list):
            raise ValueError(f'{path}: section "{section}" is a {type(items).__name__}; expected a list of items.')
        if section == "test" and not all(isinstance(item, dict) and "label" in item for item in items):
            continue  # images without labels, as in the decathlon
        for index, item in enumerate(items):
            _check_item(item, task, names, f'{path}, section "{section}", item {index}')
        if items:
            sections[section] = load_decathlon_datalist(path, task == "segmentation", section)
            for index, item in enumerate(sections[section]):
                places[str(item["image"])] = f'{path}, section "{section}", item {index}'
    return Source(path, sections, names, places)


def _check_item(item: Any, task: str, names: dict[int, str], where: str) -> None:
    if not isinstance(item, dict):
        raise ValueError(f'{where} is {item!r}; expected an object {{"image": ..., "label": ...}}.')
    for key in ("image", "label"):
        if key not in item:
            raise ValueError(f'{where} has no "{key}" (found: {sorted(item)}). Add it.')
    label = item["label"]
    if task == "segmentation":
        if not isinstance(label, (str, list)):
            raise ValueError(f"{where}: label {label!r} is no path; for segmentation name the label map's file.")
    elif not isinstance(label, int) or isinstance(label, bool) or label < 0:
        raise ValueError(f"{where}: label {label!r} is no class number; for classification give an integer from 0.")
    elif names and label not in names:
        raise ValueError(f'{where}: label {label} is not among the "labels" {names}. Correct one of them.')


def _from_pairs(folder: Path) -> Source:
    """Pairs imagesTr and labelsTr by file name; nnU-Net's channels ``case_0000, case_0001`` become a list."""
    images: dict[str, list[Path]] = {}
    labels = {_case(path): path for path in list_entries(folder / "labelsTr")}
    for path in list_entries(folder / "imagesTr"):
        name = _case(path)
        images.setdefault(name if name in labels else _CHANNEL.sub("", name), []).append(path)
    for name in sorted(images.keys() ^ labels.keys()):
        found, lacks = (labels[name], "imagesTr") if name in labels else (images[name][0], "labelsTr")
        raise ValueError(f"{found} has no partner in {folder / lacks}: add it under the same name, or remove the file.")
    training = [
        {"image": str(paths[0]) if len(paths) == 1 else [str(p) for p in paths], "label": str(labels[name])}
        for name, paths in sorted(images.items())
    ]
    description = folder / "dataset.json"  # nnU-Net's: label names, but no list of items
    names = _label_names(_read_json(description), description) if description.is_file() else {}
    return Source(folder, {"training": training}, names)


def _from_file(path: Path, task: str) -> Source:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return Source(path, *read_table(path, task))
    if suffix == ".npz":
        if task != "classification":
            raise ValueError(f"{path} is no {task} data set: MedMNIST's labels are classes, for classification.")
        return Source(path, *read_medmnist(path))
    if suffix == ".json":
        return _from_json(path, task)
    raise ValueError(f"{path} is no list of a data set: expected a .json, .csv or .npz file, or a folder.")


def read_source(dataset: PathLike, task: str, demo_dir: PathLike, nested: bool = False) -> Source:
    """Reads the data set that a user names.

    Args:
        dataset: word, file or folder; see :func:`monai_crossd.data.load_datalist`.
        task: "segmentation" or "classification".
        demo_dir: where embedded data are written.
        nested: whether each folder with files is a class; see :func:`monai_crossd.data.image_folder_datalist`.

    Raises:
        FileNotFoundError: When ``dataset`` does not exist.
        ValueError: When ``task`` is unknown or what is found cannot be understood.
    """
    look_up_option(task, TASKS)
    if str(dataset) in EMBEDDED:
        return _from_json(prepare_embedded(str(dataset), task, demo_dir).absolute(), task)
    path = Path(dataset).expanduser().absolute()
    if not path.exists():
        raise FileNotFoundError(
            f"Data set {path} does not exist: give a folder, a .json, .csv or .npz file, or one of the words "
            f"{', '.join(EMBEDDED)}."
        )
    if path.is_file():
        return _from_file(path, task)
    is_pairs = (path / "imagesTr").is_dir() and (path / "labelsTr").is_dir()
    listing = path / "dataset.json"
    if listing.is_file() and not (is_pairs and "training" not in _read_json(listing)):
        return _from_json(listing, task)
    if task == "segmentation" and is_pairs:
        return _from_pairs(path)
    if task == "classification" and not is_pairs:
        return Source(path, *read_class_folders(path, nested))
    expected = "imagesTr/ and labelsTr/" if task == "segmentation" else "train/ and val/ or class folders"
    raise ValueError(
        f"{path} is no {task} data set: expected dataset.json or {expected}, "
        f"found {[entry.name for entry in list_entries(path)][:8]}."
    )
