# SPDX-License-Identifier: Apache-2.0
"""A volume out of images: one repeated, the frames of a film, or variants of one along the depth."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import to_affine_nd
from monai.transforms import Compose, MapTransform, Randomizable, RandomizableTrait, Transform
from monai.utils import MAX_SEED, MetaKeys, TransformBackends, convert_to_tensor
from torch import Tensor

from .._options import look_up_option
from ._dictionary import MapArrayd

__all__ = [
    "FramesToVolume",
    "FramesToVolumed",
    "RandVariantsToVolume",
    "RandVariantsToVolumed",
    "RepeatToVolume",
    "RepeatToVolumed",
    "VariantsToVolume",
    "VariantsToVolumed",
    "volume_affine",
    "with_grid",
]

_MODES = ("uniform", "center", "start")
_PADDINGS = ("replicate", "zeros", "circular")


def volume_affine(image: Tensor, depth_spacing: float | None, order: Sequence[int] = (0, 1, 2, 3)) -> Tensor:
    """Affine (4, 4) of a 2D image or a volume, its third column, the normal of the plane, of a given length.

    Args:
        image: the image; without meta its affine is the identity.
        depth_spacing: length of the third column, mm; None keeps that of the image, or 1 where it has none.
        order: of the image's columns in the result.

    Returns:
        The affine in float64, on the CPU.
    """
    affine = torch.as_tensor(to_affine_nd(3, image.affine)) if isinstance(image, MetaTensor) else torch.eye(4)
    affine = affine.to("cpu", torch.float64)[:, list(order)]
    if depth_spacing is not None:
        affine[:3, 2] *= depth_spacing / affine[:3, 2].norm()
    return affine


def with_grid(array: Tensor, source: Tensor, affine: Tensor) -> Tensor:
    """`array` with the meta of `source` on a grid of its own.

    What was done to `source` is not in ``applied_operations``: it cannot be undone on another grid.

    Args:
        array: plain tensor (C, ...).
        source: the image it was made of.
        affine: affine (4, 4) of `array`; also its original one, for SaveImaged has no other grid to return to.

    Returns:
        A MetaTensor if `source` is one, else `array`.
    """
    if not isinstance(source, MetaTensor):
        return array
    meta = copy.deepcopy(source.meta)
    meta[MetaKeys.AFFINE] = affine
    meta[MetaKeys.ORIGINAL_AFFINE] = affine.clone()
    meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(array.shape[1:])
    return MetaTensor(array, meta=meta)


def _check_depth(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1.")
    return value


def _check_spacing(depth_spacing: float | None) -> float | None:
    if depth_spacing is not None and not depth_spacing > 0:
        raise ValueError(f"depth_spacing is {depth_spacing}; expected a length in mm above 0, or None.")
    return depth_spacing


class RepeatToVolume(Transform):
    """Stack one 2D image along a new last spatial axis: (C, H, W) to (C, H, W, depth).

    Args:
        depth: number of slices.
        depth_spacing: slice distance, mm; None keeps the slice thickness in the image's affine, 1 where it has none.

    Raises:
        ValueError: when an argument is out of range or the image is not (C, H, W).

    Example:
        >>> RepeatToVolume(16)(torch.zeros(3, 32, 24)).shape
        torch.Size([3, 32, 24, 16])
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, depth: int, depth_spacing: float | None = None) -> None:
        self.depth = _check_depth("depth", depth)
        self.depth_spacing = _check_spacing(depth_spacing)

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Repeat an image (C, H, W)."""
        image = convert_to_tensor(img, track_meta=get_track_meta())
        if image.ndim != 3:
            raise ValueError(f"the image has the shape {tuple(image.shape)}; expected (C, H, W).")
        array = image.as_subclass(torch.Tensor)
        return with_grid(array[..., None].repeat(1, 1, 1, self.depth), image, volume_affine(image, self.depth_spacing))


class FramesToVolume(Transform):
    """Make the frames of a film or of a sequence of images the depth of a volume, (C, H, W, frames).

    The number of frames T becomes n by one of three modes, each the same at every call. Frame k of the volume is

    - ``"uniform"``: frame floor((k + 1/2) T / n), the film at another rate: frames are left out, or shown twice;
    - ``"center"``: frame k + floor((T - n) / 2), the middle of the film;
    - ``"start"``: frame k, the film from its first frame on.

    The last two go beyond the ends of a film that is too short, by ``padding``. The affine follows the frames.

    Args:
        num_frames: n; None keeps all.
        frame_dim: axis of the frames: -1 for (C, H, W, T), as multi-frame DICOM is read; 0 for (T, C, H, W). In
            (T, H, W), frames in the place of channels, it is 0 too and the volume has one channel.
        mode: one of the three.
        padding: beyond the ends ``"replicate"`` the last frame, ``"zeros"``, or ``"circular"``, from the other end, as
            a beating heart does.
        depth_spacing: frame distance before resampling, mm; None keeps that in the affine, 1 where it has none.

    Raises:
        ValueError: when an argument is unknown or out of range, or the image has not three or four axes.

    Example:
        >>> film = torch.arange(30.0).expand(3, 32, 24, 30)
        >>> FramesToVolume(5)(film)[0, 0, 0].tolist()
        [3.0, 9.0, 15.0, 21.0, 27.0]
        >>> FramesToVolume(5, mode="center")(film)[0, 0, 0].tolist()
        [12.0, 13.0, 14.0, 15.0, 16.0]
        >>> FramesToVolume(frame_dim=0)(torch.zeros(30, 32, 24)).shape
        torch.Size([1, 32, 24, 30])
    """

    backend = (TransformBackends.TORCH,)

    def __init__(
        self,
        num_frames: int | None = None,
        frame_dim: int = -1,
        mode: str = "uniform",
        padding: str = "replicate",
        depth_spacing: float | None = None,
    ) -> None:
        self.num_frames = None if num_frames is None else _check_depth("num_frames", num_frames)
        self.frame_dim = frame_dim
        self.mode = look_up_option(mode, _MODES)
        self.padding = look_up_option(padding, _PADDINGS)
        self.depth_spacing = _check_spacing(depth_spacing)

    def _index(self, frames: int) -> tuple[Tensor, float, float]:
        """Frame of each slice, which may lie outside the film; first frame and distance of frames on the time axis."""
        n = self.num_frames or frames
        k = torch.arange(n)
        if self.mode == "uniform":
            rate = frames / n
            return (2 * k + 1) * frames // (2 * n), rate / 2 - 0.5, rate
        first = (frames - n) // 2 if self.mode == "center" else 0
        return k + first, first, 1.0

    def _film(self, img: NdarrayOrTensor | Sequence[NdarrayOrTensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The film (C, H, W, T), an image with its meta, and the affine with the frames on the third axis."""
        if isinstance(img, (list, tuple)):
            frames = [convert_to_tensor(frame, track_meta=get_track_meta()) for frame in img]
            shapes = [tuple(frame.shape) for frame in frames]
            if len(set(shapes)) != 1 or len(shapes[0]) != 3:
                raise ValueError(f"the frames have the shapes {shapes}; expected one (C, H, W).")
            film = torch.stack([frame.as_subclass(torch.Tensor) for frame in frames], dim=-1)
            return film, frames[0], volume_affine(frames[0], self.depth_spacing)
        image = convert_to_tensor(img, track_meta=get_track_meta())
        film = image.as_subclass(torch.Tensor)
        axis = self.frame_dim % image.ndim
        if not (image.ndim == 4 or (image.ndim == 3 and axis == 0)):
            raise ValueError(
                f"the film has the shape {tuple(image.shape)} and frame_dim={self.frame_dim}; expected four axes, "
                "or (T, H, W) with frame_dim=0."
            )
        order = [0, 1, 2, 3]
        if axis > 0:  # one of the image's own axes, which has its column in the affine
            order.insert(2, order.pop(axis - 1))
        film = film.movedim(axis, -1)
        return film[None] if film.ndim == 3 else film, image, volume_affine(image, self.depth_spacing, order)

    def __call__(self, img: NdarrayOrTensor | Sequence[NdarrayOrTensor]) -> Tensor:
        """Arrange a film, or a list of frames (C, H, W) of the same size."""
        array, image, affine = self._film(img)
        count = array.shape[-1]
        index, first, rate = self._index(count)
        inside = index.remainder(count) if self.padding == "circular" else index.clamp(0, count - 1)
        volume = array.index_select(-1, inside.to(array.device))
        if self.padding == "zeros":
            volume = volume * (index == inside).to(array)
        affine[:3, 3] += first * affine[:3, 2]
        affine[:3, 2] *= rate
        return with_grid(volume, image, affine)


