# SPDX-License-Identifier: Apache-2.0
"""Each way of caching a data set on the same volumes: samples per second and peak memory.

The volumes are CT phantoms with label maps, as .nii.gz; a sample is a random crop of one, on the device. Each
measurement has a process of its own, and the ways take turns. Columns, medians over the rounds:

- `build_s`: until the data set is there; "ram" and "gpu" read all files in this time, "smart" half of them;
- `first_per_s`, `later_per_s`: samples per second of the first epoch, and of those after it; an epoch of "smart" has
  half as many samples;
- `iqr_per_s`: interquartile range of the latter over the rounds;
- `ratio`: of `later_per_s` to that of the first way, "none" unless others are chosen;
- `peak_mib`: what the process took at most beside Python and its libraries (without workers, and with the part of a
  library that is loaded late); `peak_gpu_mib`: what tensors took at most on the GPU.

Files may be in the page cache of the operating system, for all ways alike.
"""

from __future__ import annotations

import argparse
import datetime
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from .._version import __version__
from ..data import CACHES, build_dataloader, build_dataset, load_datalist
from ..demo import prepare_phantoms
from ..transforms import modality_transforms
from . import harness

SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the suite."""
    parser.add_argument("--device", default="cpu", help="of the samples, and of the cache on a GPU")
    parser.add_argument("--caches", nargs="+", choices=CACHES, help='the ways; all by default, "gpu" only with a GPU')
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=3, default=(128, 128, 64), help="voxels of a volume")
    parser.add_argument("--crop", type=int, default=64, help="side of a sample, at most that of the volume")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="processes of the loader")
    parser.add_argument("--epochs", type=int, default=3, help="the first included")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of every way")
    parser.add_argument("--quick", action="store_true", help="tiny volumes, one round: to see that it runs")


def measure(case: dict) -> dict[str, float]:
    """Build a data set and load its epochs, in this process.

    Args:
        case: "cache", "items", "folder" (for a cache on disk), "crop", "batch", "workers", "epochs", "device".
    """
    torch.manual_seed(SEED)
    device, found = torch.device(case["device"]), {}

    def make() -> Callable[[], None]:
        start = time.perf_counter()
        transform = modality_transforms("ct", 3, "train", label_key="label", roi_size=case["crop"])
        dataset = build_dataset(case["items"], transform, case["cache"], case["folder"], device)
        loader = build_dataloader(dataset, case["workers"], batch_size=case["batch"], shuffle=True)
        found["build_s"] = time.perf_counter() - start

        def load(epochs: int) -> float:
            start, samples = time.perf_counter(), 0
            for _ in range(epochs):
                for batch in loader:
                    samples += len(batch["image"].to(device))
            harness.synchronise(case["device"])
            return samples / (time.perf_counter() - start)

        def run() -> None:  # is called twice
            if "first_per_s" in found:
                found["later_per_s"] = load(case["epochs"] - 1)
            else:
                found["first_per_s"] = load(1)

        return run

    found["peak_mib"] = harness.peak_memory(make, "cpu")
    found["peak_gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else math.nan
    return found


def _measure_alone(case: dict) -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        return pool.submit(measure, case | {"folder": folder}).result()


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Race the ways of caching.

    Raises:
        ValueError: When there are fewer than two epochs.
    """
    if args.epochs < 2:
        raise ValueError(f"epochs is {args.epochs}; expected at least 2, the first and a later one.")
    volumes, size, rounds = (8, (16, 16, 8), 1) if args.quick else (args.volumes, tuple(args.size), args.rounds)
    gpu = torch.device(args.device).type != "cpu"
    caches = args.caches or [cache for cache in CACHES if gpu or cache != "gpu"]
    measured: dict[str, list[dict]] = {cache: [] for cache in caches}
    with tempfile.TemporaryDirectory() as folder:
        path = prepare_phantoms("ct", Path(folder, "set"), subjects=volumes, size=size, seed=SEED)
        items = [item for section in ("training", "validation") for item in load_datalist(path, section)]
        case = {
            "items": items, "crop": [min(args.crop, side) for side in size], "batch": args.batch,
            "workers": args.workers, "epochs": args.epochs, "device": args.device,
        }  # fmt: skip
        for _ in range(rounds):
            for cache, rows in measured.items():
                rows.append(_measure_alone(case | {"cache": cache}))
    return [
        {
            "case": f"{volumes} volumes of {size[0]}×{size[1]}×{size[2]}, crop {args.crop}, batch {args.batch}",
            "cache": cache,
            **_summary(rows, measured[caches[0]]),
            "workers": args.workers,
            "epochs": args.epochs,
            "rounds": rounds,
            "device": args.device,
            "threads": torch.get_num_threads(),
            "seed": SEED,
            "torch": torch.__version__,
            "version": __version__,
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        }
        for cache, rows in measured.items()
    ]


def _summary(rows: list[dict], limit: list[dict]) -> dict[str, float]:
    """Medians over the rounds, and the spread of what is compared."""
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    later = [row["later_per_s"] for row in rows]
    low, _, high = statistics.quantiles(later, n=4, method="inclusive") if len(later) > 1 else (later[0],) * 3
    ratio = middle["later_per_s"] / statistics.median(row["later_per_s"] for row in limit)
    peaks = {key: middle.pop(key) for key in ("peak_mib", "peak_gpu_mib")}
    return {**middle, "iqr_per_s": high - low, "ratio": ratio, **peaks}
