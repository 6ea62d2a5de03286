# SPDX-License-Identifier: Apache-2.0
"""Transforms that depend on the data set which an image is of, and so on its modality."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, Randomizable, RandomizableTrait, Transform

from .._options import look_up_option
from .augmentation import augmentation_transforms
from .intensity import PRESETS, intensity_transforms

__all__ = ["ByDataSet", "RandByDataSet", "augment_by_data_set", "scale_by_data_set"]

KEY = "data_set"  # of the name, in items of monai_crossd.data.load_datalist


def _of(transforms: Mapping[str, Any], data: Mapping) -> Any:
    name: Any = data.get(KEY)
    if name not in transforms:
        raise ValueError(f"the item is of the data set {name!r}; expected one of {list(transforms)}.")
    return transforms[name]


class ByDataSet(Transform):
    """Apply to an item the deterministic transforms of its data set, whose name stands in it as "data_set".

    Args:
        transforms: lists of dictionary transforms by name.

    Raises:
        ValueError: when a transform is random, which caches would keep; when an item is of another data set.

    Example:
        >>> from monai.transforms import ScaleIntensityRanged
        >>> transform = ByDataSet({"ct": [ScaleIntensityRanged("x", 0, 255, -1, 1)], "mr": []})
        >>> transform({"x": 255.0, "data_set": "mr"})["x"]
        255.0
    """

    def __init__(self, transforms: Mapping[str, Sequence[Transform]]) -> None:
        self.transforms = {name: list(of_set) for name, of_set in transforms.items()}
        for name, of_set in self.transforms.items():
            if drawn := [type(t).__name__ for t in of_set if isinstance(t, RandomizableTrait)]:
                raise ValueError(f"the transforms of {name!r} are random ({drawn[0]}); expected deterministic ones.")

    def __call__(self, data: Mapping[Any, Any]) -> Any:
        """Transform an item."""
        for transform in _of(self.transforms, data):
            data = transform(data)
        return data


class RandByDataSet(Randomizable, Transform):
    """Apply to an item the random transforms of its data set, whose name stands in it as "data_set".

    Args:
        transforms: lists of dictionary transforms by name.

    Raises:
        ValueError: when an item is of another data set.

    Example:
        >>> from monai.transforms import RandFlipd
        >>> import torch
        >>> transform = RandByDataSet({"us": [RandFlipd("x", prob=1.0, spatial_axis=0)], "ct": []})
        >>> transform({"x": torch.arange(2.0).view(1, 2, 1), "data_set": "us"})["x"].flatten().tolist()
        [1.0, 0.0]
    """

    def __init__(self, transforms: Mapping[str, Sequence[Transform]]) -> None:
        self.transforms = {name: Compose(list(of_set)) for name, of_set in transforms.items()}

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandByDataSet:
        """Seed the transforms of every data set; each gets a seed of its own."""
        super().set_random_state(seed, state)
        for of_set in self.transforms.values():
            of_set.set_random_state(int(self.R.randint(2**31 - 1)))
        return self

    def __call__(self, data: Mapping[Any, Any]) -> Any:
        """Transform an item."""
        return _of(self.transforms, data)(data)


def _modalities(modality: str | Sequence[str], heads: Mapping[str, int]) -> dict[str, str]:
    """Modality of each data set; one word is that of all."""
    words = [modality] * len(heads) if isinstance(modality, str) else list(modality)
    if len(words) != len(heads):
        raise ValueError(
            f"modality is {words} for the data sets {list(heads)}; expected one word, or one for each of them."
        )
    return dict(zip(heads, words, strict=True))


def _options(modality: str, intensity: Mapping[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(PRESETS[modality]).parameters)[1:] if modality in PRESETS else []
    return {name: value for name, value in intensity.items() if name in known}


def scale_by_data_set(
    modality: str | Sequence[str],
    intensity: Mapping[str, Any],
    heads: Mapping[str, int],
    keys: KeysCollection = "image",
    head: str | None = None,
) -> list[Transform]:
    """Intensities of one data set by :func:`intensity_transforms`, or of several, each by its modality.

    Args:
        modality: of the data set; of several one word, or one for each.
        intensity: options; of several data sets each gets those that its modality has.
        heads: of :func:`monai_crossd.data.load_heads`; empty for one data set.
        keys: of the images.
        head: name of the data set that all images belong to, as in inference; None where items say it.

    Returns:
        Transforms to be joined with others in one Compose.

    Raises:
        ValueError: when a modality is unknown or there are not as many as data sets, or no modality has an option.

    Example:
        >>> scaled = scale_by_data_set(["ct", "mr"], {"window": "lung"}, {"chest": 2, "brain": 4})
        >>> [type(t).__name__ for t in scaled[0].transforms["brain"]]
        ['ClipPercentilesd', 'NormalizeIntensityd']
    """
    if not heads:
        return list(intensity_transforms(str(modality), keys, **intensity))
    words = _modalities(modality, heads)
    used = {name for word in words.values() for name in _options(word, intensity)}
    for name, value in intensity.items():
        if name not in used:
            raise ValueError(f"{name}={value!r} is no option of {', '.join(dict.fromkeys(words.values()))}.")
    by_name = {name: intensity_transforms(word, keys, **_options(word, intensity)) for name, word in words.items()}
    return [ByDataSet(by_name)] if head is None else list(by_name[look_up_option(head, list(by_name))])


def augment_by_data_set(modality: str | Sequence[str], heads: Mapping[str, int]) -> list[Transform]:
    """Random transforms of 2D images of several data sets, of each :func:`augmentation_transforms` of its modality.

    Args:
        modality: one word, or one for each data set.
        heads: of :func:`monai_crossd.data.load_heads`; empty for one data set.

    Returns:
        Transforms to be joined with others in one Compose; none for one data set.

    Raises:
        ValueError: when a modality is unknown or there are not as many as data sets.

    Example:
        >>> len(augment_by_data_set(["ct", "us"], {"chest": 2, "breast": 3}))
        1
    """
    words = _modalities(modality, heads) if heads else {}
    return [RandByDataSet({name: augmentation_transforms(word, 2) for name, word in words.items()})] if words else []
