# SPDX-License-Identifier: Apache-2.0
"""Networks in 2D and 3D that start from 2D weights, seen from their outputs and from what was filled."""

from __future__ import annotations

import copy
import json
import logging

import pytest
import torch
from monai.networks.nets import resnet10
from torch import nn
from ways import WAYS

from monai_crossd import TransferError
from monai_crossd.networks import ResNetUNet, build_resnet
from monai_crossd.training import start_from
from monai_crossd.transfer import to_plain

CLASSES = ["benign", "malignant", "normal"]


def classifier(conv: str, classes: int = 3) -> nn.Module:
    return build_resnet("resnet10", conv, 2, widen_factor=0.125, num_classes=classes, no_max_pool=True)


def trained(conv: str) -> nn.Module:
    """Norms and shifts are no longer what they were built as."""
    torch.manual_seed(0)
    net = classifier(conv)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, 1, 24, 24)).square().mean().backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def source() -> dict[str, nn.Module]:
    return {conv: trained(conv) for conv in ("conv", "crossd")}


@pytest.fixture
def write(source, tmp_path):
    def write(conv, labels=CLASSES):
        torch.save(source[conv].state_dict(), tmp_path / "model.pt")
        if labels is not None:
            (tmp_path / "model.json").write_text(json.dumps({"labels": labels}))
        return tmp_path / "model.pt"

    return write


