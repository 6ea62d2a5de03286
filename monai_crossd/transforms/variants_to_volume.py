# SPDX-License-Identifier: Apache-2.0
"""A volume out of one 2D image: transformed variants of it along the depth."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Compose, MapTransform, Randomizable, RandomizableTrait, Transform
from monai.utils import MAX_SEED, convert_to_tensor
from torch import Tensor

from .pseudo3d import _check_depth, _check_spacing, volume_affine, with_grid

__all__ = ["RandVariantsToVolume", "RandVariantsToVolumed", "VariantsToVolume", "VariantsToVolumed"]


def _is_random(transform: Callable) -> bool:
    """Whether a transform draws numbers; to MONAI every Compose does."""
    if isinstance(transform, Compose):
        return any(map(_is_random, transform.transforms))
    return isinstance(transform, RandomizableTrait)


def _check_deterministic(transforms: Sequence[Callable]) -> tuple[Callable, ...]:
    if not transforms:
        raise ValueError("transforms is empty; expected one transform for each slice.")
    for transform in transforms:
        if _is_random(transform):
            raise ValueError(
                f"{type(transform).__name__} is random: use RandVariantsToVolume, which no cache takes for fixed."
            )
    return tuple(transforms)


def _stack(source: Tensor, variants: Sequence[NdarrayOrTensor], depth_spacing: float | None) -> Tensor:
    """Volume (C, H, W, D) of D variants; on the grid of the variants if they share one, else of their source."""
    images = [convert_to_tensor(variant, track_meta=get_track_meta()) for variant in variants]
    if len({image.shape for image in images}) != 1 or images[0].ndim != 3:
        raise ValueError(
            f"the variants have the shapes {[tuple(image.shape) for image in images]}; expected one (C, H, W). "
            "Resize or pad them in the transform."
        )
    affines = [volume_affine(image, depth_spacing) for image in images]
    shared = all(torch.allclose(affine, affines[0], rtol=0, atol=1e-6) for affine in affines)
    affine = affines[0] if shared else volume_affine(source, depth_spacing)
    return with_grid(torch.stack([image.as_subclass(torch.Tensor) for image in images], dim=-1), images[0], affine)


class VariantsToVolume(Transform):
    """Stack variants of one 2D image, one for each transform, along a new last axis: (C, H, W) to (C, H, W, D).

    Args:
        transforms: deterministic transforms of a 2D image; their results have one shape.
        depth_spacing: slice distance, mm; None keeps the slice thickness in the image's affine, 1 where it has none.

    Raises:
        ValueError: when there is no transform, one of them is random, or the variants differ in shape.

    Example:
        >>> from monai.transforms import Flip, Identity
        >>> VariantsToVolume([Identity(), Flip(0), Flip(1)])(torch.zeros(3, 32, 24)).shape
        torch.Size([3, 32, 24, 3])
    """

    def __init__(self, transforms: Sequence[Callable], depth_spacing: float | None = None) -> None:
        self.transforms = _check_deterministic(transforms)
        self.depth_spacing = _check_spacing(depth_spacing)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Make the variants of an image (C, H, W)."""
        image = convert_to_tensor(img, track_meta=get_track_meta())
        # a transform may write into what it gets
        return _stack(image, [transform(image.clone()) for transform in self.transforms], self.depth_spacing)


class RandVariantsToVolume(Randomizable, Transform):
    """Stack ``depth`` random variants of one 2D image along a new last axis: (C, H, W) to (C, H, W, depth).

    Args:
        transform: transform of a 2D image, called once for each slice; its results have one shape.
        depth: number of slices.
        depth_spacing: slice distance, mm; None keeps the slice thickness in the image's affine, 1 where it has none.

    Raises:
        ValueError: when an argument is out of range or the variants differ in shape.

    Example:
        >>> from monai.transforms import RandFlip
        >>> variants = RandVariantsToVolume(RandFlip(prob=0.5), 8).set_random_state(0)
        >>> variants(torch.zeros(3, 32, 24)).shape
        torch.Size([3, 32, 24, 8])
    """

    def __init__(self, transform: Callable, depth: int, depth_spacing: float | None = None) -> None:
        self.transform = transform
        self.depth = _check_depth("depth", depth)
        self.depth_spacing = _check_spacing(depth_spacing)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandVariantsToVolume:
        """Seed this transform and the one that makes the variants."""
        super().set_random_state(seed, state)
        _seed(self.transform, self.R)
        return self

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Make the variants of an image (C, H, W)."""
        image = convert_to_tensor(img, track_meta=get_track_meta())
        return _stack(image, [self.transform(image.clone()) for _ in range(self.depth)], self.depth_spacing)


def _seed(transform: Callable, state: np.random.RandomState) -> None:
    if isinstance(transform, Randomizable):
        transform.set_random_state(seed=int(state.randint(MAX_SEED, dtype="uint32")))


class _Variantsd(MapTransform):
    """Base: stacks the images of `keys` in dictionaries that transforms of the whole dictionary made."""

    def __init__(self, keys: KeysCollection, depth_spacing: float | None, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.depth_spacing = _check_spacing(depth_spacing)

    def _stack(self, data: Mapping[Hashable, Any], transforms: Sequence[Callable]) -> dict[Hashable, Any]:
        d = dict(data)
        images = {key: convert_to_tensor(d[key], track_meta=get_track_meta()) for key in self.key_iterator(d)}
        variants = [
            transform({**d, **{key: image.clone() for key, image in images.items()}}) for transform in transforms
        ]
        for key, image in images.items():
            d[key] = _stack(image, [variant[key] for variant in variants], self.depth_spacing)
        return d


class VariantsToVolumed(_Variantsd):
    """Dictionary version of :class:`VariantsToVolume`: its transforms take the dictionary.

    Args:
        keys: of the images to stack, with their label maps, so that both match; other entries stay as they are.
        transforms: deterministic dictionary transforms, one for each slice.
        depth_spacing: slice distance, mm.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> from monai.transforms import Flipd, Identityd
        >>> item = {"image": torch.zeros(1, 8, 8), "label": torch.zeros(1, 8, 8)}
        >>> keys = ("image", "label")
        >>> VariantsToVolumed(keys, [Identityd(keys), Flipd(keys, 0)])(item)["label"].shape
        torch.Size([1, 8, 8, 2])
    """

    def __init__(
        self,
        keys: KeysCollection,
        transforms: Sequence[Callable],
        depth_spacing: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, depth_spacing, allow_missing_keys)
        self.transforms = _check_deterministic(transforms)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the variants of the images of `keys`."""
        return self._stack(data, self.transforms)


class RandVariantsToVolumed(Randomizable, _Variantsd):
    """Dictionary version of :class:`RandVariantsToVolume`: its transform takes the dictionary.

    Args:
        keys: of the images to stack, with their label maps, so that both match; other entries stay as they are.
        transform: dictionary transform, called once for each slice.
        depth: number of slices.
        depth_spacing: slice distance, mm.
        allow_missing_keys: pass over keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable,
        depth: int,
        depth_spacing: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, depth_spacing, allow_missing_keys)
        self.transform = transform
        self.depth = _check_depth("depth", depth)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandVariantsToVolumed:
        """Seed this transform and the one that makes the variants."""
        super().set_random_state(seed, state)
        _seed(self.transform, self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the variants of the images of `keys`."""
        return self._stack(data, [self.transform] * self.depth)
