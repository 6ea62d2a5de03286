# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables I, II, IV and V as presets: what was compared on what, what was published, and where data lie."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser
from monai.config import PathLike
from monai.transforms import MapTransform
from monai.utils import ensure_tuple, look_up_option

from ..data.medmnist import MEDMNIST
from .paper_datasets import PAPER_DATASETS
from .scores import TABLE1_METRICS

__all__ = ["PRESETS", "LocatedDataset", "paper_dataset", "paper_transforms", "read_published"]


def _group(title: str, dims: int, methods: list[str], *datasets: str) -> dict[str, Any]:
    names = {"datasets": list(datasets), "methods": methods, "reference": methods[0]}
    return {"title": title, "spatial_dims": dims, **names}


def _names(table: int) -> list[str]:
    return [entry.name for entry in PAPER_DATASETS.values() if entry.table == table]


_2D, _3D = ["conv2d", "crossd"], ["conv2d-acs", "crossd-bank"]


def _preset(mode: str, metrics: Iterable[str], *groups: dict[str, Any]) -> dict[str, Any]:
    """Folds and seeds are None: the paper states neither, nor its test of significance."""
    return {
        "network": "resnet18",
        "sources": ["ImageNet", "RadImageNet"],
        "modes": [mode],
        "metrics": list(metrics),
        "folds": None,
        "seeds": None,
        "groups": list(groups),
    }


# Lists, numbers and words only, so that a runner or a YAML file can take them over.
PRESETS: dict[str, dict[str, Any]] = {
    "table1": _preset("pretraining", TABLE1_METRICS, _group("Pretraining", 2, _2D, "ImageNet", "RadImageNet")),
    "table2": _preset(
        "weak_probe",
        ["accuracy"],  # the caption says "performance metrics", the text "mean accuracies"
        _group("Image Datasets", 2, _2D, "organc", "organs", "brain_tumor", "brain", "breast", "breast_cancer"),
        _group(
            *("Volumetric Datasets", 3, _3D),
            *("mosmed", "lung_adenocarcinoma", "fracture", "brats21", "ixi", "busv"),
        ),
        _group("Other Image Datasets", 2, _2D, "blood", "pneumonia", "derma"),
        _group("Other Vol. Datasets", 3, _3D, "vessel", "synapse"),
    ),
    "table4": _preset("weak_probe", TABLE1_METRICS, _group("2D Datasets", 2, _2D, *_names(4))),
    "table5": _preset("weak_probe", TABLE1_METRICS, _group("3D Datasets", 3, _3D, *_names(5))),
}


class LocatedDataset(NamedTuple):
    """Where a data set of the paper lies, or what is missing."""

    path: Path | None
    missing: str  # what was looked for, where it is to be had and in what form to put it; empty where it was found


def paper_dataset(name: str, root: PathLike) -> LocatedDataset:
    """Finds a data set of Table IV or V below a folder.

    Looked for, in this order: for the sets of MedMNIST their file in the paper's size (``organcmnist_224.npz``,
    ``vesselmnist3d_64.npz``); ``NAME.npz`` in MedMNIST's form; ``NAME.csv``; the folder ``NAME`` with dataset.json; the
    folder ``NAME`` with a folder per class.

    Raises:
        ValueError: If it has no data set of the name.

    Example:
        >>> path, missing = paper_dataset("organc", "/nowhere")
        >>> path is None, missing[:57]
        (True, 'OrganC is missing: put organcmnist_224.npz into /nowhere,')
    """
    entry = PAPER_DATASETS[look_up_option(name, list(PAPER_DATASETS))]
    root = Path(root).expanduser().absolute()
    folder = root / name
    files = [folder.with_suffix(".npz"), folder.with_suffix(".csv")]
    if entry.medmnist:
        published = MEDMNIST[entry.medmnist]
        files.insert(0, root / published.file_name(entry.size[0]))
        remedy = f"put {files[0].name} into {root}, from {published.url(entry.size[0])}"
    else:
        remedy = f"put its images below {folder}, as {entry.form}; source: {entry.homepage or 'no certain address'}"
    for path in files:
        if path.is_file():
            return LocatedDataset(path, "")
    if folder.is_dir() and ((folder / "dataset.json").is_file() or any(p.is_dir() for p in folder.iterdir())):
        return LocatedDataset(folder, "")
    note = f" {entry.note}" if entry.note else ""
    return LocatedDataset(None, f"{entry.title} is missing: {remedy} ({entry.citation.rstrip('.')}).{note}")


def paper_transforms(name: str, stage: str = "validate") -> list[MapTransform]:
    """Preset transforms of a data set of Table IV or V, from a file to what the network reads.

    In the stage "train" with the random ones, in "validate" without.

    Raises:
        ValueError: If there is no such data set or stage.

    Example:
        >>> [type(transform).__name__ for transform in paper_transforms("brain_tumor")][-2:]
        ['ClipPercentilesd', 'NormalizeIntensityd']
    """
    entry = PAPER_DATASETS[look_up_option(name, list(PAPER_DATASETS))]
    random = entry.augmentation if look_up_option(stage, ("train", "validate")) == "train" else ()
    parser = ConfigParser({"transforms": [entry.load, *entry.intensity, *random]})
    return [transform for part in parser.get_parsed_content("transforms") for transform in ensure_tuple(part)]


def _value(name: str, text: str) -> Any:
    if name in ("group", "source", "method", "dataset"):
        return text
    return text == "yes" if name == "significant" else float(text) if text else None


def read_published() -> list[dict[str, Any]]:
    """The paper's Table II: a row per group, source, method and data set, and one for the "Average" of each group.

    Numbers are floats; "significant" says whether the paper marks a significant improvement. In "Other Vol. Datasets"
    the paper prints the same row for Cross-D from both sources; so it is here.

    Example:
        >>> read_published()[0]["mean"]
        0.862
    """
    with Path(__file__).with_name("published_table2.csv").open(newline="", encoding="utf-8") as file:
        return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
