# SPDX-License-Identifier: Apache-2.0
"""Real classes of torchvision and timm, built with random weights."""

from __future__ import annotations

import pytest
import torch
from ways import WAYS

from monai_crossd import to_3d, to_crossd
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
        torch.testing.assert_close(to_crossd(net, init="preserve")(image), net(image), rtol=1e-2, atol=1e-3)
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
