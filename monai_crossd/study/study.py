# SPDX-License-Identifier: Apache-2.0
"""What a study compares, read from a config: source, data sets, initializations, modes, seeds and schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from monai.utils import look_up_option

from ..training import FINETUNE_MODES
from .learning import Schedule
from .methods import METHODS, PRETRAININGS
from .paper_datasets import PAPER_DATASETS
from .scores import TABLE1_METRICS
from .split import count_folds

__all__ = ["Cell", "DataSpec", "Source", "Study", "list_cells", "read_study"]


class DataSpec(NamedTuple):
    """A data set and how it is read.

    Attributes:
        name: in tables.
        dataset: what :func:`monai_crossd.data.load_datalist` takes; "phantom": those of `phantom`.
        modality: "ct", "mr" or "us", or the paper's word where `paper` is set.
        spatial_size: pixels or voxels that every item is resized to.
        channels: of its images; None: those of the study.
        folds: "official", "swap" or a number, see :func:`~monai_crossd.study.folds.make_folds`.
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


class Source(NamedTuple):
    """What is known from 2D.

    Attributes:
        name: in tables.
        datasets: images to train on, all classes of all of them side by side; or
        weights: files of trained weights by pretraining, see :data:`~monai_crossd.study.METHODS`.
    """

    name: str
    datasets: Sequence[DataSpec] = ()
    weights: Mapping[str, str] = {}


class Study(NamedTuple):
    """A comparison of initializations.

    Attributes:
        source: of what is known from 2D.
        datasets: to fine-tune and test on.
        methods: names in :data:`~monai_crossd.study.METHODS`.
        reference: the method that the others are tested against.
        modes: "linear_probe", "weak_probe", "full".
        seeds: each seed has its own pretraining, draws, order and folds.
        network: arguments of :func:`monai_crossd.networks.build_resnet`.
        channels: of the images of the source.
        keep_depth: of :func:`monai_crossd.to_3d`.
        pretraining: schedule in 2D.
        finetuning: schedule of "weak_probe" and "full".
        metric: that tables show.
    """

    source: Source
    datasets: Sequence[DataSpec]
    methods: Sequence[str]
    reference: str
    pretraining: Schedule
    finetuning: Schedule
    modes: Sequence[str] = FINETUNE_MODES[::-1]
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    network: Mapping[str, Any] = {}
    channels: int = 1
    keep_depth: bool = True
    metric: str = "balanced_accuracy"


class Cell(NamedTuple):
    """One training and its test."""

    dataset: str
    method: str
    mode: str
    seed: int
    fold: int


def make_entry(kind: Any, config: Any, where: str) -> Any:
    """A NamedTuple of a config, whose unknown and missing keys are named."""
    if not isinstance(config, Mapping):
        raise ValueError(f"{where} is {config!r}; expected keys of {list(kind._fields)}.")
    for key in config:
        if key not in kind._fields:
            raise ValueError(f"{where} has the key {key!r}; expected keys of {list(kind._fields)}.")
    missing = [name for name in kind._fields if name not in config and name not in kind._field_defaults]
    if missing:
        raise ValueError(f"{where} lacks {missing}.")
    return kind(**config)


def check_names(values: Iterable[Any], what: str) -> None:
    values = list(values)
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{what} are {values}; expected at least one, and none twice.")


def read_study(config: Mapping[str, Any]) -> Study:
    """The study that a config describes, checked before anything is computed.

    Args:
        config: keys are the attributes of :class:`Study`, with mappings for source, data sets and schedules.

    Raises:
        ValueError: for an unknown or missing key or a value out of its range, with both.
    """
    values = dict(config)
    if isinstance(values.get("source"), Mapping):
        source = dict(values["source"])
        source["datasets"] = [make_entry(DataSpec, d, "a data set of the source") for d in source.get("datasets", ())]
        values["source"] = make_entry(Source, source, "source")
    values["datasets"] = [make_entry(DataSpec, d, "an entry of datasets") for d in values.get("datasets", ())]
    for name in ("pretraining", "finetuning"):
        if name in values:
            values[name] = make_entry(Schedule, values[name], name)
    study: Study = make_entry(Study, values, "the study")
    for method in study.methods:
        look_up_option(method, list(METHODS))
    for mode in study.modes:
        look_up_option(mode, FINETUNE_MODES)
    look_up_option(study.reference, list(study.methods))
    look_up_option(study.metric, list(TABLE1_METRICS))
    check_names((spec.name for spec in study.datasets), "names of the datasets")
    check_names(study.methods, "methods")
    check_names(study.modes, "modes")
    check_names(study.seeds, "seeds")
    for spec in (*study.datasets, *study.source.datasets):
        count_folds(spec.folds)
        look_up_option(spec.spatial_dims, (2, 3))
        if spec.paper is None:
            look_up_option(spec.modality, ("ct", "mr", "us"))
        else:
            look_up_option(spec.paper, list(PAPER_DATASETS))
        dims = {3 if METHODS[name].conv else 2 for name in study.methods} if spec in study.datasets else {2}
        if dims != {spec.spatial_dims}:
            raise ValueError(
                f"{spec.name} is {spec.spatial_dims}D (spatial_size {spec.spatial_size}), and the methods "
                f"{list(study.methods)} are not all for that: make one study of images and one of volumes."
            )
        if spec.channels not in (None, study.channels) and study.source.datasets:
            raise ValueError(
                f"{spec.name} has {spec.channels} channels and the source {study.channels}: only weights from files "
                "are adapted to other channels. Leave `channels` of the data set out, and its images are."
            )
    for name in study.source.weights:
        look_up_option(name, list(PRETRAININGS))
    needed = {METHODS[method].pretraining for method in study.methods} - {None}
    if any(METHODS[method].hybrid for method in study.methods) and not study.source.datasets:
        raise ValueError("a hybrid method learns on with the images of the source, and source has no datasets.")
    if not study.source.datasets and (lacking := sorted(needed - set(study.source.weights))):  # type: ignore[type-var]
        raise ValueError(f"source has no datasets to train on, and no weights of {lacking}.")
    return study


def list_cells(study: Study) -> list[Cell]:
    """All cells, those of a data set together; a hybrid method has cells where everything learns, in mode "full"."""
    return [
        Cell(spec.name, method, mode, seed, fold)
        for spec in study.datasets
        for mode in study.modes
        for seed in study.seeds
        for fold in range(count_folds(spec.folds))
        for method in study.methods
        if mode == "full" or not METHODS[method].hybrid
    ]
