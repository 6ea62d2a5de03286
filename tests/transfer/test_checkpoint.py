# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on disk: read with weights_only, named when missing or unreadable, loaded whole or not at all."""

from __future__ import annotations

import copy
import logging
import os

import pytest
import torch
from torch import nn

from monai_crossd import TransferError
from monai_crossd.networks import build_resnet
from monai_crossd.transfer import CHOICES, conv_of, read_checkpoint, transfer_checkpoint


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
        report = transfer_checkpoint(tmp_path / "net.pt", net3d, "center")
    assert report.share == 1
    assert net3d[0].weight[..., 1].equal(net2d[0].weight)
    assert "net.pt" in caplog.text
    assert report.summary() in caplog.text


def test_no_path_leaves_the_network(caplog):
    _, net3d = pair()
    before = copy.deepcopy(net3d.state_dict())
    with caplog.at_level(logging.INFO, "monai_crossd"):
        assert transfer_checkpoint(None, net3d) is None
    assert all(value.equal(before[key]) for key, value in net3d.state_dict().items())
    assert "from scratch" in caplog.text


@pytest.mark.parametrize("exists", [True, False])
def test_conv3d_takes_nothing_from_a_checkpoint(tmp_path, caplog, exists):
    net2d, net3d = pair()
    if exists:
        torch.save(net2d.state_dict(), tmp_path / "net.pt")
    before = copy.deepcopy(net3d.state_dict())
    with caplog.at_level(logging.INFO, "monai_crossd"):
        assert transfer_checkpoint(tmp_path / "net.pt", net3d, "conv3d") is None
    assert all(value.equal(before[key]) for key, value in net3d.state_dict().items())
    assert "conv3d takes no 2D weights: the network starts from scratch" in caplog.text


@pytest.mark.parametrize("path", [None, "nowhere.pt"])
@pytest.mark.parametrize("wrong", ["i3", "conv", "CROSSD", ""])
def test_an_unknown_choice_lists_the_choices(path, wrong):
    with pytest.raises(ValueError, match=r"'i3d'.*'conv3d'|'conv3d'.*'i3d'"):
        transfer_checkpoint(path, pair()[1], wrong)
    with pytest.raises(ValueError, match=r"'i3d'.*'conv3d'|'conv3d'.*'i3d'"):
        conv_of(wrong)


@pytest.mark.parametrize("choice", CHOICES)
def test_one_word_builds_and_fills_a_network(tmp_path, choice):
    """The 3D network built with conv_of's convolution takes the weights by the same word."""
    conv2d = "crossd" if choice in ("crossd", "bank") else "conv"
    net2d = build_resnet("resnet10", conv2d, 2, widen_factor=0.0625, num_classes=3)
    torch.save(net2d.state_dict(), tmp_path / "net.pt")
    net3d = build_resnet("resnet10", conv_of(choice), 3, widen_factor=0.0625, num_classes=3)
    report = transfer_checkpoint(tmp_path / "net.pt", net3d, choice)
    if choice == "conv3d":
        assert report is None
    else:
        assert not report.conflicts
        assert "conv1.weight" in report.transferred
        assert net3d.fc.weight.equal(net2d.fc.weight)
    assert net3d.eval()(torch.randn(1, 1, 32, 32, 8)).shape == (1, 3)


def test_a_checkpoint_of_another_network_loads_nothing(tmp_path):
    _, net3d = pair()
    before = copy.deepcopy(net3d.state_dict())
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 5), nn.Linear(4, 4)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(TransferError, match=r"1\.running_mean"):
        transfer_checkpoint(tmp_path / "other.pt", net3d, "i3d")
    assert all(value.equal(before[key]) for key, value in net3d.state_dict().items())
