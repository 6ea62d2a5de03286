# SPDX-License-Identifier: Apache-2.0
"""Kernels as large as new ones, and the same output."""

import pytest
import torch
from monai.networks.nets import BasicUNet, resnet18
from torch import nn

from monai_crossd import to_3d, to_crossd
from monai_crossd.transfer import rescale_kernels


def trained(net):
    """A network with kernels and batch statistics of all sizes, as after training."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.weight.data.mul_(float(torch.rand(1)) * 4 + 0.5)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 3)
            module.weight.data.uniform_(0.5, 2)
    return net.eval()


def rms(kernel):
    return kernel.double().square().mean().sqrt().item()


NETWORKS = {
    "resnet18": (lambda: resnet18(spatial_dims=2, n_input_channels=1, num_classes=3), (2, 1, 32, 32), 20),
    "resnet18 in 3D": (lambda: resnet18(spatial_dims=3, n_input_channels=1, num_classes=3), (1, 1, 32, 32, 32), 20),
    "instance norm": (lambda: BasicUNet(spatial_dims=2, features=(4, 4, 8, 8, 8, 4)), (1, 1, 32, 32), 18),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_output_stays_and_kernels_are_as_he_et_al_draw_them(name):
    make, shape, number = NETWORKS[name]
    net, x = trained(make()).double(), torch.randn(shape, dtype=torch.float64)
    before = net(x)
    factors = rescale_kernels(net, x)
    assert len(factors) == number
    torch.testing.assert_close(net(x), before, rtol=1e-2, atol=1e-2 * before.abs().max().item())
    for path in factors:
        weight = net.get_submodule(path).weight
        assert rms(weight) == pytest.approx((2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5)
    assert all(factor == pytest.approx(1) for factor in rescale_kernels(net, x).values())


def test_a_step_turns_kernels_of_any_size_alike_afterwards():
    """What it is for: the gradient of a kernel of twice the size is half as large, and a step turns it less."""
    turned, x = {}, torch.randn(4, 1, 8, 8)
    for size in (1.0, 5.0):
        for rescale in (False, True):
            torch.manual_seed(1)
            net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))
            net[0].weight.data.mul_(size)
            if rescale:
                rescale_kernels(net, x)
            before = net[0].weight.detach().clone()
            optimizer = torch.optim.Adam(net[:1].parameters(), lr=0.01)
            net.train()(x).square().mean().backward()
            optimizer.step()
            after = net[0].weight.detach()
            turned[size, rescale] = 1 - torch.cosine_similarity(before.flatten(), after.flatten(), dim=0).item()
    assert turned[5.0, False] < turned[1.0, False] / 10
    assert turned[5.0, True] == pytest.approx(turned[1.0, True], rel=0.05)


@pytest.mark.parametrize("conv", ["crossd", "acs", "soft_acs", "planar"])
def test_our_layers(conv):
    net2d = to_crossd(trained(resnet18(spatial_dims=2, n_input_channels=1, num_classes=3)))
    net, x = to_3d(net2d, conv).eval(), torch.randn(1, 1, 16, 16, 16)
    before = net(x)
    assert len(rescale_kernels(net, x)) == 20
    torch.testing.assert_close(net(x), before, rtol=2e-2, atol=2e-2 * before.abs().max().item())


class Skip(nn.Module):
    """Its first convolution is read by a norm and by a sum, its second by a norm alone, its third by nothing more."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(a, 4, 3, padding=1) for a in (1, 4, 4))
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.norm2(self.second(torch.relu(self.norm1(x)))))


def test_what_is_read_by_others_too_stays():
    net, x = trained(Skip()), torch.randn(2, 1, 8, 8)
    first, last, before = net.first.weight.clone(), net.last.weight.clone(), net(x)
    assert list(rescale_kernels(net, x)) == ["second"]
    assert net.first.weight.equal(first)
    assert net.last.weight.equal(last)
    torch.testing.assert_close(net(x), before, rtol=1e-3, atol=1e-3)
    assert not net.training
    assert not net.first._forward_hooks


def test_shared_weights_and_norms_stay():
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    net[2].weight = net[0].weight
    with pytest.raises(ValueError, match="no convolution that a norm alone follows"):
        rescale_kernels(net, torch.randn(1, 2, 8, 8))
    norm = nn.BatchNorm2d(2)
    net = nn.Sequential(nn.Conv2d(2, 2, 3), norm, nn.Conv2d(2, 2, 3), norm)
    with pytest.raises(ValueError, match="no convolution that a norm alone follows"):
        rescale_kernels(net, torch.randn(1, 2, 8, 8))


def test_no_norm_is_an_error():
    with pytest.raises(ValueError, match="Conv2d has no convolution that a norm alone follows"):
        rescale_kernels(nn.Conv2d(1, 2, 3), torch.randn(1, 1, 8, 8))
