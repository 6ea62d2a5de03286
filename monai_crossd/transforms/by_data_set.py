# SPDX-License-Identifier: Apache-2.0
"""Transforms that depend on the data set which an item is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.transforms import RandomizableTrait, Transform

__all__ = ["ByDataSet"]


class ByDataSet(Transform):
    """Apply to an item the deterministic transforms of its data set, whose name stands in it.

    Args:
        transforms: lists of dictionary transforms by name.
        key: of the name.

    Raises:
        ValueError: when a transform is random, which caches would keep, or an item is of another data set.

    Example:
        >>> from monai.transforms import ScaleIntensityRanged
        >>> transform = ByDataSet({"ct": [ScaleIntensityRanged("x", 0, 255, -1, 1)], "mr": []})
        >>> transform({"x": 255.0, "data_set": "mr"})["x"]
        255.0
    """

    def __init__(self, transforms: Mapping[str, Sequence[Transform]], key: str = "data_set") -> None:
        self.transforms = {name: list(of_set) for name, of_set in transforms.items()}
        self.key = key
        for name, of_set in self.transforms.items():
            if drawn := [type(t).__name__ for t in of_set if isinstance(t, RandomizableTrait)]:
                raise ValueError(f"the transforms of {name!r} are random ({drawn[0]}); expected deterministic ones.")

    def __call__(self, data: Mapping[Any, Any]) -> Any:
        """Transform an item."""
        if (name := data.get(self.key)) not in self.transforms:
            raise ValueError(f"the item is of the data set {name!r}; expected one of {list(self.transforms)}.")
        for transform in self.transforms[name]:
            data = transform(data)
        return data
