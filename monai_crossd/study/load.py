# SPDX-License-Identifier: Apache-2.0
"""All items of a data set in memory: images or volumes with a class each, or volumes with label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureTyped, SpatialPadd
from monai.utils import ensure_tuple
from torch import Tensor

from ..data import load_datalist, load_labels
from ..data.sources import SECTIONS, read_source
from ..data.split import find_patients
from ..demo import EMBEDDED, prepare_embedded, prepare_phantoms
from ..transforms import intensity_transforms, load_transforms
from .paper import paper_transforms
from .study import DataSpec

__all__ = ["Items", "Volumes", "keep_last", "load_items", "load_volumes", "locate"]

THREADS = 4
T = TypeVar("T")
_kept: dict[str, tuple[str, Any]] = {}


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
