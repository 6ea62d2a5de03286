# SPDX-License-Identifier: Apache-2.0
"""Several data sets of images as one: classes side by side, drawn in equal parts, changed at random in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.config import PathLike
from monai.data import Dataset, DistributedWeightedRandomSampler
from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

from ..transforms import RandByDataSet
from .preparation import ItemList

__all__ = ["ImageSets", "balanced_sampler", "join_labels", "join_lists", "name_data_sets"]


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


class ImageSets(Dataset):
    """Images of several data sets, prepared once and kept as one tensor; :func:`build_dataset` makes it.

    A batch is made at once (``__getitems__``): up to ``together`` of its images that are of one data set go through its
    random transforms side by side, as channels of one image. They are moved and shaded alike and get noise of their
    own. For small images this takes a tenth of the time of MONAI's transforms image by image.

    Args:
        prepared: data set of items with "image", "label" and "data_set", their deterministic transforms applied; all
            images have one size.
        random: transforms of "image".
        together: images that are changed alike.

    Raises:
        ValueError: When ``together`` is out of range.
        PreparationError: When a file cannot be read or transformed.

    Example:
        >>> items = [{"image": torch.full((1, 4, 4), n), "label": n, "data_set": "a"} for n in range(3)]
        >>> data = ImageSets(Dataset(items), RandByDataSet({"a": []}))
        >>> [item["label"] for item in data.__getitems__([2, 0])]
        [2, 0]
    """

    def __init__(self, prepared: Dataset, random: RandByDataSet, together: int = 8) -> None:
        if together < 1:
            raise ValueError(f"together is {together}; expected at least 1.")
        kept = [(item["image"], int(item["label"])) for item in (prepared[i] for i in range(len(prepared)))]
        self.images = torch.stack([torch.as_tensor(image).as_subclass(Tensor) for image, _ in kept])
        self.labels = [label for _, label in kept]
        self.together = together
        self.random = random
        # a list: EpochSeed seeds what is in it, ResumeHandler compares it
        super().__init__(prepared.data, [prepared.transform, random])

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """Items of a batch, which torch's loaders ask for at once."""
        of_set: dict[str, list[int]] = {}
        for place, index in enumerate(indices):
            of_set.setdefault(self.data[index]["data_set"], []).append(place)
        images: dict[int, Tensor] = {}
        for name, places in of_set.items():
            for start in range(0, len(places), self.together):
                group = places[start : start + self.together]
                chosen = self.images[[indices[place] for place in group]]
                changed = self.random({"image": chosen.flatten(0, 1), "data_set": name})["image"]
                images |= dict(zip(group, changed.as_subclass(Tensor).view_as(chosen), strict=True))
        return [{"image": images[place], "label": self.labels[index]} for place, index in enumerate(indices)]

    def __getitem__(self, index: int) -> dict:
        """One item."""
        return self.__getitems__([index])[0]


def balanced_sampler(data: Dataset) -> Sampler:
    """Draws, with replacement, as many images of each data set, and of each class of it, as of the others.

    An epoch is as long as ``data``.

    Args:
        data: its items have "label", a class number, and "data_set" where there are several.

    Returns:
        torch's weighted sampler, or MONAI's for several processes.

    Example:
        >>> items = [{"image": "", "label": label, "data_set": name} for label, name in [(0, "a"), (0, "a"), (1, "b")]]
        >>> balanced_sampler(Dataset(items)).weights.tolist()
        [0.25, 0.25, 0.5]
    """
    kinds = [(item.get("data_set"), item["label"]) for item in data.data]
    classes = Counter(kinds)
    per_set = Counter(name for name, _ in classes)
    weights = [1 / (len(per_set) * per_set[kind[0]] * classes[kind]) for kind in kinds]
    if idist.get_world_size() > 1:
        return DistributedWeightedRandomSampler(
            data, weights, num_replicas=idist.get_world_size(), rank=idist.get_rank(), generator=torch.Generator()
        )
    return WeightedRandomSampler(weights, len(data), generator=torch.Generator())
