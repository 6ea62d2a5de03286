# SPDX-License-Identifier: Apache-2.0
"""What a curve study compares: initializations, by the number of labelled volumes that each may learn from.

One data set with a fixed test set, one network, one schedule of a fixed number of steps; a cell is an initialization,
a number of labelled volumes and a seed. All initializations of a seed learn from the same volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .._options import look_up_option
from ..conv.factory import CONVOLUTIONS
from .scores import METRICS
from .split import ALL
from .study import DataSpec, check_names, make_entry

__all__ = ["CurveCell", "CurveStudy", "Initialization", "curve_cells", "read_curve"]

_OF_CARRIED = ("inflate", "carried_rate", "frozen_steps")
INFLATE = ("center", "i3d", "bank")


class Initialization(NamedTuple):
    """Where a network starts from, and how what it carries learns.

    Attributes:
        weights: a name in the study's `source`; None is from scratch.
        conv: which 3D convolutions the network is built with, as `conv` of :func:`monai_crossd.to_3d`.
        inflate: how 2D weights fill those that are plain: "center", "i3d" or "bank".
        network: entries over those of the study's `network`, such as {"conv_options": {"placement": "spread"}}.
        carried_rate: learning rate of what was carried from 2D, as a part of that of new layers.
        frozen_steps: for so many steps at first only new layers learn.
    """

    weights: str | None = None
    conv: str = "conv"
    inflate: str = "center"
    network: Mapping[str, Any] = {}
    carried_rate: float = 1.0
    frozen_steps: int = 0


class CurveStudy(NamedTuple):
    """A study of scores against the number of labelled volumes.

    Attributes:
        task: "classification" or "segmentation".
        name: of the data set, in table and figure.
        data: what :func:`monai_crossd.data.load_datalist` takes; None will do for a report. Test set is the section
            "test", or else "validation"; labelled volumes are drawn from "training".
        modality: "ct", "mr" or "us".
        spatial_size: classification: voxels that a volume is resized to; segmentation: voxels of a random crop.
        network: config of a MONAI network in 3D, `_target_` and arguments, in which "@conv", "@in_channels" and
            "@num_classes" stand for those of the cell. Without "@conv" it is built inside `use_conv`.
        initializations: by name.
        iterations: steps of each cell, however many volumes it has.
        batch_size: volumes or crops per step.
        learning_rate: highest one of the one-cycle schedule.
        source: files of 2D weights by name.
        exclude: patterns of keys that are new in every network, such as a head; a pattern that fits none is no error.
        train_cases: numbers of labelled volumes, and "all".
        seeds: of drawn volumes, new weights, order and augmentation.
        metric: that the figure shows.
        compare_with: names or patterns of initializations; against the best of each, by number of volumes, all others
            are tested.
        window: segmentation: voxels that the network sees at once in the test; None is `spatial_size`.
        channels: of the images.
        intensity: options of :func:`monai_crossd.transforms.intensity_transforms`.
        pixdim: segmentation: voxel size in mm that volumes are resampled to; None keeps their own.
        patient_pattern: of :func:`monai_crossd.data.load_datalist`.
        test_fraction: part of the patients that is held out where the data set has no section for tests.
        structures: segmentation: names by number, over those of the data set.
        weight_decay: of AdamW.
        published: rows of the table that were not run here: scores by metric, by name.
    """

    task: str
    name: str
    data: str | None
    modality: str
    spatial_size: Sequence[int]
    network: Mapping[str, Any]
    initializations: Mapping[str, Initialization]
    iterations: int
    batch_size: int
    learning_rate: float
    source: Mapping[str, str | None] = {}
    exclude: Sequence[str] = ("fc.*", "head.*")
    train_cases: Sequence[int | str] = (2, 4, 8, 16, 32, ALL)
    seeds: Sequence[int] = (0, 1, 2)
    metric: str = ""
    compare_with: Sequence[str] = ()
    window: Sequence[int] | None = None
    channels: int = 1
    intensity: Mapping[str, Any] = {}
    pixdim: Sequence[float] | float | None = None
    patient_pattern: str | None = None
    test_fraction: float = 0.25
    structures: Mapping[int, str] = {}
    weight_decay: float = 0.01
    published: Mapping[str, Mapping[str, float]] = {}

    @property
    def spec(self) -> DataSpec:
        """How its data set is read."""
        return DataSpec(
            self.name, str(self.data), self.modality, self.spatial_size, self.channels, intensity=self.intensity,
            patient_pattern=self.patient_pattern, pixdim=self.pixdim, val_fraction=self.test_fraction,
        )  # fmt: skip


class CurveCell(NamedTuple):
    """One training and its test."""

    initialization: str
    train_cases: int | str
    seed: int

    @property
    def name(self) -> str:
        """In the name of its file."""
        return f"{self.train_cases}/{self.initialization}-seed{self.seed}"


def _check_least(name: str, value: Any, least: int, whole: bool = True) -> None:
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a {'whole ' * whole}number from {least}.")


def read_curve(config: Mapping[str, Any]) -> CurveStudy:
    """The study that a config describes, checked before anything is computed.

    Args:
        config: keys are the attributes of :class:`CurveStudy`; `initializations` are mappings of the attributes of
            :class:`Initialization`.

    Raises:
        ValueError: If a key is unknown or missing or a value is out of its range, with both.
    """
    values = dict(config)
    starts = values.get("initializations")
    if not isinstance(starts, Mapping) or not starts:
        raise ValueError(f"initializations is {starts!r}; expected at least one, by name, such as {{scratch: {{}}}}.")
    values["initializations"] = {
        str(name): make_entry(Initialization, start or {}, f"initialization {name}") for name, start in starts.items()
    }
    look_up_option(values.get("task"), METRICS)
    values["metric"] = values.get("metric") or next(iter(METRICS[values["task"]]))
    values["compare_with"] = values.get("compare_with") or [next(iter(values["initializations"]))]
    study: CurveStudy = make_entry(CurveStudy, values, "the study")
    look_up_option(study.metric, METRICS[study.task])
    look_up_option(study.modality, ("ct", "mr", "us"))
    check_names(study.train_cases, "train_cases")
    check_names(study.seeds, "seeds")
    for count in study.train_cases:
        if count != ALL:
            _check_least("an entry of train_cases", count, 1)
    for name in ("iterations", "batch_size", "channels"):
        _check_least(name, getattr(study, name), 1)
    if len(study.spatial_size) != 3:
        raise ValueError(f"spatial_size is {study.spatial_size}; expected three numbers of voxels.")
    if not isinstance(study.network, Mapping) or "_target_" not in study.network:
        raise ValueError(f"network is {study.network!r}; expected a config of a MONAI network, with _target_.")
    for name, start in study.initializations.items():
        _check_start(study, name, start)
    for pattern in study.compare_with:
        if not matching(study, pattern):
            raise ValueError(
                f"compare_with has {pattern!r}, which no initialization fits: {', '.join(study.initializations)}."
            )
    return study


def _check_start(study: CurveStudy, name: str, start: Initialization) -> None:
    if "/" in name:
        raise ValueError(f"initialization {name!r}: its name becomes that of a file, write it without /.")
    look_up_option(start.conv, ("conv", *CONVOLUTIONS))
    look_up_option(start.inflate, INFLATE)
    if start.weights is not None:
        if start.weights not in study.source:
            raise ValueError(f"initialization {name}: no weights {start.weights!r} in source {list(study.source)}.")
    elif used := [key for key in _OF_CARRIED if getattr(start, key) != Initialization._field_defaults[key]]:
        raise ValueError(f"initialization {name} has no weights, and {' and '.join(used)} are for what is carried.")
    _check_least(f"carried_rate of {name}", start.carried_rate, 0, whole=False)
    _check_least(f"frozen_steps of {name}", start.frozen_steps, 0)
    if start.frozen_steps >= study.iterations:
        raise ValueError(f"frozen_steps of {name} is {start.frozen_steps}; expected fewer than {study.iterations}.")


def check_given(study: CurveStudy) -> None:
    """Whether a study says where its data and weights lie, which its report does not need.

    Raises:
        ValueError: If it does not, with the option that does.
    """
    if study.data is None:
        raise ValueError("data is not given: add --data with where it lies.")
    for name in dict.fromkeys(start.weights for start in study.initializations.values()):
        if name is not None and not study.source[name]:
            raise ValueError(f"source has no file for {name!r}: add --source::{name} FILE.")


def matching(study: CurveStudy, pattern: str) -> list[str]:
    """Initializations whose name fits a pattern."""
    return [name for name in study.initializations if fnmatchcase(name, pattern)]


def curve_cells(study: CurveStudy) -> list[CurveCell]:
    """All cells, a whole curve of the first seed first."""
    return [
        CurveCell(name, count, seed)
        for seed in study.seeds
        for count in study.train_cases
        for name in study.initializations
    ]
