# SPDX-License-Identifier: Apache-2.0
"""Runs what is not done yet of a study, in one process or several: pretrainings in 2D, then cells."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .._replacing import replacing
from ..networks import HybridNet
from ..transfer import load_2d, read_checkpoint
from .learning import fine_tune, fit, predict
from .load import Items, keep_last, load_items, locate
from .methods import METHODS, build_2d, initialize
from .scores import table1_metrics
from .split import draw_per_class, make_folds
from .study import Cell, DataSpec, Source, Study, list_cells

__all__ = ["cell_path", "pretrain", "pretrained_network", "read_rows", "run_cell", "run_study", "weights_path"]

logger = logging.getLogger(__name__)


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
    """Trains a 2D network on the source and writes its weights, then its row: seconds, and scores on held-out images.

    Args:
        study: of which the source and the schedule count.
        output_dir: of the study.
        pretraining: one of :data:`~monai_crossd.study.methods.PRETRAININGS`.
        seed: of weights, order and augmentation.
        device: to train on.
    """
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
    with replacing(path.with_suffix(".json")) as temporary:  # last: with it the pretraining is done
        temporary.write_text(json.dumps(row))
    return row


def pretrained_network(
    study: Study, output_dir: Path, pretraining: str | None, seed: int, channels: int | None = None
) -> nn.Module:
    """The 2D network that a cell starts from; where nothing is pretrained, one with new weights.

    Args:
        study: with the source.
        output_dir: of the study.
        pretraining: one of :data:`~monai_crossd.study.methods.PRETRAININGS`.
        seed: of the pretraining and of what is new.
        channels: of the data set, to which the stem of weights from a file is adapted.
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
    """Trains and tests one cell and writes its row.

    Args:
        study: of the cell.
        output_dir: of the study, with the pretrained weights.
        cell: to run.
        device: to train on.
    """
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
    row = {
        "source": study.source.name, "dataset": spec.name, "modality": spec.modality, "method": cell.method,
        "mode": cell.mode, "seed": cell.seed, "fold": cell.fold,
        **table1_metrics(predicted, items.labels[test].numpy(), classes),
        "n_train": len(train), "n_test": len(test), "resampled": not isinstance(spec.folds, str),
        "seconds": time.perf_counter() - start,
    }  # fmt: skip
    with replacing(cell_path(output_dir, cell)) as temporary:
        temporary.write_text(json.dumps(row))
    return row


def _given(spec: DataSpec) -> dict[str, Any]:
    """What is not the default, so that an option more in a later version changes nothing."""
    return {name: value for name, value in spec._asdict().items() if value != spec._field_defaults.get(name)}


def _settings(study: Study) -> dict[str, Any]:
    """What a finished cell depends on; methods, modes, seeds and data sets may come later."""
    source = study.source._asdict() | {"datasets": [_given(spec) for spec in study.source.datasets]}
    names = ("network", "channels", "keep_depth", "pretraining", "finetuning")
    settings = {"source": source, **{name: getattr(study, name) for name in names}}
    settings["datasets"] = {spec.name: _given(spec) for spec in study.datasets}
    return json.loads(json.dumps(settings))


def _keep_settings(study: Study, output_dir: Path) -> None:
    """Writes the settings, or compares them with those that the folder's cells were made with.

    Raises:
        ValueError: naming the first that differs.
    """
    path, new = output_dir / "settings.json", _settings(study)
    old = json.loads(path.read_text()) if path.exists() else {"datasets": {}}
    both = old["datasets"].keys() & new["datasets"].keys()
    pairs = [(name, old[name], new[name]) for name in old if name != "datasets"]
    pairs += [(f"dataset {name}", old["datasets"][name], new["datasets"][name]) for name in sorted(both)]
    for name, before, now in pairs:
        if before != now:
            raise ValueError(
                f"{output_dir} holds cells with {name} {before}, and it is {now} now: name another output_dir."
            )
    new["datasets"] = old["datasets"] | new["datasets"]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(new, indent=1))


def _run_jobs(
    run: Callable[..., dict[str, Any]], study: Study, output_dir: Path, jobs: Sequence, processes: int, device: str
) -> list[dict[str, Any]]:
    """Results of all jobs; those that fail are named when the others are done.

    Raises:
        RuntimeError: naming what failed, with the first cause.
    """
    rows, failed = [], []
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        futures = {pool.submit(run, study, output_dir, *job, device): job for job in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            job = " ".join(map(str, futures[future][0] if isinstance(futures[future][0], tuple) else futures[future]))
            if error := future.exception():
                failed.append((job, error))
                logger.error("[%d/%d] %s failed: %s", number, len(jobs), job, error)
                continue
            rows.append(row := future.result())
            score = row.get(study.metric, float("nan"))
            logger.info("[%d/%d] %s: %s %.3f, %.0f s", number, len(jobs), job, study.metric, score, row["seconds"])
    if failed:
        names = "; ".join(name for name, _ in failed[:8])
        raise RuntimeError(
            f"{len(failed)} of {len(jobs)} jobs failed ({names}), the others are kept: mend the cause and run again."
        ) from failed[0][1]
    return rows


def read_rows(study: Study, output_dir: Path) -> list[dict[str, Any]]:
    """Rows of the study's finished cells."""
    paths = [cell_path(output_dir, cell) for cell in list_cells(study)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def run_study(study: Study, output_dir: Path, processes: int = 1, device: str = "cpu") -> list[dict[str, Any]]:
    """Runs what is missing of a study: pretrainings, then cells. A finished one is never run again.

    Every process holds the data set it works on in memory.

    Args:
        study: to run.
        output_dir: of pretrained weights and cells; a killed run goes on there.
        processes: that work at the same time; the processor's cores are shared among them.
        device: "cpu", "cuda", "cuda:1", ...

    Returns:
        Rows of all cells.

    Raises:
        ValueError: if the folder holds cells of other settings.
        RuntimeError: if a cell failed, when the others are done.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; expected at least 1.")
    _keep_settings(study, output_dir)
    for spec in (*study.source.datasets, *study.datasets):  # once, before processes ask for it at the same time
        locate(spec, str(output_dir / "demo"))
    cells = [cell for cell in list_cells(study) if not cell_path(output_dir, cell).exists()]
    needed = {(METHODS[cell.method].pretraining, cell.seed) for cell in cells}
    pretrainings = [
        (name, seed)
        for name, seed in sorted(needed, key=str)
        if name and name not in study.source.weights
        if not weights_path(output_dir, name, seed).with_suffix(".json").exists()
    ]
    _run_jobs(pretrain, study, output_dir, pretrainings, processes, device)
    _run_jobs(run_cell, study, output_dir, [(cell,) for cell in cells], processes, device)
    return read_rows(study, output_dir)
