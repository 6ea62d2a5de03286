# SPDX-License-Identifier: Apache-2.0
"""Key by key into every kind of layer: equal to the conversion module by module, and what is bound to its dimension."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet
from torch import nn
from ways import WAYS

from monai_crossd import SoftACSConv3d, TransferError, load_2d, to_3d, to_crossd, to_plain, use_conv
from monai_crossd.conv.factory import CONVOLUTIONS
from monai_crossd.transfer.load_2d import DIMENSION_BOUND, _dimension_bound


def build(dims: int) -> nn.Module:
    return BasicUNet(dims, 1, 2, features=(4, 4, 4, 8, 8, 4), norm="batch")  # has transposed convolutions


@pytest.mark.parametrize("method", [m for m in CONVOLUTIONS if m != "plane_cycle"])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("crossd", [False, True])
def test_equals_to_3d(method, axis, crossd):
    options = {"crossd": {"depth_axis": axis}, "planar": {"plane": axis}}.get(method, {})
    net2d = (to_crossd(build(2)) if crossd else build(2)).eval()
    with use_conv(method, **options):
        net3d = build(3).eval()
    report = load_2d(net3d, net2d, WAYS[method][1], axis)
    assert not report.conflicts
    x, made = torch.randn(1, 1, 16, 16, 16), to_3d(net2d, *WAYS[method], axis)
    if method == "crossd" and not crossd:  # predictors are drawn anew
        net3d, made = to_plain(net3d), to_plain(made)
    torch.testing.assert_close(net3d(x), made(x), atol=1e-5, rtol=1e-4)


def test_plane_cycle_fills_layers_of_any_plane():
    with use_conv("plane_cycle", depth_axis=0):
        net3d = build(3)
    planes = [m.plane for m in net3d.modules() if hasattr(m, "plane")]
    assert planes[:6] == [0, 1, 2, 0, 1, 2]
    net2d = build(2)
    assert load_2d(net3d, net2d, depth_axis=0).share == 1
    assert net3d.conv_0.conv_1.conv.weight.equal(net2d.conv_0.conv_1.conv.weight)
    assert net3d.eval()(torch.randn(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


def test_soft_views_weigh_the_same_again():
    with use_conv("soft_acs"):
        net3d = build(3)
    layer = net3d.conv_0.conv_0.conv
    nn.init.normal_(layer.view_weight)
    report = load_2d(net3d, build(2))
    assert layer.view_weight.abs().sum() == 0
    assert report.initial["conv_0.conv_0.conv.view_weight"] == "all views weigh the same"
    assert isinstance(layer, SoftACSConv3d)


def test_a_tied_layer_is_filled_under_each_of_its_names():
    def dynunet(dims):
        return DynUNet(dims, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=(4, 8, 8)).eval()

    net2d, net3d = dynunet(2), dynunet(3)
    report = load_2d(net3d, net2d, "i3d")
    assert report.share == 1
    kernel = net3d.input_block.conv1.conv.weight
    assert net3d.skip_layers.downsample.conv1.conv.weight is kernel
    torch.testing.assert_close(kernel.sum(-1), net2d.input_block.conv1.conv.weight)


class Patches(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(1, 4, 4, 4)
        self.position_embeddings = nn.Parameter(torch.zeros(1, 4**dims, 4))
        self.fc = nn.Linear(4**dims, 2)


def test_what_is_bound_to_its_dimension_stays_and_says_why():
    net3d = Patches(3)
    with pytest.raises(TransferError, match=r"fc.weight *source \(2, 16\) does not fit \(2, 64\)"):
        load_2d(net3d, Patches(2), "i3d")
    report = load_2d(net3d, Patches(2), "i3d", exclude=["fc.*"])
    assert report.initial["position_embeddings"] == report.skipped["position_embeddings"]
    assert "a volume has more" in report.initial["position_embeddings"]
    assert all(_dimension_bound(pattern.replace("*", "x")) == why for pattern, why in DIMENSION_BOUND.items())
    assert _dimension_bound("fc.weight") == ""


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_transposed_bank_is_no_source(depth):
    net3d = nn.Sequential(nn.ConvTranspose3d(2, 3, 3))
    bank = {"0.weight": torch.ones(2, 3, 3, 3, 3), "0.bias": torch.ones(3), "0.running_shift": torch.ones(3)}
    with pytest.raises(TransferError, match="bank and the layer a transposed"):
        load_2d(net3d, bank, "i3d", depth)


def test_transposed_kernels_follow_inflate_whatever_the_convolution():
    with use_conv("acs"):
        net3d = build(3)
    net2d = build(2)
    for inflate in ("i3d", "center"):
        report = load_2d(net3d, net2d, inflate)
        for path, layer in net2d.named_modules():
            kernel = net3d.get_submodule(path)
            if isinstance(layer, nn.ConvTranspose2d):  # of size and stride 2: both slices are the kernel
                torch.testing.assert_close(kernel.weight, torch.stack([layer.weight] * 2, dim=-1))
                assert ("shared by" if inflate == "i3d" else "in the center of") in report.transferred[f"{path}.weight"]
            elif isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
                assert report.transferred[f"{path}.weight"] == "2D kernel over three views"
