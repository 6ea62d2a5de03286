# SPDX-License-Identifier: Apache-2.0
"""All items of a data set in memory, and which of them are trained on and tested on: the same for every contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureTyped, SpatialPadd
from monai.utils import ensure_tuple, optional_import
from torch import Tensor

from ..data import load_datalist, load_labels
from ..data.sources import SECTIONS, read_source
from ..data.split import find_patients
from ..demo import EMBEDDED, prepare_embedded, prepare_phantoms
from ..transforms import intensity_transforms, load_transforms
from .paper import paper_transforms

StratifiedKFold, _ = optional_import("sklearn.model_selection", name="StratifiedKFold")
StratifiedGroupKFold, _ = optional_import("sklearn.model_selection", name="StratifiedGroupKFold")

__all__ = ["ALL", "DataSpec", "Items", "Volumes", "draw_cases", "load_items", "load_volumes", "make_folds"]

ALL = "all"
FOLDS = ("official", "swap")
THREADS = 4
T = TypeVar("T")
_kept: dict[str, tuple[str, Any]] = {}


class DataSpec(NamedTuple):
    """A data set and how it is read.

    Attributes:
        name: in tables.
        dataset: what :func:`monai_crossd.data.load_datalist` takes; "phantom": those of `phantom`.
        modality: "ct", "mr" or "us", or the paper's word where `paper` is set.
        spatial_size: pixels or voxels that every item is resized to.
        channels: of its images; None: those of the study.
        folds: "official", "swap" or a number, see :func:`make_folds`.
        train_per_class: training items of each class that are drawn, by seed; None: all.
        sections: of a source, what is trained on.
        intensity: options of :func:`monai_crossd.transforms.intensity_transforms`.
        patient_pattern: of :func:`monai_crossd.data.load_datalist`.
        phantom: options of :func:`monai_crossd.demo.prepare_phantoms`, such as subjects, size and seed.
        paper: name in the paper's Tables IV and V, whose preset transforms are taken; None: those of the modality.
        pixdim: of volumes with label maps, voxel size in mm that they are resampled to; None: their own.
        val_fraction: part of the patients that is held out where the data set has no such section.
    """

    name: str
    dataset: str
    modality: str
    spatial_size: Sequence[int]
    channels: int | None = None
    folds: str | int = "official"
    train_per_class: int | None = None
    sections: Sequence[str] = ("training",)
    intensity: Mapping[str, Any] = {}
    patient_pattern: str | None = None
    phantom: Mapping[str, Any] = {}
    paper: str | None = None
    pixdim: Sequence[float] | float | None = None
    val_fraction: float = 0.2

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.spatial_size)


class Items(NamedTuple):
    """Images with their classes; `sections`, `patients` (or none) and `names` by item."""

    images: Tensor
    labels: Tensor
    sections: list[str]
    patients: list[str]
    names: Sequence[str] = ()


class Volumes(NamedTuple):
    """Volumes (C, H, W, D) with label maps (H, W, D), each of its own size, and their voxel sizes in mm.

    `structures` are names by number in the label maps, background included.
    """

    images: list[Tensor]
    labels: list[Tensor]
    spacings: list[tuple[float, ...]]
    sections: list[str]
    patients: list[str]
    names: list[str]
    structures: dict[int, str]


def _transforms(spec: DataSpec, channels: int) -> Compose:
    if spec.paper is not None:
        steps = paper_transforms(spec.paper)
    else:
        steps = [
            *load_transforms(spec.spatial_dims, channels=channels, spatial_size=spec.spatial_size),
            *intensity_transforms(spec.modality, **spec.intensity),
        ]
    return Compose([*steps, EnsureTyped("image", dtype=torch.float32, track_meta=False)])


def locate(spec: DataSpec, demo_dir: str, task: str = "classification") -> str:
    """The path of a data set; what is embedded and phantoms are written first, if they are not there."""
    if spec.dataset in EMBEDDED:
        return str(prepare_embedded(spec.dataset, task, demo_dir))
    if spec.dataset != "phantom":
        return spec.dataset
    folder = Path(demo_dir, spec.name.replace(" ", "_"))
    file_format = "png" if spec.spatial_dims == 2 else "nifti"
    return str(prepare_phantoms(spec.modality, folder, task, file_format=file_format, **spec.phantom))


def _list(spec: DataSpec, task: str, demo_dir: str) -> tuple[list[dict], list[str]]:
    """Items of all sections, and the section of each."""
    dataset = locate(spec, demo_dir, task)
    has_test = bool(read_source(dataset, task, demo_dir).sections.get("test"))
    items: list[dict] = []
    names: list[str] = []
    for section in SECTIONS if has_test else SECTIONS[:2]:
        found = load_datalist(
            dataset,
            section,
            task,
            demo_dir,
            val_fraction=spec.val_fraction,
            patient_pattern=spec.patient_pattern,
            spatial_dims=spec.spatial_dims,
        )
        items += found
        names += [section] * len(found)
    return items, names


def _read(spec: DataSpec, channels: int, demo_dir: str) -> Items:
    items, sections = _list(spec, "classification", demo_dir)
    channels = spec.channels or channels
    prepared = CacheDataset(items, _transforms(spec, channels), num_workers=THREADS, progress=False)
    images = torch.stack([item["image"] for item in prepared])
    labels = torch.tensor([int(item["label"]) for item in items])
    if images.shape[1] != channels:
        raise ValueError(f"{spec.name} has {images.shape[1]} channels; the study's networks read {channels}.")
    return Items(images, labels, sections, find_patients(items, spec.patient_pattern), _names(items))


def _names(items: Sequence[dict]) -> list[str]:
    """A name of each item for a file of results: without the folders of this computer where that tells them apart."""
    paths = [Path(ensure_tuple(item["image"])[0]).as_posix() for item in items]
    short = [p.rpartition(".npz#")[2] if ".npz#" in p else p.rpartition("/")[2] for p in paths]
    return short if len(set(short)) == len(short) else paths


def _read_volumes(spec: DataSpec, channels: int, demo_dir: str) -> Volumes:
    items, sections = _list(spec, "segmentation", demo_dir)
    structures = load_labels(locate(spec, demo_dir, "segmentation"), task="segmentation", demo_dir=demo_dir)
    steps = Compose(
        [
            *load_transforms(
                3,
                label_key="label",
                channels=spec.channels or channels,
                pixdim=spec.pixdim,
                num_classes=len(structures),
            ),
            *intensity_transforms(spec.modality, **spec.intensity),
            SpatialPadd("image", spec.spatial_size, mode="edge"),
            SpatialPadd("label", spec.spatial_size),
        ]
    )
    prepared = CacheDataset(items, steps, num_workers=THREADS, progress=False)
    return Volumes(
        [item["image"].as_tensor().float() for item in prepared],
        [item["label"].as_tensor()[0].to(torch.uint8) for item in prepared],
        [tuple(item["label"].pixdim.tolist()) for item in prepared],
        sections,
        find_patients(items, spec.patient_pattern),
        _names(items),
        structures,
    )


def keep_last(what: str, key: Any, make: Callable[[], T]) -> T:
    """What was made last under a name, if its key is still the same; cells that follow each other ask for the same."""
    if what not in _kept or _kept[what][0] != repr(key):
        _kept.pop(what, None)
        _kept[what] = repr(key), make()
    return _kept[what][1]


def load_items(spec: DataSpec, channels: int, demo_dir: str) -> Items:
    """All items of a data set, section by section."""
    return keep_last("items", (spec, channels, demo_dir), lambda: _read(spec, channels, demo_dir))


def load_volumes(spec: DataSpec, channels: int, demo_dir: str) -> Volumes:
    """All volumes of a data set with their label maps, section by section; at least `spatial_size` large."""
    return keep_last("volumes", (spec, channels, demo_dir), lambda: _read_volumes(spec, channels, demo_dir))


def count_folds(folds: str | int) -> int:
    """How many there are: of "official" 1, of "swap" 2, of a number so many.

    Raises:
        ValueError: If it is neither "official" nor "swap" nor a number from 2.
    """
    if folds in FOLDS:
        return FOLDS.index(str(folds)) + 1
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 2:
        raise ValueError(f'folds is {folds!r}; expected "official", "swap" or a number from 2.')
    return folds


def make_folds(
    folds: str | int, labels: Sequence[int], sections: Sequence[str], patients: Sequence[str], seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test items of each fold.

    Args:
        folds: "official": the data set's own sections, training against validation and test. "swap": that, and the same
            with the sides changed. A number k: k-fold cross-validation over all items, stratified by class, no patient
            on both sides.
        labels: class of each item.
        sections: of each item, "training", "validation" or "test".
        patients: of each item; empty where nothing names them, then every item is one.
        seed: of the draw of the k folds.

    Returns:
        Pairs of indices.

    Raises:
        ValueError: where a class has too few items or patients for k folds, or a test side is empty.

    Example:
        >>> sections = ["training", "training", "validation", "test"]
        >>> [(train.tolist(), test.tolist()) for train, test in make_folds("swap", [0, 1, 0, 1], sections, [])]
        [([0, 1], [2, 3]), ([2, 3], [0, 1])]
    """
    count = count_folds(folds)
    if isinstance(folds, str):
        is_training = np.array([section == "training" for section in sections])
        sides = np.flatnonzero(is_training), np.flatnonzero(~is_training)
        if not all(map(len, sides)):
            raise ValueError(f"folds {folds!r} needs items to train on and to test on; got {[len(s) for s in sides]}.")
        return [sides, sides[::-1]][:count]
    classes, sizes = np.unique(np.array(labels), return_counts=True)
    if patients:
        sizes = np.array([len({p for p, y in zip(patients, labels, strict=True) if y == c}) for c in classes])
    if min(sizes) < count:
        unit = "patients" if patients else "items"
        raise ValueError(
            f"class {classes[sizes.argmin()]} has {min(sizes)} {unit}, fewer than the {count} folds: ask for fewer."
        )
    kind = StratifiedGroupKFold if patients else StratifiedKFold
    splitter = kind(count, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(labels)), labels, patients or None))


