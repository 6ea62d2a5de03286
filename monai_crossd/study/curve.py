# SPDX-License-Identifier: Apache-2.0
"""A curve study: initializations, by the number of labelled volumes that each may learn from.

One data set with a fixed test set, one network, one schedule of a fixed number of steps; a cell is an initialization,
a number of labelled volumes and a seed. All initializations of a seed learn from the same volumes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.metrics import compute_average_surface_distance, compute_dice
from torch import Tensor, nn

from .._options import look_up_option
from ..conv import use_conv
from ..conv.factory import CONVOLUTIONS
from ..conv.from_2d import INFLATIONS
from ..transfer import load_2d, read_checkpoint, rescale_kernels
from ..transfer.load_2d import part_of
from .learning import augment, endless_batches, learn, predict
from .load import ALL, DataSpec, Items, Volumes, draw_cases, load_items, load_volumes
from .runner import keep_settings, read_results, run_jobs
from .scores import METRICS
from .study import check_names, make_entry

__all__ = ["CurveCell", "CurveStudy", "Initialization", "curve_cells", "read_curve", "run_curve"]

_OF_CARRIED = ("inflate", "rescale", "carried_rate", "frozen_steps")
LABEL_SMOOTHING = 0.05


class Initialization(NamedTuple):
    """Where a network starts from, and how what it carries learns.

    Attributes:
        weights: a name in the study's `source`; None is from scratch.
        conv: which 3D convolutions the network is built with, as `conv` of :func:`monai_crossd.to_3d`.
        inflate: how 2D weights fill those that are plain: "center", "i3d" or "bank".
        network: entries over those of the study's `network`, such as {"conv_options": {"placement": "spread"}}.
        rescale: kernels that a norm follows are made as large as new ones
            (:func:`monai_crossd.transfer.rescale_kernels`), so that steps turn them as far.
        carried_rate: learning rate of what was carried from 2D, as a part of that of new layers.
        frozen_steps: for so many steps at first only new layers learn.
    """

    weights: str | None = None
    conv: str = "conv"
    inflate: str = "center"
    network: Mapping[str, Any] = {}
    rescale: bool = False
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
        figure: names or patterns of the initializations that it shows; all if empty.
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
    figure: Sequence[str] = ()
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

    Example:
        .. code-block:: python

            study = read_curve(ConfigParser.load_config_file("configs/few_labels_study.yaml"))
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
    for key in ("compare_with", "figure"):
        for pattern in getattr(study, key):
            if not matching(study, pattern):
                raise ValueError(
                    f"{key} has {pattern!r}, which no initialization fits: {', '.join(study.initializations)}."
                )
    return study


def _check_start(study: CurveStudy, name: str, start: Initialization) -> None:
    if "/" in name:
        raise ValueError(f"initialization {name!r}: its name becomes that of a file, write it without /.")
    look_up_option(start.conv, ("conv", *CONVOLUTIONS))
    look_up_option(start.inflate, INFLATIONS)
    if start.weights is not None:
        if start.weights not in study.source:
            raise ValueError(f"initialization {name}: no weights {start.weights!r} in source {list(study.source)}.")
    elif used := [key for key in _OF_CARRIED if getattr(start, key) != Initialization._field_defaults[key]]:
        raise ValueError(f"initialization {name} has no weights, and {' and '.join(used)} are for what is carried.")
    if not isinstance(start.rescale, bool):
        raise ValueError(f"rescale of {name} is {start.rescale!r}; expected true or false.")
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


def build_network(study: CurveStudy, start: Initialization, classes: int) -> nn.Module:
    """The network of an initialization, with new weights."""
    definition = {**study.network, **start.network}
    config = {"network": definition, "conv": start.conv, "in_channels": study.channels, "num_classes": classes}
    told = "@conv" in json.dumps(definition)
    with nullcontext() if told or start.conv == "conv" else use_conv(start.conv):
        network: nn.Module = ConfigParser(config).get_parsed_content("network")
    return network


def carry(network: nn.Module, study: CurveStudy, start: Initialization) -> tuple[set[str], str]:
    """Fills a network from the 2D weights of its initialization; of a U-Net the encoder, where they are of no decoder.

    Returns:
        Keys of the network that were filled, and the report's summary.
    """
    state = read_checkpoint(str(study.source[str(start.weights)]))
    part = part_of(network, state, "encoder" if isinstance(getattr(network, "encoder", None), nn.Module) else None)
    prefix = "" if part is network else "encoder."
    keys = [*part.state_dict(), *state]
    exclude = [pattern for pattern in study.exclude if any(fnmatchcase(key, pattern) for key in keys)]
    report = load_2d(part, state, start.inflate, exclude=exclude)
    summary = report.summary()
    if start.rescale:
        noise = torch.randn(2, study.channels, *study.spatial_size, generator=torch.Generator().manual_seed(0))
        summary += f", {len(rescale_kernels(network, noise))} kernels as large as new ones"
    return {f"{prefix}{key}" for key in report.transferred}, summary


def crop(images: list[Tensor], labels: list[Tensor], size: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    """A block of each volume and of its label map, at a random place: (B, C, *size) and (B, *size)."""
    pairs = []
    for image, label in zip(images, labels, strict=True):
        starts = [
            int(torch.randint(n - s + 1, (1,), generator=generator)) for n, s in zip(label.shape, size, strict=True)
        ]
        block = tuple(slice(a, a + s) for a, s in zip(starts, size, strict=True))
        pairs.append((image[(slice(None), *block)], label[block]))
    return [torch.stack(part) for part in zip(*pairs, strict=True)]


def _learn(network: nn.Module, items: Items | Volumes, train: np.ndarray, study: CurveStudy, **options: Any) -> None:
    """Trains on the drawn volumes, those of each class equally often."""
    device, generator = next(network.parameters()).device, torch.Generator().manual_seed(options.pop("seed"))
    index = torch.from_numpy(train)
    loss_function: nn.Module
    if isinstance(items, Items):
        groups = [index[items.labels[index] == c] for c in items.labels[index].unique()]
        loss_function = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    else:
        groups = [index]
        loss_function = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    batches = endless_batches(groups, study.batch_size, generator)

    def draw() -> tuple[Tensor, Tensor]:
        chosen = next(batches)
        if isinstance(items, Items):
            return augment(items.images[chosen].to(device), generator), items.labels[chosen].to(device)
        volumes = [items.images[i] for i in chosen], [items.labels[i] for i in chosen]
        images, labels = crop(*volumes, tuple(study.spatial_size), generator)
        return augment(images.to(device), generator, move=False), labels[:, None].to(device)

    learn(network, draw, loss_function, study.iterations, study.learning_rate, study.weight_decay, **options)


@torch.no_grad()
def _segmentation_scores(network: nn.Module, volumes: Volumes, test: np.ndarray, study: CurveStudy) -> dict[str, Any]:
    """Dice and average symmetric surface distance in mm of each structure of each volume; None of what is not there."""
    device = next(network.parameters()).device
    network.eval()
    inferer = SlidingWindowInferer(tuple(study.window or study.spatial_size), sw_batch_size=4, mode="gaussian")
    dice, distance = [], []
    numbers = sorted(volumes.structures)[1:]
    for at in test:
        found = inferer(volumes.images[at][None].to(device), network).argmax(1).cpu()[0]
        pairs = [(found == number, volumes.labels[at] == number) for number in numbers]
        dice.append([_dice(*pair) for pair in pairs])
        distance.append([_surface_distance(*pair, volumes.spacings[at]) for pair in pairs])
    names = [volumes.structures[number] for number in numbers]
    return {"structures": names, "dice": dice, "surface_distance": distance}


def _dice(found: Tensor, truth: Tensor) -> float | None:
    """None of a structure that the volume lacks, as MONAI's."""
    return float(compute_dice(found[None, None], truth[None, None])) if truth.any() else None


