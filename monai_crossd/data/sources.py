# SPDX-License-Identifier: Apache-2.0
"""What a user may name as her data set, read into one form: embedded data, a list, a MedMNIST file, or a folder."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import load_decathlon_datalist

from .._options import look_up_option
from ..demo import EMBEDDED, prepare_embedded
from .lists import as_text, count_channels, find_channels, pair_cases, read_cases, read_label_names, read_table
from .medmnist import read_medmnist
from .readers.formats import image_format, list_entries
from .readers.npz import is_npz_path
from .split import SECTIONS, complete_sections
from .walk import find_images, images_by_folder

__all__ = ["SECTIONS", "TASKS", "Source", "image_folder_datalist", "read_class_folders", "read_source"]

logger = logging.getLogger(__name__)

_PARTS = {"training": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test",)}

TASKS = ("segmentation", "classification")


def _leaves(folder: Path, root: Path) -> dict[str, list[str]]:
    """Images of each folder that holds images or nothing, by its path below `root`; a series lies in its parent."""
    found: dict[str, list[str]] = {}
    for place, images in images_by_folder(folder).items():
        is_series = images == [str(place)] and place != folder
        found.setdefault((place.parent if is_series else place).relative_to(root).as_posix(), []).extend(images)
    return found


def _classes(folder: Path, nested: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in list_entries(folder):
        if path.is_dir() and path.resolve() not in (folder.resolve(), *folder.resolve().parents):  # by a link
            found |= _leaves(path, folder) if nested else {path.name: find_images(path)}
    return dict(sorted(found.items()))


def read_class_folders(root: Path, nested: bool = False) -> tuple[dict[str, list[dict]], dict[int, str]]:
    """Reads a folder per class, or a train, a val and a test folder of them; classes are numbered in sorted order.

    Args:
        root: as in :func:`image_folder_datalist`, absolute.
        nested: as in :func:`image_folder_datalist`.

    Returns:
        Items by section, and names of the classes by number.

    Raises:
        ValueError: When there is no class, a class is empty, or not known from training.
    """
    parts = {
        section: root / name
        for section, names in _PARTS.items()
        for name in [next((name for name in names if (root / name).is_dir()), None)]
        if name
    }
    if "training" not in parts:
        parts = {"training": root}
    found = {section: _classes(part, nested) for section, part in parts.items()}
    classes = list(found["training"])
    if not classes:
        raise ValueError(f"{parts['training']} holds no class folders: make one folder of images per class.")
    sections: dict[str, list[dict]] = {}
    for section, images in found.items():
        if unknown := [name for name in images if name not in classes]:
            raise ValueError(
                f"{parts[section] / unknown[0]} is a class without training images (classes: {classes[:20]})."
            )
        if empty := [name for name in classes if not images.get(name)]:
            raise ValueError(
                f"{parts[section] / empty[0]} holds no image: add images of this class or remove the class."
            )
        sections[section] = [
            {"image": path, "label": number} for number, name in enumerate(classes) for path in images[name]
        ]
    return sections, dict(enumerate(classes))


def image_folder_datalist(
    root: PathLike,
    section: str = "training",
    val_fraction: float = 0.2,
    seed: int = 0,
    nested: bool = False,
    patient_pattern: str | None = None,
) -> list[dict]:
    r"""Lists a folder of class folders; :func:`~monai_crossd.data.load_datalist` reads the headers of the files too.

    ``root`` has a folder per class (ImageNet's layout), or ``train``, ``val`` and ``test`` with a folder per class in
    each. Without ``val`` the training images are split. Images are told by their content, whatever they are called; a
    folder with the slices of a DICOM series is one image.

    Args:
        root: the folder.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        val_fraction: part of the training images held out, of each class, where there is no ``val``.
        seed: of that split.
        nested: False: the first folder names the class, the images lie in it at any depth. True: each folder
            that holds files is a class, named by its path (RadImageNet's ``CT/abd/normal``).
        patient_pattern: regular expression whose first group is the patient in a path, like ``r"(P\d+)_"``; the split
            is then by patient.

    Returns:
        Dictionaries with "image" (absolute path) and "label" (class number, in the order of the names).

    Raises:
        FileNotFoundError: When ``root`` does not exist.
        ValueError: When an argument is unknown or out of its range, there is no class, a class is empty, or the
            section has no image.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("CT/abd/normal/1.png", "CT/abd/normal/2.png", "US/liver/3.png", "US/liver/4.png"):
        ...         path = Path(folder, name)
        ...         path.parent.mkdir(parents=True, exist_ok=True)
        ...         path.touch()
        ...     [item["label"] for item in image_folder_datalist(folder, nested=True)]
        [0, 1]
    """
    path = Path(root).expanduser().absolute()
    look_up_option(section, _PARTS)
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give one with a folder of images per class.")
    sections, _ = read_class_folders(path, nested)
    items = complete_sections(sections, "classification", val_fraction, seed, patient_pattern).get(section)
    if not items:
        raise ValueError(f'{path} has no image for section "{section}": make the folder, or add images to split.')
    return items


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


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}. Correct the file at that position.") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}; expected an object with a "training" list.')
    return content


def _from_json(path: Path, task: str) -> Source:
    content = _read_json(path)
    if "training" not in content:
        raise ValueError(
            f'{path} has no section "training" (found: {sorted(content)}). Add the list of training items.'
        )
    names = read_label_names(content, path)
    sections: dict[str, list[dict]] = {}
    places = {}
    for section in SECTIONS:
        items = content.get(section, [])
        if not isinstance(items, list):
            raise ValueError(f'{path}: section "{section}" is a {type(items).__name__}; expected a list of items.')
        if section == "test" and not any(isinstance(item, dict) and "label" in item for item in items):
            continue  # images without labels, as in the decathlon
        for index, item in enumerate(items):
            _check_item(item, task, names, f'{path}, section "{section}", item {index}')
        if items:
            sections[section] = load_decathlon_datalist(path, task == "segmentation", section)
            for index, item in enumerate(sections[section]):
                if isinstance(item["image"], str) and not is_npz_path(item["image"]):
                    item["image"] = as_text(find_channels(Path(item["image"]), count_channels(content)))
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


def _images(folder: Path) -> list[Path]:
    """Image files of a folder, and folders in it, which hold a series each."""
    return [path for path in list_entries(folder) if path.is_dir() or image_format(path)]


def _from_pairs(folder: Path) -> Source:
    """Pairs imagesTr and labelsTr by file name, with the label names of nnU-Net's dataset.json."""
    description = folder / "dataset.json"
    content = _read_json(description) if description.is_file() else {}
    names = read_label_names(content, description)
    if "dataset" in content:
        return Source(folder, {"training": read_cases(content, description)}, names)
    folders = folder / "imagesTr", folder / "labelsTr"
    ending = content.get("file_ending", "")
    images, labels = ([path for path in _images(part) if path.name.endswith(ending)] for part in folders)
    if ending and not images:
        raise ValueError(f'{description}: "file_ending" is {ending!r}, but {folders[0]} holds no such file.')
    items = pair_cases(images, labels, folders, count_channels(content))
    if content.get("numTraining", len(items)) != len(items):
        logger.warning('%s: "numTraining" is %s, found: %d cases.', description, content["numTraining"], len(items))
    return Source(folder, {"training": items}, names)


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
    dataset = str(dataset)  # a number on a command line is the name of a folder
    if dataset in EMBEDDED:
        return _from_json(prepare_embedded(dataset, task, demo_dir).absolute(), task)
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