def draw_per_class(indices: np.ndarray, labels: Sequence[int], count: int | None, seed: int) -> np.ndarray:
    """As many training items of each class, or all that it has, for a study of few labels; all of all with None.

    Example:
        >>> [[0, 0, 0, 1, 1, 2][i] for i in draw_per_class(np.arange(6), [0, 0, 0, 1, 1, 2], 2, seed=0)]
        [0, 0, 1, 1, 2]
    """
    if count is None:
        return indices
    classes, rng = np.asarray(labels)[indices], np.random.default_rng(seed)
    drawn = [rng.permutation(indices[classes == c])[:count] for c in np.unique(classes)]
    return np.sort(np.concatenate(drawn))


def draw_cases(pool: np.ndarray, count: int | str, seed: int, classes: Sequence[int] | None = None) -> np.ndarray:
    """The labelled volumes of a cell: those of a smaller number are among those of a larger one.

    Args:
        pool: indices to draw from.
        count: how many; "all" takes all.
        seed: of the draw.
        classes: of every item of the data set, for a draw of as many of each class (the rest of a rare one from the
            others), as whoever labels few volumes would choose them.

    Raises:
        ValueError: If the pool has fewer, or there are more classes than volumes to draw.

    Example:
        >>> draw_cases(np.arange(10), 4, seed=0, classes=[0] * 9 + [1])[-1].item()
        9
    """
    if count == ALL:
        return np.sort(pool)
    number, rng = int(count), np.random.default_rng(seed)
    if number > len(pool):
        raise ValueError(
            f"train_cases has {number}, and the data set {len(pool)} volumes to learn from: ask for fewer."
        )
    if classes is None:
        return np.sort(rng.permutation(pool)[:number])
    of = np.asarray(classes)[pool]
    kinds, sizes = np.unique(of, return_counts=True)
    if number < len(kinds):
        raise ValueError(f"train_cases has {number}, and the data set {len(kinds)} classes: each needs a volume.")
    drawn: list[int] = []
    for at, kind in enumerate(kinds[np.argsort(sizes, kind="stable")]):  # the rarest first
        share = (number - len(drawn)) // (len(kinds) - at)
        drawn += rng.permutation(pool[of == kind])[:share].tolist()
    return np.sort(drawn)