def _surface_distance(found: Tensor, truth: Tensor, spacing: Sequence[float]) -> float | None:
    """None where one of them has no surface."""
    if not (found.any() and truth.any()):
        return None
    pair = found[None, None], truth[None, None]
    return float(compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=spacing))


def _load(study: CurveStudy, demo_dir: str) -> Items | Volumes:
    if study.task == "classification":
        return load_items(study.spec, study.channels, demo_dir)
    volumes = load_volumes(study.spec, study.channels, demo_dir)
    return volumes._replace(structures=volumes.structures | {int(k): v for k, v in study.structures.items()})


def run_curve_cell(study: CurveStudy, output_dir: Path, cell: CurveCell, device: str) -> dict[str, Any]:
    """Trains and tests one cell; its result has a score, or what gives one, of each test item."""
    items = _load(study, str(output_dir / "demo"))
    start, began = study.initializations[cell.initialization], time.perf_counter()
    sections = np.array(items.sections)
    pool = np.flatnonzero(sections == "training")
    test = np.flatnonzero(sections == ("test" if "test" in items.sections else "validation"))
    labels = items.labels.tolist() if isinstance(items, Items) else None
    train = draw_cases(pool, cell.train_cases, cell.seed, labels)
    classes = len(items.structures) if isinstance(items, Volumes) else int(items.labels.max()) + 1
    torch.manual_seed(cell.seed)
    network = build_network(study, start, classes)
    carried, summary = carry(network, study, start) if start.weights is not None else (set(), "")
    _learn(
        network.to(device), items, train, study,
        seed=cell.seed, carried=carried, carried_rate=start.carried_rate, frozen_steps=start.frozen_steps,
    )  # fmt: skip
    if isinstance(items, Items):
        probabilities = predict(network, items.images[test].to(device)).softmax(1)
        scores: dict[str, Any] = {
            "truth": items.labels[test].tolist(),
            "probabilities": [[round(p, 6) for p in row] for row in probabilities.tolist()],
        }
    else:
        scores = _segmentation_scores(network, items, test, study)
    patients = items.patients or items.names
    return {
        **cell._asdict(), "volumes": len(train), "seconds": round(time.perf_counter() - began, 2),
        "carried": summary, "trained_on": [items.names[int(i)] for i in train],
        "items": [items.names[int(i)] for i in test], "patients": [patients[int(i)] for i in test], **scores,
    }  # fmt: skip


