# SPDX-License-Identifier: Apache-2.0
"""A convolution of one's own is a class and a line in the factory: a MONAI U-Net is built with it and filled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from monai.networks.layers import Conv
from monai.networks.nets import UNet
from torch import nn

from monai_crossd import load_2d, to_3d, to_plain, use_conv
from monai_crossd.conv import ConvBase, register, spread_kernel
from monai_crossd.conv.base import plain_conv
from monai_crossd.conv.factory import CONVOLUTIONS, Convolution
from monai_crossd.conv.geometry import convolve, pad
from monai_crossd.networks import build_resnet
from monai_crossd.transfer import TransferError


class SlabConv3d(ConvBase):
    """3D convolution with one 2D kernel in every slice, tied, times a gain per output channel."""

    def _shapes(self):
        return {
            "weight": (self.out_channels, self.in_channels // self.groups, *self.kernel_size[:2]),
            "gain": (self.out_channels,),
        }

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.ones_(self.gain)

    def _kernel(self):
        return spread_kernel(self.weight * self.gain.view(-1, 1, 1, 1), self.kernel_size[2])

    def _convolve(self, x, geometry):
        x, geometry = pad(x, geometry)
        return convolve(x, self._kernel(), self.bias, geometry)

    def _from_kernel(self, kernel):
        return kernel, "in every slice"

    def without_source(self, name, weight):
        if name == "gain":
            return torch.ones_like(self.gain), "an image has no gain"
        return super().without_source(name, weight)

    def to_plain(self):
        return plain_conv(self, self._kernel().detach())


@pytest.fixture(autouse=True)
def slab(monkeypatch):
    monkeypatch.setitem(CONVOLUTIONS, "slab", Convolution(SlabConv3d))
    before = dict(Conv.components)
    register()
    yield
    Conv.components.clear()
    Conv.components.update(before)


def unet(dims):
    return UNet(dims, 1, 2, channels=(4, 8, 8), strides=(2, 1), num_res_units=1).eval()


def slabs(net):
    return {path: layer for path, layer in net.named_modules() if isinstance(layer, SlabConv3d)}


def test_it_has_its_name_everywhere():
    assert Conv["slab", 3] is SlabConv3d
    assert Conv["slab", 2] is nn.Conv2d
    assert slabs(build_resnet("resnet10", "slab", 3, widen_factor=0.1))


def test_a_unet_is_filled_and_gives_what_the_converted_one_gives():
    net2d = unet(2)
    with use_conv("slab"):
        net3d = unet(3)
    report = load_2d(net3d, net2d)
    layers, kernels = slabs(net3d), net2d.state_dict()
    assert layers
    for path, layer in layers.items():
        assert layer.weight.equal(kernels[f"{path}.weight"])
        assert report.transferred[f"{path}.weight"] == "2D kernel in every slice"
        assert report.initial[f"{path}.gain"] == "an image has no gain"
    converted = to_3d(net2d, "slab")
    assert slabs(converted).keys() == layers.keys()
    x = torch.randn(2, 1, 8, 8, 8)
    torch.testing.assert_close(converted(x), net3d(x))


def test_a_bank_fills_it_at_its_running_shift():
    with use_conv("crossd"):
        net2d = unet(2)
    for layer in net2d.modules():
        if hasattr(layer, "running_shift"):
            layer.running_shift.copy_(torch.tensor([0.6, 1.3, 1.1]))
    with use_conv("slab"):
        net3d = unet(3)
    report = load_2d(net3d, net2d)
    for path, layer in slabs(net3d).items():
        torch.testing.assert_close(layer.weight, net2d.get_submodule(path).to_conv2d().weight)
        assert report.transferred[f"{path}.weight"] == "2D kernel at the running shift in every slice"


def test_to_plain_keeps_the_output():
    with use_conv("slab", padding_mode="reflect"):
        net = unet(3)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.1 * torch.randn_like(value))
    plain, x = to_plain(net), torch.randn(2, 1, 8, 8, 8)
    assert not slabs(plain)
    torch.testing.assert_close(plain(x), net(x), atol=1e-5, rtol=1e-5)
    assert pickle.loads(pickle.dumps(plain))(x).equal(plain(x))
    assert copy.deepcopy(net)(x).equal(net(x))


def test_what_does_not_fit_is_said():
    net3d = nn.Sequential(SlabConv3d(1, 4, 5))
    with pytest.raises(TransferError, match=r"source \(4, 1, 3, 3\) does not fit \(4, 1, 5, 5\)"):
        load_2d(net3d, nn.Sequential(nn.Conv2d(1, 4, 3)))
    with pytest.raises(TransferError, match="plain 3D kernel, no bank"):
        load_2d(net3d, nn.Sequential(nn.Conv3d(1, 4, 5)))
