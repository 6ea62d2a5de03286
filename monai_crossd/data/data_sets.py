# SPDX-License-Identifier: Apache-2.0
"""Several data sets of images as one: the classes side by side, each data set's in a row, which are its head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from .skip import ItemList

__all__ = ["join_labels", "join_lists", "name_data_sets"]


def name_data_sets(datasets: Sequence[PathLike]) -> list[str]:
    """Short names of data sets: of a file its name without the ending, of a folder its name, else the word.

    Args:
        datasets: paths, or words for embedded data.

    Raises:
        ValueError: When there is none, or two have the same name.

    >>> name_data_sets(["/data/breastmnist.npz", "/data/fractures/", "phantom:us:2d"])
    ['breastmnist', 'fractures', 'phantom:us:2d']
    """
    names = []
    for dataset in datasets:
        path = Path(str(dataset)).expanduser()
        names.append(path.stem if path.is_file() or path.suffix in (".npz", ".csv", ".json") else path.name)
    twice = {name: [str(d) for d, n in zip(datasets, names, strict=True) if n == name] for name in names}
    for name, places in twice.items():
        if len(places) > 1 or not name:
            raise ValueError(f"the data sets {places} have one name, {name!r}: rename or link all but one of them.")
    if not names:
        raise ValueError("the list of data sets is empty: name at least one.")
    return names


def join_lists(parts: dict[str, list[dict]], labels: dict[str, dict[int, str]]) -> ItemList:
    """Items of several data sets, their class numbers moved behind those of the data sets before.

    Args:
        parts: items by name of the data set.
        labels: names of the classes of each.

    Returns:
        Items with the name of their data set as "data_set".
    """
    items: list[dict] = []
    skipped: list[Any] = []
    start = 0
    for name, part in parts.items():
        items += [{**item, "label": item["label"] + start, "data_set": name} for item in part]
        skipped += getattr(part, "skipped", [])
        start += len(labels[name])
    return ItemList(items, skipped)


def join_labels(labels: dict[str, dict[int, str]]) -> dict[int, str]:
    """Names of the classes of several data sets, "breastmnist/malignant", in the order of their numbers.

    Args:
        labels: names of the classes by data set.

    >>> join_labels({"chest": {0: "normal", 1: "pneumonia"}, "breast": {0: "malignant", 1: "benign"}})
    {0: 'chest/normal', 1: 'chest/pneumonia', 2: 'breast/malignant', 3: 'breast/benign'}
    """
    return dict(enumerate(f"{name}/{label}" for name, of_set in labels.items() for label in of_set.values()))
