# SPDX-License-Identifier: Apache-2.0
"""A frozen network: the same output, from plain torch layers, where the package is not."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from monai_crossd import to_crossd, to_plain, use_conv
from monai_crossd.conv import CrossDConv3d
from monai_crossd.conv.base import ConvBase

STATIC = {"acs": {}, "soft_acs": {}, "mean_acs": {}, "planar": {}, "plane_cycle": {}, "crossd": {"mode": "static"}}


@pytest.mark.parametrize("name", STATIC)
def test_static_layers_keep_the_output(name):
    with use_conv(name, **STATIC[name]):
        net = BasicUNet(3, 1, 2, features=(4, 4, 4, 8, 8, 4)).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.05 * torch.randn_like(value))
    before, x = copy.deepcopy(net.state_dict()), torch.randn(1, 1, 32, 32, 32)
    frozen = to_plain(net)
    assert not any(isinstance(m, ConvBase) for m in frozen.modules())
    assert any(isinstance(m, ConvBase) for m in net.modules())
    torch.testing.assert_close(frozen(x), net(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net.state_dict(), before, atol=0, rtol=0)


def test_crossd_takes_the_running_shift():
    net = to_crossd(BasicUNet(2, 1, 2, features=(4, 4, 4, 8, 8, 4)), init="preserve").eval()
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(to_plain(net)(x), net(x), atol=1e-5, rtol=1e-4)


def test_a_root_and_a_tied_layer():
    layer = CrossDConv3d(2, 2, 3, padding=1)
    assert type(to_plain(layer)) is nn.Conv3d
    frozen = to_plain(nn.Sequential(layer, nn.ReLU(), layer))
    assert frozen[0] is frozen[2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_runs_where_the_package_is_not(tmp_path, run_without_package):
    with use_conv("soft_acs"):
        net = nn.Sequential(*BasicUNet(3, 1, 2, features=(4, 4, 4, 8, 8, 4)).conv_0.children()).eval()
    frozen, x = to_plain(net), torch.randn(1, 1, 8, 8, 8)
    plain = nn.Sequential(*[m for m in frozen.modules() if isinstance(m, nn.Conv3d)])
    torch.save({"net": plain, "x": x, "y": plain(x)}, tmp_path / "net.pt")
    torch.jit.script(frozen).save(tmp_path / "net.ts")
    torch.save((x, frozen(x)), tmp_path / "case.pt")
    run_without_package(
        f"""
import torch
saved = torch.load(r"{tmp_path / "net.pt"}", weights_only=False)
torch.testing.assert_close(saved["net"](saved["x"]), saved["y"])
x, y = torch.load(r"{tmp_path / "case.pt"}")
torch.testing.assert_close(torch.jit.load(r"{tmp_path / "net.ts"}")(x), y)
"""
    )
