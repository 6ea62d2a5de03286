# SPDX-License-Identifier: Apache-2.0
"""Real classes of torchvision and timm, built with random weights."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from monai.networks.nets import resnet18
from torch import nn
from ways import WAYS

from monai_crossd import load_2d, to_3d, to_crossd
from monai_crossd.transfer import ConversionError

TORCHVISION = ["resnet18", "resnext50_32x4d", "wide_resnet50_2", "mobilenet_v3_small", "squeezenet1_1"]
TIMM = ["resnet18", "resnet50d", "densenet121", "regnety_002", "efficientnet_b0", "mobilenetv3_small_050"]
# what such networks do in their own forward shows when they are run
CALLS_BY_NAME = ["densenet121", "mobilenet_v2"]
FUNCTIONAL = ["vgg11_bn", "shufflenet_v2_x0_5", "mnasnet0_5", "vit_b_16"]


def check(net, size):
    """i3d of a repeated image: the same logits; center, acs and Cross-D: runs and gives gradients."""
    net.eval()
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(to_crossd(net)(image), net(image), rtol=1e-2, atol=1e-3)
    volume = torch.randn(1, 3, size, size, 32)
    for method in ("i3d", "center", "acs", "crossd"):
        net3d = to_3d(net, *WAYS[method])
        out = net3d(volume)
        assert out.shape == (1, 1000)
        out.logsumexp(1).sum().backward()
        assert next(net3d.parameters()).grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(torchvision, name):
    check(getattr(torchvision.models, name)(), 64)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "small" in name else [pytest.mark.slow]) for name in TIMM]
)
def test_timm(torchvision, name):
    timm = pytest.importorskip("timm")
    check(timm.create_model(name), 64)


@pytest.mark.parametrize("name", CALLS_BY_NAME)
def test_a_function_of_torch_is_named(torchvision, name):
    with pytest.raises(ConversionError, match=r"calls adaptive_avg_pool2d in its forward"):
        to_3d(getattr(torchvision.models, name)(), inflate="i3d")


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_a_functional_call_is_found_by_an_example(torchvision, name):
    size = 224 if name == "vit_b_16" else 64
    with pytest.raises(ConversionError, match=r"fails on a volume.*load_2d"):
        to_3d(getattr(torchvision.models, name)(), inflate="i3d", example=torch.zeros(1, 3, size, size, 64))


def test_what_works_in_2d_only_is_named(torchvision):
    with pytest.raises(ConversionError, match="LayerNorm2d"):
        to_3d(torchvision.models.convnext_tiny())


class RadImageNet(nn.Module):
    """The children of torchvision's ResNet by their numbers, as RadImageNet's release has them."""

    def __init__(self, net):
        super().__init__()
        self.backbone = nn.Sequential(*list(net.children())[:9])


def sources(torchvision):
    net = torchvision.models.resnet18(num_classes=3)
    yield "torchvision", net
    yield "DataParallel", nn.DataParallel(net)
    yield "RadImageNet", RadImageNet(net)
    if (timm := pytest.importorskip("timm", reason="timm")) is not None:
        yield "timm", timm.create_model("resnet18", num_classes=3)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_network_of_others_is_a_source_as_it_is(torchvision, channels):
    """Kernels in the middle slice of MONAI's ResNet, the stem summed over colors, all else as it was."""
    each = islice(sources(torchvision), None if channels == 1 else 1)  # colors are summed whatever the names are
    for name, source in each:
        for value in source.buffers():
            value.copy_(torch.rand(value.shape))
        net3d = resnet18(spatial_dims=3, n_input_channels=channels, num_classes=3, feed_forward=name != "RadImageNet")
        report = load_2d(net3d, source)
        assert (report.share, report.conflicts, report.initial) == (1, {}, {}), name
        given = list({id(v): v for k, v in source.state_dict().items()}.values())
        filled = [v for k, v in net3d.state_dict().items() if not k.endswith("downsample.0.bias")]
        assert len(given) == len(filled), name
        for value, expected in zip(filled, given, strict=True):
            if value.dim() == 5:
                slices = value.unbind(-1)
                middle = slices[len(slices) // 2]
                assert sum(int(one.abs().sum() > 0) for one in slices) == 1
                if value.shape[1] == channels:
                    middle, expected = middle.sum(1), expected.sum(1)
                torch.testing.assert_close(middle, expected)
            else:
                assert value.equal(expected.to(value))


def test_own_names_come_before_published_ones(torchvision):
    source = RadImageNet(torchvision.models.resnet18())
    net3d = to_3d(source)
    for value in net3d.parameters():
        nn.init.zeros_(value)
    report = load_2d(net3d, source)
    assert report.share == 1
    assert not report.notes
    assert net3d.backbone[4][0].conv1.weight[..., 1].equal(source.backbone[4][0].conv1.weight)
