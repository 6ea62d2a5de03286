# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: read with weights_only, named when missing or unreadable, loaded whole or not at all."""

from __future__ import annotations

import copy
import logging
import os

import pytest
import torch
from torch import nn
from ways import WAYS

from monai_crossd import TransferError
from monai_crossd.networks import build_resnet
from monai_crossd.transfer import read_checkpoint, start_from_2d

SMALL = {"widen_factor": 0.0625, "num_classes": 3}


def pair():
    net2d = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    net3d = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4))
    return net2d, net3d


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s},
                                  lambda s: {"network": s, "loss": 0.1}])  # fmt: skip
def test_a_state_dict_is_read_from_inside_what_wraps_it(tmp_path, wrap):
    net2d, _ = pair()
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
    torch.save(pair()[0].state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.pt"):
        read_checkpoint(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"weight": torch.zeros(1), "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"trap\.pt"):
        read_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_transfer_from_a_file(tmp_path, caplog):
    net2d, net3d = pair()
    torch.save(net2d.state_dict(), tmp_path / "net.pt")
    with caplog.at_level(logging.INFO, "monai_crossd"):
        report = start_from_2d(net3d, tmp_path / "net.pt")
    assert report.share == 1
    assert net3d[0].weight[..., 1].equal(net2d[0].weight)
    assert "net.pt" in caplog.text
    assert report.summary() in caplog.text


def test_no_path_leaves_the_network(caplog):
    _, net3d = pair()
    before = copy.deepcopy(net3d.state_dict())
    with caplog.at_level(logging.INFO, "monai_crossd"):
        assert start_from_2d(net3d, None) is None
    assert all(value.equal(before[key]) for key, value in net3d.state_dict().items())
    assert "from scratch" in caplog.text


@pytest.mark.parametrize("path", [None, "nowhere.pt"])
@pytest.mark.parametrize("wrong", ["i3", "conv", "I3D", "acs", ""])
def test_an_unknown_word_lists_the_words_before_anything_is_read(path, wrong):
    with pytest.raises(ValueError, match=r"'i3d'"):
        start_from_2d(pair()[1], path, wrong)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_config_says_builds_and_fills_a_network(tmp_path, way):
    conv, inflate = WAYS[way]
    net2d = build_resnet("resnet10", "crossd" if way in ("crossd", "bank") else "conv", 2, **SMALL)
    torch.save(net2d.state_dict(), tmp_path / "net.pt")
    net3d = build_resnet("resnet10", conv, 3, **SMALL)
    report = start_from_2d(net3d, tmp_path / "net.pt", inflate)
    assert not report.conflicts
    assert "conv1.weight" in report.transferred
    assert net3d.fc.weight.equal(net2d.fc.weight)
    assert net3d.eval()(torch.randn(1, 1, 32, 32, 8)).shape == (1, 3)


def test_a_checkpoint_of_another_network_loads_nothing(tmp_path):
    _, net3d = pair()
    before = copy.deepcopy(net3d.state_dict())
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 5), nn.Linear(4, 4)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(TransferError, match=r"1\.running_mean"):
        start_from_2d(net3d, tmp_path / "other.pt", "i3d")
    assert all(value.equal(before[key]) for key, value in net3d.state_dict().items())
