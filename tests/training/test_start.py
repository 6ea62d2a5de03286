# SPDX-License-Identifier: Apache-2.0
"""A 2D classifier that starts from another one, seen from its outputs."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from monai.networks.nets import resnet10
from torch import nn

from monai_crossd.networks import build_resnet
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


def test_nothing_and_no_such_file(tmp_path, caplog):
    net = classifier("crossd")
    with caplog.at_level(logging.INFO):
        assert start_from(net, None, CLASSES) is None
    assert "the network starts from scratch" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        start_from(net, tmp_path / "none.pt", CLASSES)