class RepeatToVolumed(MapArrayd):
    """Dictionary version of :class:`RepeatToVolume`, for images and their label maps.

    Args:
        keys: of the images.
        depth: number of slices.
        depth_spacing: slice distance, mm.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> RepeatToVolumed("image", depth=3)({"image": torch.zeros(1, 5, 5)})["image"].shape
        torch.Size([1, 5, 5, 3])
    """

    def __init__(
        self, keys: KeysCollection, depth: int, depth_spacing: float | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, RepeatToVolume(depth, depth_spacing), allow_missing_keys)


class FramesToVolumed(MapArrayd):
    """Dictionary version of :class:`FramesToVolume`; it never mixes frames, so label maps may be among the keys.

    Args:
        keys: of the films.
        num_frames: frames of the volume; None keeps all.
        frame_dim: axis of the frames.
        mode: ``"uniform"``, ``"center"`` or ``"start"``.
        padding: ``"replicate"``, ``"zeros"`` or ``"circular"``.
        depth_spacing: frame distance, mm.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> FramesToVolumed("film", num_frames=4)({"film": torch.zeros(1, 5, 5, 8)})["film"].shape
        torch.Size([1, 5, 5, 4])
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_frames: int | None = None,
        frame_dim: int = -1,
        mode: str = "uniform",
        padding: str = "replicate",
        depth_spacing: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        transform = FramesToVolume(num_frames, frame_dim, mode, padding, depth_spacing)
        super().__init__(keys, transform, allow_missing_keys)


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

    Example:
        >>> from monai.transforms import RandFlipd
        >>> transform = RandVariantsToVolumed(["image"], RandFlipd("image", prob=0.5), depth=3)
        >>> transform.set_random_state(0)({"image": torch.zeros(1, 5, 5)})["image"].shape
        torch.Size([1, 5, 5, 3])
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
