# SPDX-License-Identifier: Apache-2.0
"""All items of a data set as one tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureTyped
from torch import Tensor

from ..data import load_datalist
from ..data.sources import SECTIONS, read_source
from ..data.split import find_patients
from ..demo import EMBEDDED, prepare_embedded, prepare_phantoms
from ..transforms import intensity_transforms, load_transforms
from .paper import paper_transforms
from .study import DataSpec

__all__ = ["Items", "keep_last", "load_items", "locate"]

THREADS = 4
T = TypeVar("T")
_kept: dict[str, tuple[str, Any]] = {}


class Items(NamedTuple):
    """Images with their classes; `sections` and `patients` (or none) by item."""

    images: Tensor
    labels: Tensor
    sections: list[str]
    patients: list[str]


def _transforms(spec: DataSpec, channels: int) -> Compose:
    if spec.paper is not None:
        steps = paper_transforms(spec.paper)
    else:
        steps = [
            *load_transforms(spec.spatial_dims, channels=channels, spatial_size=spec.spatial_size),
            *intensity_transforms(spec.modality, **spec.intensity),
        ]
    return Compose([*steps, EnsureTyped("image", dtype=torch.float32, track_meta=False)])


def locate(spec: DataSpec, demo_dir: str) -> str:
    """The path of a data set; what is embedded and phantoms are written first, if they are not there."""
    if spec.dataset in EMBEDDED:
        return str(prepare_embedded(spec.dataset, "classification", demo_dir))
    if spec.dataset != "phantom":
        return spec.dataset
    folder = Path(demo_dir, spec.name.replace(" ", "_"))
    file_format = "png" if spec.spatial_dims == 2 else "nifti"
    return str(prepare_phantoms(spec.modality, folder, "classification", file_format=file_format, **spec.phantom))


def _read(spec: DataSpec, channels: int, demo_dir: str) -> Items:
    dataset = locate(spec, demo_dir)
    has_test = bool(read_source(dataset, "classification", demo_dir).sections.get("test"))
    items: list[dict] = []
    names: list[str] = []
    for section in SECTIONS if has_test else SECTIONS[:2]:
        found = load_datalist(
            dataset,
            section,
            "classification",
            demo_dir,
            patient_pattern=spec.patient_pattern,
            spatial_dims=spec.spatial_dims,
        )
        items += found
        names += [section] * len(found)
    channels = spec.channels or channels
    prepared = CacheDataset(items, _transforms(spec, channels), num_workers=THREADS, progress=False)
    images = torch.stack([item["image"] for item in prepared])
    labels = torch.tensor([int(item["label"]) for item in items])
    if images.shape[1] != channels:
        raise ValueError(f"{spec.name} has {images.shape[1]} channels; the study's networks read {channels}.")
    return Items(images, labels, names, find_patients(items, spec.patient_pattern))


def keep_last(what: str, key: Any, make: Callable[[], T]) -> T:
    """What was made last under a name, if its key is still the same; cells that follow each other ask for the same."""
    if what not in _kept or _kept[what][0] != repr(key):
        _kept.pop(what, None)
        _kept[what] = repr(key), make()
    return _kept[what][1]


def load_items(spec: DataSpec, channels: int, demo_dir: str) -> Items:
    """All items of a data set, section by section."""
    return keep_last("items", (spec, channels, demo_dir), lambda: _read(spec, channels, demo_dir))
