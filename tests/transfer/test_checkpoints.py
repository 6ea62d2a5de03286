# SPDX-License-Identifier: Apache-2.0
"""Files under a checkpoint's name that are damaged, or something else: refused by path, with the cause and a remedy."""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from monai_crossd.transfer import load_2d, read_checkpoint
from monai_crossd.transfer.checkpoints import read_file

STATE = {f"w{i}": torch.arange(40.0) + i for i in range(3)}


def refusal(path) -> str:
    with pytest.raises(ValueError, match=path.name) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert "weights_only` set to `False`" not in text
    assert "\x1b" not in text
    return text


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_file_cut_off_anywhere_is_truncated(tmp_path, zipped):
    path = tmp_path / "cut.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert read_checkpoint(path).keys() == STATE.keys()
    lengths = {*range(1, 20), *range(20, len(whole), 61), *range(len(whole) - 12, len(whole))}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        assert "truncated" in refusal(path), length


@pytest.mark.parametrize("zipped", [True, False])
def test_a_flipped_bit_never_changes_a_value_unseen(tmp_path, zipped):
    """The older kind has no checksums: what is in its pickle is found, a number in a tensor cannot be."""
    path = tmp_path / "flipped.pt"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    damaged = found = 0
    for at in range(4, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            state = read_checkpoint(path)
        except ValueError:
            found += 1
        else:
            damaged += any(k not in state or not state[k].equal(v) for k, v in STATE.items())
    assert found > 0
    if zipped:
        assert damaged == 0


def test_junk_is_named(tmp_path):
    path = tmp_path / "junk.pt"
    generator = np.random.default_rng(0)
    junk = [generator.bytes(length) for length in (1, 2, 3, 7, 50, 3000)] + [bytes([byte]) * 5 for byte in range(256)]
    for content in [*junk, b"hello", b"\x90\x30\x85" * 5]:
        path.write_bytes(content)
        refusal(path)


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def script(path):
    torch.jit.script(nn.Linear(1, 1)).save(str(path))


def safetensors(path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


def foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")


def tensor(path):
    torch.save(torch.zeros(3), path)


OTHERS = {
    "empty": (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "git lfs pull"),
    "html": (lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"), "web page"),
    "xml": (lambda path: path.write_text("<?xml version='1.0'?><Error/>"), "web page or XML"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 90), "Keras"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"a")), "unpack it first"),
    "npy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + b"\0" * 90), "numpy array"),
    "npz": (npz, "zip archive that torch.save did not write"),
    "zip": (foreign_zip, "zip archive that torch.save did not write"),
    "script": (script, r"TorchScript file: .*torch\.jit\.load"),
    "safetensors": (safetensors, r"safetensors\.torch\.load_file"),
    "tensor": (tensor, r"no state_dict \(a Tensor was found\)"),
    "text": (lambda path: path.write_text("no checkpoint"), "is not a checkpoint of tensors"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_what_else_lies_under_the_name_is_told(tmp_path, name):
    path = tmp_path / "weights.pth"
    write, says = OTHERS[name]
    write(path)
    with pytest.raises(ValueError, match=rf"weights\.pth.*{says}"):
        read_checkpoint(path)


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name}.*is a folder"):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.pt.*does not exist"):
        read_file(tmp_path / "none.pt")


@pytest.fixture
def nothing_allowed():
    """Without the classes that a disk cache of this process has allowed."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(before)


@pytest.mark.usefixtures("nothing_allowed")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, r"argparse\.Namespace"),
        ({"state_dict": STATE, "best": np.float64(0.5)}, r"numpy\._?core\.multiarray\.scalar"),
        (nn.Conv2d(1, 1, 1), r"torch\.nn\.modules\.conv\.Conv2d"),
    ],
    ids=["namespace", "numpy", "module"],
)
def test_objects_beside_tensors_are_named_with_two_ways_out(tmp_path, content, names, zipped):
    path = tmp_path / "objects.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    text = refusal(path)
    assert "torch.save(net.state_dict(), path)" in text
    with pytest.raises(ValueError, match=rf"add_safe_globals\(\[.*{names}"):
        read_checkpoint(path)


def test_the_way_out_works(tmp_path):
    path = tmp_path / "args.pt"
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, path)
    before = torch.serialization.get_safe_globals()
    try:
        torch.serialization.add_safe_globals([argparse.Namespace])
        assert read_checkpoint(path).keys() == STATE.keys()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_a_damaged_file_fills_nothing(tmp_path):
    path, net = tmp_path / "cut.pt", nn.Sequential(nn.Conv3d(1, 1, 3))
    torch.save(nn.Sequential(nn.Conv2d(1, 1, 3)).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-30])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"cut\.pt.*truncated"):
        load_2d(net, path, "i3d")
    assert all(value.equal(before[key]) for key, value in net.state_dict().items())
