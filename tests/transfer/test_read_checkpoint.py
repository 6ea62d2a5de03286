# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: read with weights_only, named when missing or unreadable."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from monai_crossd.transfer import read_checkpoint


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s},
                                  lambda s: {"network": s, "loss": 0.1}])  # fmt: skip
def test_a_state_dict_is_read_from_inside_what_wraps_it(tmp_path, wrap):
    net2d = network()
    torch.save(wrap(net2d.state_dict()), tmp_path / "net.pt")
    state = read_checkpoint(tmp_path / "net.pt")
    assert state.keys() == net2d.state_dict().keys()
    assert all(value.equal(net2d.state_dict()[key]) for key, value in state.items())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        read_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        read_checkpoint(tmp_path)


class Trap:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "content",
    [b"", b"no checkpoint", {"epoch": 3}, {}, [torch.zeros(2)], {"weight": 3.0}],
    ids=["empty", "text", "number", "nothing", "list", "float"],
)
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "broken.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"broken\.pt"):
        read_checkpoint(path)


def test_a_cut_off_file_is_named(tmp_path):
    path = tmp_path / "cut.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.pt"):
        read_checkpoint(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"weight": torch.zeros(1), "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt"):
        read_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
