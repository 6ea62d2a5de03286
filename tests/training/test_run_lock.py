# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a folder, whatever became of the run before."""

from __future__ import annotations

import signal
import time

import pytest
from processes import start

from monai_crossd.training import claim_folders, release_folders, run_lock


@pytest.fixture(autouse=True)
def _released(monkeypatch):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)
    yield
    release_folders()


def claim_and_wait(folder, sign):
    claim_folders(folder)
    sign.touch()
    signal.pause()


@pytest.fixture
def other_run(tmp_path):
    """Another process that has a folder and waits."""
    started = []

    def claimed(folder):
        process = start(claim_and_wait, folder, tmp_path / "claimed")
        started.append(process)
        while not (tmp_path / "claimed").exists():
            assert process.is_alive()
            time.sleep(0.01)
        return process

    yield claimed
    for process in started:
        process.kill()
        process.join()


def test_second_run_stops_until_the_first_ends_or_dies(tmp_path, other_run):
    process = other_run(tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for name in ("out", "link", "out/../out"):
        with pytest.raises(RuntimeError, match=r"Another run is writing to .*out .*give this run another --output_dir"):
            claim_folders(tmp_path / "other", tmp_path / name)
    claim_folders(tmp_path / "out2")
    process.kill()
    process.join()
    claim_folders(tmp_path / "out")


def test_this_process_may_claim_again(tmp_path):
    claim_folders(tmp_path, tmp_path)
    claim_folders(tmp_path)


def test_released_folders_are_free_for_others(tmp_path, other_run):
    claim_folders(tmp_path)
    release_folders()
    other_run(tmp_path)
    with pytest.raises(RuntimeError, match="Another run"):
        claim_folders(tmp_path)


def test_other_processes_of_a_distributed_run_take_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock.idist, "get_rank", lambda: 1)
    claim_folders(tmp_path / "out")
    assert not (tmp_path / "out").exists()