def result_path(output_dir: Path, cell: CurveCell) -> Path:
    """The file that a finished cell has."""
    return output_dir / "cells" / f"{cell.name}.json"


def read_curve_results(study: CurveStudy, output_dir: Path) -> list[dict[str, Any]]:
    """Results of the study's finished cells."""
    return read_results(result_path(output_dir, cell) for cell in curve_cells(study))


# what cells of a folder may differ in, or what only the report depends on
_FREE = (
    "name",
    "data",
    "source",
    "train_cases",
    "seeds",
    "initializations",
    "metric",
    "figure",
    "compare_with",
    "published",
)


def _keep_settings(study: CurveStudy, output_dir: Path) -> None:
    """What a finished cell depends on, by its name in a message; 2D weights by their content."""
    digests = {
        name: hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
        for name, path in study.source.items()
        if any(start.weights == name for start in study.initializations.values())
    }
    settings = {name: value for name, value in study._asdict().items() if name not in _FREE}
    entries = {
        f"initialization {name}": {**start._asdict(), "sha256": digests.get(str(start.weights))}
        for name, start in study.initializations.items()
    }
    keep_settings(output_dir, settings, entries)


def run_curve(
    study: CurveStudy, output_dir: Path, processes: int = 1, device: str = "cpu", threads: int | None = None
) -> list[dict[str, Any]]:
    """Runs what is missing of a study, as :func:`~monai_crossd.study.runner.run_jobs` does.

    Args:
        study: to run.
        output_dir: of the cells.
        processes: that this call starts.
        device: "cpu", "cuda" (processes take the GPUs by turns), "cuda:1", ...
        threads: of the CPU in each process.

    Returns:
        Results of all cells that are finished.

    Raises:
        FileNotFoundError: If a file of 2D weights is missing.
        ValueError: If data or weights are not given, or the folder holds cells of other settings.
        RuntimeError: If cells failed, when the others are done.

    Example:
        .. code-block:: python

            results = run_curve(study, "eval/few_labels", processes=2)
            write_curve_report("eval/few_labels", study, results)
    """
    check_given(study)
    _keep_settings(study, output_dir)
    _load(study, str(output_dir / "demo"))  # what is wrong with the data is said once
    cells = {
        result_path(output_dir, cell): partial(run_curve_cell, study, output_dir, cell) for cell in curve_cells(study)
    }
    run_jobs(cells, processes, device, threads)
    return read_curve_results(study, output_dir)
