# SPDX-License-Identifier: Apache-2.0
"""One argument for any data set: the checked list of its items, the names of its labels, images to predict on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeGuard

from monai.config import PathLike

from .._options import look_up_option
from .checks import check_files, find_faults
from .data_sets import join_labels, join_lists, name_data_sets
from .labels import count_labels, number_labels
from .lists import group_channels
from .preparation import ON_ERROR, ItemList, Skipped
from .readers.formats import SUFFIXES, has_suffix
from .sources import Source, read_source
from .split import SECTIONS, complete_sections
from .walk import find_images

__all__ = ["DEMO_DIR", "list_images", "load_datalist", "load_heads", "load_labels"]

DEMO_DIR = Path("~/.cache/monai_crossd/demo").expanduser()
_LISTS = (".json", ".csv", ".npz")

logger = logging.getLogger(__name__)


def _readable(items: list[dict], source: Source, task: str, on_error: str, spatial_dims: int | None = None) -> ItemList:
    """The items whose files can be read, at least one; of the others the first raises, or all are logged."""
    faults: dict[int, str] = {}
    for index, error in find_faults(items, pairs=task == "segmentation", spatial_dims=spatial_dims):
        place = source.places.get(str(items[index]["image"]))
        message = f"{place}: {error}" if place else str(error)
        if on_error == "raise":
            raise type(error)(message) from error
        faults[index] = message
    if len(faults) == len(items):
        raise ValueError(f"{source.path}: none of {len(items)} items can be read; the first: {faults[0]}")
    if faults:
        lines = "\n".join(f"  {message}" for message in faults.values())
        logger.warning("%s: %d of %d items are left out:\n%s", source.path, len(faults), len(items), lines)
    skipped = [Skipped(items[index], message) for index, message in faults.items()]
    return ItemList((item for index, item in enumerate(items) if index not in faults), skipped)


def load_datalist(
    dataset: PathLike | Sequence[PathLike],
    section: str = "training",
    task: str = "segmentation",
    demo_dir: PathLike = DEMO_DIR,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    patient_pattern: str | None = None,
    on_error: str = "raise",
    nested: bool = False,
    spatial_dims: int | None = None,
) -> list[dict]:
    r"""Lists the items of a data set's section, after all their headers have been read.

    Args:
        dataset: one of

            - a word for embedded data, ``"demo"``, ``"phantom:ct"``, ...; see
              :func:`~monai_crossd.demo.prepare_embedded`;
            - a .json file in MONAI's decathlon form, paths relative to it;
            - a .csv file with the columns ``image`` and ``label`` and, where they are needed, ``patient`` and
              ``section`` (training, validation, test); paths relative to it. Labels are paths for segmentation; for
              classification all are numbers from 0, or names (1 to 5 too), then numbered in sorted order. Dates,
              fractions and identifiers are refused;
            - for classification an .npz file of MedMNIST, of any set with one class per image;
            - a folder with ``dataset.json``;
            - for segmentation a folder with ``imagesTr`` and ``labelsTr``, paired by file name (nnU-Net's ``_0000``
              is understood);
            - for classification a folder with ``train``, ``val`` and ``test``, each with a folder of images per class,
              or with the class folders alone;
            - for classification a list of these: the classes stand side by side, and an item has the name of its data
              set as "data_set" (:func:`load_heads`).
        section: ``"training"``, ``"validation"`` or ``"test"``.
        task: ``"segmentation"`` or ``"classification"``.
        demo_dir: where embedded data are kept.
        val_fraction: part of the training items held out for validation where the data set has no such section;
            in classification of each class. Where the items have a "patient" (in .json or .csv), or
            ``patient_pattern`` finds it, the split is by patient: no patient is on both sides, and the shares of the
            classes are as near as that allows.
        seed: of that split.
        patient_pattern: regular expression that finds the patient in an image's path, by its first group, like
            ``r"(P\d+)_"``.
        on_error: of files that are missing or cannot be read, or label maps on another grid than their image:
            ``"raise"``, or ``"skip-and-report"`` to leave them out and log a warning with each path and cause. The
            split is the same either way.
        nested: of class folders, whether each folder that holds files is a class, named by its path (RadImageNet's
            ``CT/abd/normal``); otherwise the first folder names the class.
        spatial_dims: 2 or 3, that every image must have; a volume of one slice is an image. None takes any.

    Returns:
        Dictionaries with "image" (absolute path, a list of them: channels, or ``FILE.npz#ARRAY/NUMBER``), "label"
        (path, or class number), and what else a list gives, like "patient". The list's ``skipped`` has pairs of item
        and cause of those left out.

    Raises:
        FileNotFoundError: When the data set or a file that it names does not exist.
        ValueError: When an argument is unknown, the data set cannot be understood or is too small to split, a patient
            or an image is in two sections, an image has two labels, cannot be read or has other dimensions, or a label
            map lies on another grid than its image.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     for number in range(10):
        ...         path = Path(folder, "cyst" if number % 2 else "healthy", f"{number}.png")
        ...         path.parent.mkdir(exist_ok=True)
        ...         Image.new("L", (8, 8), number).save(path)
        ...     items = load_datalist(folder, "training", "classification")
        ...     held_out = load_datalist(folder, "validation", "classification")
        >>> len(items), sorted((Path(item["image"]).parent.name, item["label"]) for item in held_out)
        (8, [('cyst', 0), ('healthy', 1)])
    """
    look_up_option(section, SECTIONS)
    look_up_option(on_error, ON_ERROR)
    if _is_list(dataset):
        labels = _labels_by_name(dataset, task, demo_dir, on_error, nested)
        load = partial(
            load_datalist,
            section=section,
            task=task,
            demo_dir=demo_dir,
            val_fraction=val_fraction,
            seed=seed,
            patient_pattern=patient_pattern,
            on_error=on_error,
            nested=nested,
            spatial_dims=spatial_dims,
        )
        return join_lists({name: load(part) for name, part in zip(labels, dataset, strict=True)}, labels)
    source = read_source(dataset, task, demo_dir, nested)
    if section == "training" and source.path.is_dir():  # of a list the labels are enough
        _check_classes(source, task)
    items = complete_sections(source.sections, task, val_fraction, seed, patient_pattern).get(section)
    if not items:
        raise ValueError(
            f'{source.path} gives no item for section "{section}" (it has {sorted(source.sections)}): to split '
            "off a validation section it needs at least two items of a class; a test section it must name itself."
        )
    return _readable(items, source, task, on_error, spatial_dims)


def _check_classes(source: Source, task: str) -> None:
    """Refuses a classification of one class, which no training can learn."""
    names = source.labels or {item["label"]: "" for item in source.sections.get("training", [])}
    if task == "classification" and len(names) == 1:
        name = next(f"{number} {name}".strip() for number, name in names.items())
        raise ValueError(
            f"{source.path} has one class ({name}); expected two or more: give each class a folder of images, or a "
            "label."
        )


def _number_labels(items: list[dict], source: Source, on_error: str) -> dict[int, str]:
    """Names the numbers in the label maps of ``items``."""
    found: dict[int, str] = {}
    for item in _readable(items, source, "segmentation", on_error):
        try:
            numbers, _ = count_labels(item["label"])
        except ValueError as error:
            if on_error == "raise":
                raise
            logger.warning("%s: left out: %s", source.path, error)
        else:
            found |= {int(number): str(item["label"]) for number in numbers}
    return number_labels(found, source.path)


def _is_list(dataset: PathLike | Sequence[PathLike]) -> TypeGuard[Sequence[PathLike]]:
    return isinstance(dataset, (list, tuple))


def _labels_by_name(
    datasets: Sequence[PathLike], task: str, demo_dir: PathLike, on_error: str, nested: bool
) -> dict[str, dict[int, str]]:
    if task != "classification":
        raise ValueError(f"{task} learns from one data set, but {list(map(str, datasets))} is a list: name one of it.")
    names = name_data_sets(datasets)
    return {name: load_labels(d, task, demo_dir, on_error, nested) for name, d in zip(names, datasets, strict=True)}


def load_heads(
    dataset: PathLike | Sequence[PathLike],
    demo_dir: PathLike = DEMO_DIR,
    on_error: str = "raise",
    nested: bool = False,
) -> dict[str, int]:
    """Heads that a classifier of several data sets needs: how many of its outputs, in order, belong to each.

    Args:
        dataset: as in :func:`load_datalist`.
        demo_dir: where embedded data are kept.
        on_error: as in :func:`load_datalist`.
        nested: as there.

    Returns:
        Number of classes by name of the data set; empty where ``dataset`` is no list.

    Example:
        >>> load_heads("demo")
        {}
    """
    if not _is_list(dataset):
        return {}
    labels = _labels_by_name(dataset, "classification", demo_dir, on_error, nested)
    return {name: len(of_set) for name, of_set in labels.items()}


def load_labels(
    dataset: PathLike | Sequence[PathLike],
    task: str = "segmentation",
    demo_dir: PathLike = DEMO_DIR,
    on_error: str = "raise",
    nested: bool = False,
) -> dict[int, str]:
    r"""Names of a data set's labels by number, 0 being the background in segmentation and the first class otherwise.

    Where a segmentation data set names none, its label maps are read and their numbers are the names; where a .csv
    or .npz file gives classes by numbers alone, they are "class 0", "class 1", ...

    Args:
        dataset: as in :func:`load_datalist`.
        task: ``"segmentation"`` or ``"classification"``.
        demo_dir: where embedded data are kept.
        on_error: as in :func:`load_datalist`, of label maps that have to be read.
        nested: as in :func:`load_datalist`.

    Returns:
        ``{number: name}`` in rising order.

    Raises:
        FileNotFoundError: When the data set does not exist.
        ValueError: When a classification data set does not name its labels, the numbers are not 0, 1, 2, ..., or a file
            that has to be read for them cannot be.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "list.csv").write_text("image,label\na.png,cyst\nb.png,healthy\n")
        ...     load_labels(f"{folder}/list.csv", "classification")
        {0: 'cyst', 1: 'healthy'}
    """
    look_up_option(on_error, ON_ERROR)
    if _is_list(dataset):
        return join_labels(_labels_by_name(dataset, task, demo_dir, on_error, nested))
    source = read_source(dataset, task, demo_dir, nested)
    if task == "segmentation" and not source.labels:
        items = [item for items in source.sections.values() for item in items]
        return _number_labels(items, source, on_error)
    _check_classes(source, task)
    if task == "segmentation" and len(source.labels) == 1:
        raise ValueError(f"{source.path} names one label, {source.labels}: name the structures too, from 1.")
    if list(source.labels) != list(range(len(source.labels))) or not source.labels:
        raise ValueError(
            f"{source.path} names the labels {source.labels}; expected all of 0, 1, 2, ... "
            'Write them in dataset.json as "labels": {"0": "background", "1": "liver", ...}.'
        )
    return source.labels


def list_images(
    dataset: PathLike,
    task: str = "segmentation",
    demo_dir: PathLike = DEMO_DIR,
    section: str = "validation",
    spatial_dims: int | None = None,
) -> list[dict]:
    """Lists images to predict on, after their headers have been read.

    Args:
        dataset: one of

            - an image file of any format, or the folder of one DICOM series;
            - a folder of such files and folders, at any depth; of a data set with ``imagesTs`` only that part. Images
              are told by their content, each is listed once, and nnU-Net's ``_0000, _0001`` are channels of one;
            - a .json, .csv or .npz file, or a word of :func:`~monai_crossd.data.load_datalist`: the images of
              ``section``.
        task: ``"segmentation"`` or ``"classification"``, of such a list.
        demo_dir: where embedded data are kept.
        section: of such a list.
        spatial_dims: 2 or 3, that every image must have; a volume of one slice is an image. None takes any.

    Returns:
        Dictionaries with "image", an absolute path or a list of them (channels).

    Raises:
        FileNotFoundError: When ``dataset`` does not exist.
        ValueError: When it holds no image, or a file cannot be read or has other dimensions.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (8, 8)).save(f"{folder}/a.png")
        ...     [Path(item["image"]).name for item in list_images(folder)]
        ['a.png']
    """
    path = Path(str(dataset)).expanduser().absolute()  # a number on a command line is the name of a folder
    if not path.exists() or has_suffix(path, _LISTS):
        items = load_datalist(str(dataset), section, task, demo_dir, spatial_dims=spatial_dims)
        return [{"image": item["image"]} for item in items]
    test = path / "imagesTs"
    found = [str(path)] if path.is_file() else group_channels(find_images(test if test.is_dir() else path))
    if not found:
        raise ValueError(
            f"{path} holds no image: give an image, a folder of images ({', '.join(SUFFIXES)}, DICOM series), "
            "a list (.json, .csv, .npz) or an embedded data set."
        )
    items = [{"image": name} for name in found]
    check_files(items, spatial_dims)
    return items
