# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of any study, any number of processes at once: each takes what is neither done nor being run.

A cell is a file that is there once it is done, and a call that gives what is written into it.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from .._replacing import replacing

__all__ = ["Jobs", "keep_settings", "read_results", "run_jobs"]

Jobs = Mapping[Path, Callable[[str], dict[str, Any]]]  # by the file of its result; called with a device
ENTRIES = "entries"  # settings of which a later study may have others beside those of cells that are done

logger = logging.getLogger(__name__)


def keep_settings(output_dir: Path, settings: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """Writes the settings of a study, or compares them with those that the folder's cells were made with.

    Args:
        output_dir: of the study.
        settings: what all cells depend on.
        entries: what some do, by name; those that the folder does not know come on top.

    Raises:
        ValueError: If one differs, with both.
    """
    path, new = output_dir / "settings.json", json.loads(json.dumps({**settings, ENTRIES: entries}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        old = json.loads(path.read_text()) if path.exists() else {**new, ENTRIES: {}}
        before, now = old.get(ENTRIES, {}), new[ENTRIES]
        pairs = [(name, old.get(name), new.get(name)) for name in old | new if name != ENTRIES]
        pairs += [(name, before[name], value) for name, value in now.items() if name in before]
        for name, was, is_now in pairs:
            if was != is_now:
                raise ValueError(
                    f"{output_dir} holds cells with {name} {was}, and it is {is_now} now: name another output_dir."
                )
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({**new, ENTRIES: before | now}, indent=1))


def read_results(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What the finished cells among some have written."""
    return [json.loads(path.read_text()) for path in paths if path.exists()]


@contextmanager
def _claimed(path: Path, wait: bool) -> Iterator[bool]:
    """Whether this process has a cell for itself; the lock is the operating system's and ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=-1 if wait else 0)
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


def _work(jobs: Jobs, device: str, threads: int | None, wait: bool, worker: int, workers: int) -> dict[str, str]:
    """Runs what nobody has run or is running, from another place of the list in each process; says what failed."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "cuda":
        device = f"cuda:{worker % torch.cuda.device_count()}"
    first, failed = len(jobs) * worker // workers, {}
    paths = [*jobs][first:] + [*jobs][:first]
    for path, waits in [(path, waits) for waits in ((False, True) if wait else (False,)) for path in paths]:
        name = "/".join(path.with_suffix("").parts[-2:])
        if path.exists() or name in failed:
            continue
        with _claimed(path, waits) as mine:
            if not mine or path.exists():
                continue
            try:
                result = jobs[path](device)
                with replacing(path) as temporary:
                    temporary.write_text(json.dumps(result, allow_nan=False))
            except Exception as error:
                logger.exception("%s failed", name)
                failed[name] = f"{type(error).__name__}: {error}"
                continue
        logger.info("[%d/%d] %s: %.0f s", sum(p.exists() for p in jobs), len(jobs), name, result["seconds"])
    return failed


def _speak(level: int) -> None:
    """Lets a process say what its parent would."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)


def run_jobs(
    jobs: Jobs, processes: int = 1, device: str = "cpu", threads: int | None = None, wait: bool = False
) -> None:
    """Runs what is missing. A finished cell is never run again, nor is one that another process is running.

    Call it as often as you like on the same files, on one computer or several: by hand, with `processes`, as ranks of
    torchrun or as an array of SLURM. A killed process leaves its cell to the others.

    Args:
        jobs: that a study has, finished ones too.
        processes: that this call starts.
        device: "cpu", "cuda" (processes take the GPUs by turns), "cuda:1", ...
        threads: of the CPU in each process; None shares the cores among several processes, and leaves one as it is.
        wait: for those that others are running.

    Raises:
        ValueError: If `processes` is not a number from 1.
        RuntimeError: If cells failed, when the others are done.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; expected at least 1.")
    if threads is None and processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
    rank, world = _place()
    calls = [(jobs, device, threads, wait, rank * processes + at, world * processes) for at in range(processes)]
    if all(path.exists() for path in jobs):
        return
    if processes == 1:
        found = [_work(*calls[0])]
    else:
        level = logging.getLogger("monai_crossd").getEffectiveLevel()
        with multiprocessing.get_context("spawn").Pool(processes, _speak, (level,)) as pool:
            found = pool.starmap(_work, calls, chunksize=1)
    failed = {name: why for part in found for name, why in part.items()}
    if failed:
        raise RuntimeError(
            f"{len(failed)} cells failed ({'; '.join([*failed][:8])}), the others are kept: mend the cause and run "
            f"again. The first: {next(iter(failed.values()))}"
        )
