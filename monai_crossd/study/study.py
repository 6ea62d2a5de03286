# SPDX-License-Identifier: Apache-2.0
"""A study of many data sets, read from a config: what it compares, the pretrainings in 2D, and the cells in 3D."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import look_up_option
from torch import nn

from .._replacing import replacing
from ..networks import HybridNet
from ..training import FINETUNE_MODES
from ..transfer import load_2d, read_checkpoint
from .learning import Schedule, fine_tune, fit, predict
from .load import DataSpec, Items, count_folds, draw_per_class, keep_last, load_items, locate, make_folds
from .methods import METHODS, PRETRAININGS, build_2d, initialize
from .paper import PRESETS, paper_dataset
from .paper_datasets import PAPER_DATASETS
from .runner import Jobs, keep_settings, read_results, run_jobs
from .scores import TABLE1_METRICS, table1_metrics

__all__ = ["Cell", "PresetStudy", "Source", "Study", "list_cells", "preset_studies", "read_study", "run_study"]

PAPER_FOLDS = 5  # the paper does not say how many


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

    Example:
        .. code-block:: python

            study = read_study(ConfigParser.load_config_file("configs/transfer_study.yaml"))
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


def weights_path(output_dir: Path, pretraining: str, seed: int) -> Path:
    """Where the weights of a pretraining are; beside them, .json, its scores and seconds."""
    return output_dir / "pretrained" / f"{pretraining}-seed{seed}.pt"


def _side_by_side(parts: list[Items]) -> Items:
    images, labels = (torch.cat(values) for values in zip(*((p.images, p.labels) for p in parts), strict=True))
    return Items(images, labels, [section for p in parts for section in p.sections], [])


def _read_source(source: Source, channels: int, demo_dir: str) -> tuple[Items, Items]:
    trained: list[Items] = []
    held_out: list[Items] = []
    classes = 0
    for spec in source.datasets:
        items = load_items(spec, channels, demo_dir)
        sections = np.array(items.sections)
        for part, chosen in ((trained, np.isin(sections, spec.sections)), (held_out, sections == "validation")):
            index = torch.from_numpy(np.flatnonzero(chosen))
            part.append(Items(items.images[index], items.labels[index] + classes, sections[chosen].tolist(), []))
        classes += int(items.labels.max()) + 1
    return _side_by_side(trained), _side_by_side(held_out)


def load_source(source: Source, channels: int, demo_dir: str) -> tuple[Items, Items]:
    """The images that are trained on, and those of the validation sections; all classes side by side."""
    return keep_last("source", (source, channels, demo_dir), lambda: _read_source(source, channels, demo_dir))


def pretrain(study: Study, output_dir: Path, pretraining: str, seed: int, device: str) -> dict[str, Any]:
    """Trains a 2D network on the source, writes its weights and returns its row: seconds, and held-out scores."""
    start, demo_dir = time.perf_counter(), str(output_dir / "demo")
    items, held_out = load_source(study.source, study.channels, demo_dir)
    torch.manual_seed(seed)
    classes = int(items.labels.max()) + 1
    network = build_2d(pretraining, study.network, study.channels, classes).to(device)
    fit(network, items.images.to(device), items.labels.to(device), study.pretraining, seed)
    seconds = time.perf_counter() - start
    row: dict[str, Any] = {"pretraining": pretraining, "seed": seed, "n_train": len(items.labels), "seconds": seconds}
    if all("validation" not in spec.sections for spec in study.source.datasets):
        predicted = predict(network, held_out.images.to(device)).argmax(1).numpy()
        row |= {"n_test": len(predicted), **table1_metrics(predicted, held_out.labels.numpy(), classes)}
    path = weights_path(output_dir, pretraining, seed)
    with replacing(path) as temporary:
        torch.save(network.cpu().state_dict(), temporary)
    return row


def pretrained_network(
    study: Study, output_dir: Path, pretraining: str | None, seed: int, channels: int | None = None
) -> nn.Module:
    """The 2D network that a cell starts from; where nothing is pretrained, one with new weights.

    The stem of weights from a file is adapted to the channels of the data set.
    """
    torch.manual_seed(seed)
    if pretraining is None or pretraining in study.source.weights:
        network = build_2d(pretraining, study.network, channels or study.channels, 1)
        if pretraining is not None:
            load_2d(network, study.source.weights[pretraining], exclude=["fc.*"])
        return network
    state = read_checkpoint(weights_path(output_dir, pretraining, seed))
    network = build_2d(pretraining, study.network, study.channels, len(state["fc.bias"]))
    network.load_state_dict(state)
    return network


def cell_path(output_dir: Path, cell: Cell) -> Path:
    """The file that a finished cell has."""
    return output_dir / "cells" / cell.dataset / f"{cell.method}-{cell.mode}-seed{cell.seed}-fold{cell.fold}.json"


def run_cell(study: Study, output_dir: Path, cell: Cell, device: str) -> dict[str, Any]:
    """Trains and tests one cell, from the pretrained weights in the study's folder; its row."""
    spec = next(spec for spec in study.datasets if spec.name == cell.dataset)
    items = load_items(spec, study.channels, str(output_dir / "demo"))
    start, labels = time.perf_counter(), items.labels.tolist()
    train, test = make_folds(spec.folds, labels, items.sections, items.patients, cell.seed)[cell.fold]
    train = draw_per_class(train, labels, spec.train_per_class, cell.seed)
    classes = max(labels) + 1
    recipe = METHODS[cell.method]
    net2d = pretrained_network(study, output_dir, recipe.pretraining, cell.seed, spec.channels)
    network = initialize(net2d, cell.method, classes, study.keep_depth).to(device)
    beside = None
    if recipe.hybrid:
        source, _ = load_source(study.source, study.channels, str(output_dir / "demo"))
        HybridNet(net2d.to(device), network)  # from here on they share their weights
        beside = net2d, source.images.to(device), source.labels.to(device)
    images, numbers = items.images[train].to(device), items.labels[train].to(device)
    predicted = fine_tune(
        network, cell.mode, images, numbers, items.images[test].to(device), study.finetuning, cell.seed, beside
    )
    return {
        "source": study.source.name, "dataset": spec.name, "modality": spec.modality, "method": cell.method,
        "mode": cell.mode, "seed": cell.seed, "fold": cell.fold,
        **table1_metrics(predicted, items.labels[test].numpy(), classes),
        "n_train": len(train), "n_test": len(test), "resampled": not isinstance(spec.folds, str),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def _given(spec: DataSpec) -> dict[str, Any]:
    """What is not the default, so that an option more in a later version changes nothing."""
    return {name: value for name, value in spec._asdict().items() if value != spec._field_defaults.get(name)}


def _keep_settings(study: Study, output_dir: Path) -> None:
    """What a finished cell depends on; methods, modes, seeds and data sets may come later."""
    source = study.source._asdict() | {"datasets": [_given(spec) for spec in study.source.datasets]}
    names = ("network", "channels", "keep_depth", "pretraining", "finetuning")
    settings = {"source": source, **{name: getattr(study, name) for name in names}}
    keep_settings(output_dir, settings, {f"dataset {spec.name}": _given(spec) for spec in study.datasets})


def read_rows(study: Study, output_dir: Path) -> list[dict[str, Any]]:
    """Rows of the study's finished cells."""
    return read_results(cell_path(output_dir, cell) for cell in list_cells(study))


def run_study(
    study: Study, output_dir: Path, processes: int = 1, device: str = "cpu", threads: int | None = None
) -> list[dict[str, Any]]:
    """Runs what is missing of a study: pretrainings, then cells, as :func:`~monai_crossd.study.runner.run_jobs` does.

    Every process holds the data set it works on in memory.

    Args:
        study: to run.
        output_dir: of pretrained weights and cells; a killed run goes on there.
        processes: that work at the same time.
        device: "cpu", "cuda", "cuda:1", ...
        threads: of the CPU in each process.

    Returns:
        Rows of all cells that are finished.

    Raises:
        ValueError: If the folder holds cells of other settings.
        RuntimeError: If cells failed, when the others are done.

    Example:
        .. code-block:: python

            rows = run_study(read_study(config), "eval/study", processes=2)
    """
    _keep_settings(study, output_dir)
    for spec in (*study.source.datasets, *study.datasets):  # once, before processes ask for it at the same time
        locate(spec, str(output_dir / "demo"))
    cells: Jobs = {
        cell_path(output_dir, cell): partial(run_cell, study, output_dir, cell) for cell in list_cells(study)
    }
    missing = [cell for cell in list_cells(study) if not cell_path(output_dir, cell).exists()]
    needed = sorted({(METHODS[cell.method].pretraining or "", cell.seed) for cell in missing})
    pretrainings: Jobs = {
        weights_path(output_dir, name, seed).with_suffix(".json"): partial(pretrain, study, output_dir, name, seed)
        for name, seed in needed
        if name and name not in study.source.weights
    }
    run_jobs(pretrainings, processes, device, threads, wait=True)
    run_jobs(cells, processes, device, threads)
    return read_rows(study, output_dir)


class PresetStudy(NamedTuple):
    """A group of a table: `study` is None where no data set of it was found; `missing` says of each what is missing."""

    title: str
    study: Study | None
    missing: list[str]


def preset_studies(config: Mapping[str, Any]) -> list[PresetStudy]:
    """Studies of images and of volumes, for they have other methods.

    Args:
        config: "preset", a key of :data:`PRESETS`; "data_root", the folder of the
            data sets; "folds" of each of them, 5 by default, because the paper does not say how many; what else
            :class:`Study` needs: source, pretraining and finetuning. "methods",
            "modes", "reference" and "metric" are the preset's, where they are not given.

    Raises:
        ValueError: for an unknown preset, or one that is no transfer (Table I is a pretraining).

    Example:
        .. code-block:: python

            for part in preset_studies({"preset": "table5", "data_root": "/data"}):
                run_study(part.study, f"eval/{part.title}")
    """
    values = dict(config)
    name, root = values.pop("preset"), values.pop("data_root", ".")
    folds = values.pop("folds", PAPER_FOLDS)
    preset = look_up_option(name, PRESETS)
    if preset["modes"] == ["pretraining"]:
        raise ValueError(
            f"{name} of the paper compares 2D networks in pretraining: train them by the bundle crossd_2d_pretraining, "
            "configs train.yaml and paper.yaml, whose evaluation writes these metrics."
        )
    values.setdefault("network", {"model_name": preset["network"]})
    values.setdefault("modes", preset["modes"])
    values.setdefault("metric", preset["metrics"][0])
    studies = []
    for group in preset["groups"]:
        missing, specs = [], []
        for dataset in group["datasets"]:
            entry, (path, what) = PAPER_DATASETS[dataset], paper_dataset(dataset, root)
            if path is None:
                missing.append(what)
                continue
            specs.append(
                {
                    "name": dataset, "dataset": str(path), "modality": entry.modality, "paper": dataset,
                    "spatial_size": list(entry.size), "channels": entry.channels, "folds": folds,
                }
            )  # fmt: skip
        methods = {"methods": group["methods"], "reference": group["reference"]}
        study = read_study({**methods, **values, "datasets": specs}) if specs else None
        studies.append(PresetStudy(group["title"], study, missing))
    return studies
