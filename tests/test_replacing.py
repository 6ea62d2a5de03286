# SPDX-License-Identifier: Apache-2.0
"""Files that several processes write: whole, with the usual rights, and nothing left beside them."""

from __future__ import annotations

import os
import signal
import stat

import pytest
from processes import start

from monai_crossd._replacing import replacing
from monai_crossd.training.scores import write_csv
from monai_crossd.visualize.figures import save_figure


def write_often(path, value):
    for _ in range(40):
        with replacing(path) as temporary:
            temporary.write_bytes(bytes([value]) * 100_000)


def test_two_writers_never_mix(tmp_path):
    path = tmp_path / "a [1]*.bin"
    processes = [start(write_often, path, value) for value in (1, 2)]
    seen = set()
    while any(process.is_alive() for process in processes):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
            seen.add(content[0])
    assert [process.exitcode for process in processes] == [0, 0]
    assert seen
    assert list(tmp_path.iterdir()) == [path]


def test_each_writer_has_a_name_of_its_own(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as two:  # the second does not take the first for a leftover
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the last to be finished
    assert list(tmp_path.iterdir()) == [path]


def die_within(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    process = start(die_within, path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    other = tmp_path / ".b.txt.0.part"
    other.write_text("of another file")
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_rights_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


class BrokenFigure:
    def savefig(self, path, **_):
        path.write_bytes(b"half")
        raise KeyError("a font")


@pytest.mark.parametrize("write", ["csv", "figure", "block"])
def test_failure_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "a"
    path.write_text("old")

    def rows():
        yield (1, 2)
        raise KeyError("a row")

    def block():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError("anything")

    actions = {
        "csv": lambda: write_csv(path, ["x", "y"], rows()),
        "figure": lambda: save_figure(BrokenFigure(), path),
        "block": block,
    }
    with pytest.raises(KeyError):
        actions[write]()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_be_made_again_is_whole_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: pytest.fail("waited for the disk"))
    path = tmp_path / "a.bin"
    with replacing(path, lasting=False) as temporary:
        temporary.write_bytes(b"old")
        assert not path.exists()

    def fail():
        with replacing(path, lasting=False) as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
