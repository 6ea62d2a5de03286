# SPDX-License-Identifier: Apache-2.0
"""One argument for any data set: the list of its items, split and checked, and the names of its labels."""

from __future__ import annotations

from pathlib import Path

from monai.config import PathLike
from monai.data import partition_dataset
from monai.transforms import LoadImage
from monai.utils import look_up_option

from .headers import check_files, check_pairs
from .sources import Source, read_source

__all__ = ["DEMO_DIR", "load_datalist", "load_labels"]

DEMO_DIR = Path("~/.cache/monai_crossd/demo").expanduser()
_SECTIONS = ("training", "validation")


def _split(source: Source, task: str, val_fraction: float, seed: int) -> dict[str, list[dict]]:
    """Splits the training items; in classification each class by itself, so that both parts hold its share."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}; expected a number between 0 and 1, both excluded.")
    groups: dict[int, list[dict]] = {}
    for item in source.sections["training"]:
        groups.setdefault(item["label"] if task == "classification" else 0, []).append(item)
    parts: dict[str, list[dict]] = {section: [] for section in _SECTIONS}
    for _, items in sorted(groups.items()):
        held_out = min(max(1, round(len(items) * val_fraction)), len(items) - 1)
        ratios = [len(items) - held_out, held_out]
        for section, part in zip(_SECTIONS, partition_dataset(items, ratios, shuffle=True, seed=seed), strict=True):
            parts[section] += part
    return parts


def load_datalist(
    dataset: PathLike,
    section: str = "training",
    task: str = "segmentation",
    demo_dir: PathLike = DEMO_DIR,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> list[dict]:
    """Lists the items of a data set's section, after all their headers have been read.

    Args:
        dataset: one of

            - the word ``"demo"``: the embedded chest CT of one patient (:func:`~monai_crossd.data.prepare_demo`);
            - a .json file in MONAI's decathlon form, paths relative to it;
            - a folder with such a ``dataset.json``;
            - for segmentation a folder with ``imagesTr`` and ``labelsTr``, paired by file name (nnU-Net's ``_0000``
              is understood);
            - for classification a folder with ``train`` and ``val``, each with a folder of images per class, or with
              the class folders alone.
        section: ``"training"`` or ``"validation"``.
        task: ``"segmentation"`` or ``"classification"``.
        demo_dir: where the demo data are kept.
        val_fraction: part of the training items held out for validation where the data set has no such section;
            in classification of each class. Items are split one by one: where a patient has several, write the
            sections into dataset.json.
        seed: of that split.

    Returns:
        Dictionaries with "image" (absolute path, or a list of them: channels) and "label" (path, or class number).

    Raises:
        FileNotFoundError: When the data set or a file that it names does not exist.
        ValueError: When an argument is unknown, the data set cannot be understood or is too small to split, an image
            cannot be read, or a label map has another shape than its image.
    """
    look_up_option(section, _SECTIONS)
    source = read_source(dataset, task, demo_dir)
    sections = source.sections
    if sections.get("training") and "validation" not in sections:
        sections = _split(source, task, val_fraction, seed)
    items = sections.get(section)
    if not items:
        raise ValueError(
            f'{source.path} gives no item for section "{section}": it needs at least two items, or filled lists '
            f'"training" and "validation".'
        )
    (check_pairs if task == "segmentation" else check_files)(items)
    return items


def _number_labels(items: list[dict]) -> dict[int, str]:
    """Names 0 to the highest number in the label maps of ``items``."""
    check_pairs(items)
    read = LoadImage(image_only=True)
    highest = max(int(read(item["label"]).max()) for item in items)
    return {0: "background", **{number: f"label {number}" for number in range(1, highest + 1)}}


def load_labels(dataset: PathLike, task: str = "segmentation", demo_dir: PathLike = DEMO_DIR) -> dict[int, str]:
    """Names of a data set's labels by number, 0 being the background in segmentation and the first class otherwise.

    Where a segmentation data set names none, its label maps are read and their numbers are the names.

    Args:
        dataset: as in :func:`load_datalist`.
        task: ``"segmentation"`` or ``"classification"``.
        demo_dir: where the demo data are kept.

    Returns:
        ``{number: name}`` in rising order.

    Raises:
        FileNotFoundError: When the data set does not exist.
        ValueError: When a classification data set does not name its labels, the numbers are not 0, 1, 2, ..., or a file
            that has to be read for them cannot be.
    """
    source = read_source(dataset, task, demo_dir)
    if task == "segmentation" and not source.labels:
        return _number_labels([item for items in source.sections.values() for item in items])
    if list(source.labels) != list(range(len(source.labels))) or not source.labels:
        raise ValueError(
            f"{source.path} names the labels {source.labels}; expected all of 0, 1, 2, ... "
            'Write them in dataset.json as "labels": {"0": "background", "1": "liver", ...}.'
        )
    return source.labels
