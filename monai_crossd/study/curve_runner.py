# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of a curve study, any number of processes at once: each takes what is neither done nor being run."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.metrics import compute_average_surface_distance, compute_dice
from torch import Tensor, nn

from .._replacing import replacing
from ..conv import use_conv
from ..transfer import read_checkpoint, start_from_2d
from .curve import CurveCell, CurveStudy, Initialization, check_given, curve_cells
from .learning import augment, endless_batches, learn, predict
from .load import Items, Volumes, load_items, load_volumes
from .split import draw_cases

__all__ = ["build_network", "read_results", "run_curve", "run_curve_cell"]

LABEL_SMOOTHING = 0.05

logger = logging.getLogger(__name__)


def build_network(study: CurveStudy, start: Initialization, classes: int) -> nn.Module:
    """The network of an initialization, with new weights."""
    definition = {**study.network, **start.network}
    config = {"network": definition, "conv": start.conv, "in_channels": study.channels, "num_classes": classes}
    told = "@conv" in json.dumps(definition)
    with nullcontext() if told or start.conv == "conv" else use_conv(start.conv):
        network: nn.Module = ConfigParser(config).get_parsed_content("network")
    return network


def carry(network: nn.Module, study: CurveStudy, start: Initialization) -> tuple[set[str], str]:
    """Fills a network from the 2D weights of its initialization; those of an encoder fill that of a U-Net.

    Returns:
        Keys of the network that were filled, and the report's summary.
    """
    path = str(study.source[str(start.weights)])
    state = read_checkpoint(path)
    is_unet = isinstance(getattr(network, "encoder", None), nn.Module)
    prefix = "encoder." if is_unet and not any("encoder." in key for key in state) else ""
    part = network.get_submodule(prefix.rstrip("."))
    keys = [*part.state_dict(), *state]
    exclude = [pattern for pattern in study.exclude if any(fnmatchcase(key, pattern) for key in keys)]
    report = start_from_2d(part, path, start.inflate, exclude=exclude)
    assert report is not None
    return {f"{prefix}{key}" for key in report.transferred}, report.summary()


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
    """Trains and tests one cell and writes its result: a score, or what gives one, of each test item.

    Args:
        study: of the cell.
        output_dir: of the study.
        cell: to run.
        device: to train on.
    """
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
    result = {
        **cell._asdict(), "volumes": len(train), "seconds": round(time.perf_counter() - began, 2),
        "carried": summary, "trained_on": [items.names[int(i)] for i in train],
        "items": [items.names[int(i)] for i in test], "patients": [patients[int(i)] for i in test], **scores,
    }  # fmt: skip
    with replacing(result_path(output_dir, cell)) as temporary:
        temporary.write_text(json.dumps(result, allow_nan=False))
    return result


def result_path(output_dir: Path, cell: CurveCell) -> Path:
    """The file that a finished cell has."""
    return output_dir / "cells" / f"{cell.name}.json"


def read_results(study: CurveStudy, output_dir: Path) -> list[dict[str, Any]]:
    """Results of the study's finished cells."""
    paths = [result_path(output_dir, cell) for cell in curve_cells(study)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process has a cell for itself; the lock is the operating system's and ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except NotImplementedError:  # a file system without locks: two may run the same cell, and write the same
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


ENTRIES = "entries"  # settings of which a later study may have others beside those of cells that are done

# what cells of a folder may differ in, or what only the report depends on
_FREE = ("name", "data", "source", "train_cases", "seeds", "initializations", "metric", "compare_with", "published")


def _settings(study: CurveStudy) -> dict[str, Any]:
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
    return json.loads(json.dumps(settings | {ENTRIES: entries}))


def keep_settings(study: CurveStudy, output_dir: Path) -> None:
    """Writes the settings, or compares them with those that the folder's cells were made with.

    Raises:
        FileNotFoundError: If a file of 2D weights is missing.
        ValueError: If one differs, with both.
    """
    path, new = output_dir / "settings.json", _settings(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        old = json.loads(path.read_text()) if path.exists() else {**new, ENTRIES: {}}
        entries = old.get(ENTRIES, {}), new[ENTRIES]
        pairs = [(name, old.get(name), new.get(name)) for name in old | new if name != ENTRIES]
        pairs += [(name, entries[0][name], entries[1][name]) for name in entries[0].keys() & entries[1].keys()]
        for name, before, now in pairs:
            if before != now:
                raise ValueError(
                    f"{output_dir} holds cells with {name} {before}, and it is {now} now: name another output_dir."
                )
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(new | {ENTRIES: entries[0] | entries[1]}, indent=1))


def _place() -> tuple[int, int]:
    """Number of this process, and of all, as torchrun or SLURM says."""
    for rank, world in (
        ("RANK", "WORLD_SIZE"),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
    ):
        if rank in os.environ and world in os.environ:
            return int(os.environ[rank]) % int(os.environ[world]), int(os.environ[world])
    return 0, 1


def _work(study: CurveStudy, output_dir: Path, device: str, threads: int | None, worker: int, workers: int) -> None:
    """Runs what nobody has run or is running, from another place of the list in each process.

    Raises:
        RuntimeError: If cells failed, naming them; the others are done.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cuda":
        device = f"cuda:{worker % torch.cuda.device_count()}"
    cells = curve_cells(study)
    first = len(cells) * worker // workers
    failed: list[tuple[CurveCell, Exception]] = []
    for cell in cells[first:] + cells[:first]:
        path = result_path(output_dir, cell)
        if path.exists():
            continue
        with _claimed(path) as mine:
            if not mine or path.exists():
                continue
            try:
                result = run_curve_cell(study, output_dir, cell, device)
            except Exception as error:
                logger.error("%s failed: %s", cell.name, error)
                failed.append((cell, error))
                continue
        done = sum(result_path(output_dir, other).exists() for other in cells)
        logger.info("[%d/%d] %s: %.0f s", done, len(cells), cell.name, result["seconds"])
    if failed:
        names = "; ".join(cell.name for cell, _ in failed[:8])
        raise RuntimeError(
            f"{len(failed)} cells failed ({names}), the others are kept: mend the cause and run again."
        ) from failed[0][1]


def run_curve(
    study: CurveStudy, output_dir: Path, processes: int = 1, device: str = "cpu", threads: int | None = None
) -> list[dict[str, Any]]:
    """Runs what is missing of a study. A finished cell is never run again, nor is one that another process is running.

    Start it as often as you like on the same folder, on one computer or several: by hand, with `processes`, as ranks of
    torchrun or as an array of SLURM. A killed process leaves its cell to the others.

    Args:
        study: to run.
        output_dir: of the cells.
        processes: that this call starts.
        device: "cpu", "cuda" (processes take the GPUs by turns), "cuda:1", ...
        threads: of the CPU in each process; None shares the cores among several processes, and leaves one as it is.

    Returns:
        Results of all cells that are finished.

    Raises:
        ValueError: If data or weights are not given, or the folder holds cells of other settings.
        RuntimeError: If cells failed, when the others are done.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; expected at least 1.")
    check_given(study)
    keep_settings(study, output_dir)
    _load(study, str(output_dir / "demo"))  # what is wrong with the data is said once
    if threads is None and processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
    rank, world = _place()
    places = [(rank * processes + at, world * processes) for at in range(processes)]
    if processes == 1:
        _work(study, output_dir, device, threads, *places[0])
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            calls = [pool.apply_async(_work, (study, output_dir, device, threads, *place)) for place in places]
            for call in calls:
                call.get()
    return read_results(study, output_dir)
