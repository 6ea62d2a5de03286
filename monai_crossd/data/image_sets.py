# SPDX-License-Identifier: Apache-2.0
"""Small images of several data sets in memory, drawn in equal parts and changed at random in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import ignite.distributed as idist
import torch
from monai.config import PathLike
from monai.data import Dataset, DistributedWeightedRandomSampler
from monai.transforms import Compose, Transform
from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

from .cache import build_dataset

__all__ = ["ImageSets", "balanced_sampler"]


class ImageSets(Dataset):
    """Images of several data sets, prepared once and kept as one tensor.

    A batch is made at once (``__getitems__``): up to ``together`` of its images that are of one data set go through the
    random transforms side by side, as channels of one image. They are moved and shaded alike and get noise of their
    own. For small images this takes a tenth of the time of MONAI's transforms image by image.

    Args:
        data: items of :func:`load_datalist` with "image", "label" and "data_set".
        transform: deterministic transforms of the items; all images come out in one size.
        random: random transforms of "image" by name of the data set.
        cache: "ram": files are read when it is built; "disk": what is prepared is kept in files of ``cache_dir`` too.
        cache_dir: for "disk".
        on_error: as in :func:`build_dataset`.
        together: images that are changed alike.

    Raises:
        ValueError: When a data set has no random transforms, or ``cache`` or ``together`` is out of range.
        PreparationError: When a file cannot be read or transformed.

    Example:
        >>> items = [{"image": torch.full((1, 4, 4), n), "label": n, "data_set": "a"} for n in range(3)]
        >>> data = ImageSets(items, Compose([]), {"a": []})
        >>> [item["label"] for item in data.__getitems__([2, 0])]
        [2, 0]
    """

    def __init__(
        self,
        data: Sequence[Mapping],
        transform: Compose,
        random: Mapping[str, Sequence[Transform]],
        cache: str = "ram",
        cache_dir: PathLike | None = None,
        on_error: str = "raise",
        together: int = 8,
    ) -> None:
        if cache not in ("ram", "disk"):
            raise ValueError(f'cache is {cache!r}; images of several data sets are kept by "ram" or "disk".')
        if together < 1:
            raise ValueError(f"together is {together}; expected at least 1.")
        if missing := {str(item["data_set"]) for item in data} - set(random):
            raise ValueError(f"there are no random transforms for {sorted(missing)} (for {sorted(random)} there are).")
        prepared = build_dataset(data, transform, "none" if cache == "ram" else "disk", cache_dir, on_error=on_error)
        kept = [(item["image"], int(item["label"])) for item in (prepared[i] for i in range(len(prepared)))]
        self.images = torch.stack([torch.as_tensor(image).as_subclass(Tensor) for image, _ in kept])
        self.labels = [label for _, label in kept]
        self.skipped = prepared.skipped
        self.together = together
        self._random = {name: Compose(list(transforms)) for name, transforms in random.items()}
        # a list: EpochSeed seeds what is in it, ResumeHandler compares it
        super().__init__(prepared.data, [transform, *self._random.values()])

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
                changed = self._random[name]({"image": chosen.flatten(0, 1)})["image"].as_subclass(Tensor)
                images |= dict(zip(group, changed.view_as(chosen), strict=True))
        return [{"image": images[place], "label": self.labels[index]} for place, index in enumerate(indices)]

    def __getitem__(self, index: int) -> dict:
        """One item."""
        return self.__getitems__([index])[0]


def balanced_sampler(data: Dataset) -> Sampler:
    """Draws, with replacement, as many images of each data set and of each class of it; an epoch is as long as ``data``.

    Args:
        data: its items have "label", a class number, and "data_set".

    Returns:
        torch's weighted sampler, or MONAI's for several processes.

    Example:
        >>> items = [{"image": torch.zeros(1, 2, 2), "label": n, "data_set": s} for n, s in [(0, "a"), (0, "a"), (1, "b")]]
        >>> balanced_sampler(ImageSets(items, Compose([]), {"a": [], "b": []})).weights.tolist()
        [0.25, 0.25, 0.5]
    """  # noqa: E501
    classes = Counter((item["data_set"], item["label"]) for item in data.data)
    per_set = Counter(name for name, _ in classes)
    weights = [
        1 / (len(per_set) * per_set[item["data_set"]] * classes[item["data_set"], item["label"]]) for item in data.data
    ]
    if idist.get_world_size() > 1:
        return DistributedWeightedRandomSampler(
            data, weights, num_replicas=idist.get_world_size(), rank=idist.get_rank(), generator=torch.Generator()
        )
    return WeightedRandomSampler(weights, len(data), generator=torch.Generator())