def image() -> torch.Tensor:
    return torch.randn(3, 1, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("labels", [None, CLASSES], ids=["no labels", "labels"])
@pytest.mark.parametrize(("before", "conv"), [("conv", "crossd"), ("conv", "conv"), ("crossd", "crossd")])
@pytest.mark.parametrize("training", [False, True])
def test_the_output_is_kept(source, write, before, conv, labels, training):
    net = classifier(conv)
    assert not torch.allclose(net.eval()(image()), source[before](image()), atol=1e-2)
    report = start_from(net, write(before, labels), dict(enumerate(CLASSES)))
    assert report is not None
    assert not report.skipped
    expected = source[before].train(training)(image())
    source[before].eval()
    torch.testing.assert_close(net.train(training)(image()), expected, atol=1e-4, rtol=1e-4)


def test_plain_convolutions_take_the_kernels_at_the_running_shift(source, write):
    net = classifier("conv")
    start_from(net, write("crossd"), CLASSES)
    torch.testing.assert_close(net.eval()(image()), to_plain(source["crossd"])(image()), atol=1e-4, rtol=1e-4)


def test_it_learns_from_there(write):
    """Kernels, axis and angle get gradients: an angle of 0 is a start and no end."""
    net = classifier("crossd")
    start_from(net, write("conv"), CLASSES)
    net.train()(image()).square().mean().backward()
    assert net.conv1.weight.grad.abs().sum() > 0
    assert net.conv1.predictor[3].weight.grad[3].abs().sum() > 0


HEADS = {
    "other labels, as many": (CLASSES, ["a", "b", "c"]),
    "more of them": (CLASSES, [*CLASSES, "other"]),
    "more, and the file names none": (None, [*CLASSES, "other"]),
}


@pytest.mark.parametrize("conv", ["conv", "crossd"])
@pytest.mark.parametrize("case", HEADS)
def test_heads_of_other_labels_stay_behind(source, write, case, conv):
    theirs, ours = HEADS[case]
    net = classifier(conv, len(ours)).eval()
    before = {key: value.clone() for key, value in net.fc.state_dict().items()}
    report = start_from(net, write("conv", theirs), dict(enumerate(ours)))
    assert report is not None
    assert {key for key in report.skipped if "fc." in key} == {"fc.weight", "fc.bias"}
    torch.testing.assert_close(net.fc.state_dict(), before, rtol=0, atol=0)
    net.fc = nn.Identity()
    head, source["conv"].fc = source["conv"].fc, nn.Identity()
    expected = source["conv"](image())
    source["conv"].fc = head
    torch.testing.assert_close(net(image()), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("labels", [None, CLASSES], ids=["no labels", "labels"])
def test_a_trunk_alone_leaves_the_head_new(source, tmp_path, labels, caplog):
    """As RadImageNet's files are."""
    state = {key: value for key, value in source["conv"].state_dict().items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "model.pt")
    net = classifier("conv")
    with caplog.at_level(logging.INFO):
        report = start_from(net, tmp_path / "model.pt", labels)
    assert report is not None
    assert set(report.initial) == {"fc.weight", "fc.bias"}
    assert "new weights in fc.weight, fc.bias" in caplog.text
    torch.testing.assert_close({key: net.state_dict()[key] for key in state}, state, rtol=0, atol=0)


# what the file is of (a classifier, a part or all of a U-Net, by the prefix there), what wraps its names, what it fills
UNETS = {
    "classifier": ("fc", "", {"encoder"}),
    "classifier, wrapped": ("fc", "encoder.", {"encoder"}),
    "encoder": ("encoder.", "encoder.", {"encoder"}),
    "encoder, wrapped": ("encoder.", "module.encoder.", {"encoder"}),
    "U-Net": ("", "", {"encoder", "decoder", "head"}),
    "U-Net, wrapped": ("", "module.", {"encoder", "decoder", "head"}),
}


@pytest.mark.parametrize("case", UNETS)
def test_a_file_fills_the_part_that_it_is_of(case, source, tmp_path):
    of, prefix, expected = UNETS[case]
    torch.manual_seed(0)
    options = {"model_name": "resnet10", "widen_factor": 0.125, "decoder_channels": (8, 8, 8, 8, 4)}
    state = ResNetUNet(2, 1, 3, conv="conv", **options).state_dict()
    if of == "fc":
        state = source["conv"].state_dict()
    else:
        state = {key.removeprefix(of): value for key, value in state.items() if key.startswith(of)}
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "model.pt")
    net = ResNetUNet(3, 1, 3, conv="conv", no_max_pool=True, **options)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = start_from(net, tmp_path / "model.pt", part="encoder")
    assert report is not None
    assert report.share == 1
    changed = {key.partition(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == expected


REFUSED = {
    "a wider one": ("conv", build_resnet("resnet10", "crossd", 2, widen_factor=0.25, num_classes=3)),
    "a deeper one": ("conv", build_resnet("resnet18", "crossd", 2, widen_factor=0.125, num_classes=3)),
    "shortcuts of another kind": ("conv", resnet10(spatial_dims=2, n_input_channels=1, num_classes=3)),
}


@pytest.mark.parametrize("labels", [CLASSES, ["a", "b", "c"]], ids=["same", "other"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_whole(write, case, labels):
    before, net = REFUSED[case]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="nothing was loaded"):
        start_from(net, write(before), labels)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)


def pair() -> tuple[nn.Module, nn.Module]:
    net2d = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    return net2d, nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4))


def test_a_3d_network_starts_from_a_2d_file(tmp_path, caplog):
    net2d, net3d = pair()
    torch.save(net2d.state_dict(), tmp_path / "net.pt")
    with caplog.at_level(logging.INFO, "monai_crossd"):
        report = start_from(net3d, tmp_path / "net.pt")
    assert report is not None
    assert report.share == 1
    assert net3d[0].weight[..., 1].equal(net2d[0].weight)
    assert "net.pt" in caplog.text
    assert report.summary() in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_what_a_config_says_builds_and_fills_a_network(tmp_path, way):
    conv, inflate = WAYS[way]
    small = {"widen_factor": 0.0625, "num_classes": 3}
    net2d = build_resnet("resnet10", "crossd" if way in ("crossd", "bank") else "conv", 2, **small)
    torch.save(net2d.state_dict(), tmp_path / "net.pt")
    net3d = build_resnet("resnet10", conv, 3, **small)
    report = start_from(net3d, tmp_path / "net.pt", inflate=inflate)
    assert report is not None
    assert not report.conflicts
    assert "conv1.weight" in report.transferred
    assert net3d.fc.weight.equal(net2d.fc.weight)
    assert net3d.eval()(torch.randn(1, 1, 32, 32, 8)).shape == (1, 3)


@pytest.mark.parametrize(
    ("theirs", "ours", "carried"),
    [(CLASSES, CLASSES, True), (["BENIGN", "Malignant", "normal"], CLASSES, True), (["a", "b", "c"], CLASSES, False)],
)
def test_a_3d_head_takes_that_of_the_same_labels(theirs, ours, carried, source, write):
    net3d = build_resnet("resnet10", "conv", 3, widen_factor=0.125, num_classes=3, no_max_pool=True)
    start_from(net3d, write("conv", theirs), ours)
    assert torch.equal(net3d.fc.weight, source["conv"].fc.weight) == carried
    assert torch.equal(net3d.bn1.weight, source["conv"].bn1.weight)


@pytest.mark.parametrize("path", [None, "nowhere.pt"])
@pytest.mark.parametrize("wrong", ["i3", "conv", "I3D", "acs", ""])
def test_an_unknown_word_lists_the_words_before_anything_is_read(path, wrong):
    with pytest.raises(ValueError, match=r"'i3d'"):
        start_from(pair()[1], path, inflate=wrong)


def test_a_checkpoint_of_another_network_loads_nothing(tmp_path):
    _, net3d = pair()
    before = copy.deepcopy(net3d.state_dict())
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 5), nn.Linear(4, 4)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(TransferError, match=r"1\.running_mean"):
        start_from(net3d, tmp_path / "other.pt", inflate="i3d")
    torch.testing.assert_close(net3d.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_and_no_such_file(dims, tmp_path, caplog):
    net = pair()[dims - 2]
    before = copy.deepcopy(net.state_dict())
    with caplog.at_level(logging.INFO):
        assert start_from(net, None, CLASSES) is None
    assert "the network starts from scratch" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        start_from(net, tmp_path / "none.pt", CLASSES)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
