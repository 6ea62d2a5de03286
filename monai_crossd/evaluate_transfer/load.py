# SPDX-License-Identifier: Apache-2.0
"""All items of a data set as one tensor."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureTyped
from torch import Tensor

from ..data import load_datalist, prepare_phantoms
from ..data.datalist import SECTIONS
from ..data.split import find_patients
from ..transforms import intensity_transforms, load_transforms
from .paper import paper_transforms
from .study import DataSpec

__all__ = ["Items", "load_items", "load_sections", "locate"]

THREADS = 4
_kept: dict[str, Items] = {}


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
    """The path or word of a data set; phantoms are made first, if they are not there."""
    if spec.dataset != "phantom":
        return spec.dataset
    folder = Path(demo_dir, spec.name.replace(" ", "_"))
    file_format = "png" if spec.spatial_dims == 2 else "nifti"
    return str(prepare_phantoms(spec.modality, folder, "classification", file_format=file_format, **spec.phantom))


def load_sections(spec: DataSpec, sections: tuple[str, ...], channels: int, demo_dir: str) -> Items:
    """Reads the items of some sections, those that the data set has.

    Raises:
        ValueError: if it has none of them.
    """
    dataset = locate(spec, demo_dir)
    items: list[dict] = []
    names: list[str] = []
    for section in sections:
        try:
            found = load_datalist(dataset, section, "classification", demo_dir, patient_pattern=spec.patient_pattern)
        except ValueError:
            if section != "test":  # which most have not
                raise
            continue
        items += found
        names += [section] * len(found)
    channels = spec.channels or channels
    prepared = CacheDataset(items, _transforms(spec, channels), num_workers=THREADS, progress=False)
    images = torch.stack([item["image"] for item in prepared])
    labels = torch.tensor([int(item["label"]) for item in items])
    if images.shape[1] != channels:
        raise ValueError(f"{spec.name} has {images.shape[1]} channels; the study's networks read {channels}.")
    return Items(images, labels, names, find_patients(items, spec.patient_pattern))


def load_items(spec: DataSpec, channels: int, demo_dir: str) -> Items:
    """All items of a data set; the last one that was asked for is kept, for cells follow each other by data set."""
    key = repr((spec, channels, demo_dir))
    if key not in _kept:
        _kept.clear()
        _kept[key] = load_sections(spec, SECTIONS, channels, demo_dir)
    return _kept[key]
