# SPDX-License-Identifier: Apache-2.0
"""to_crossd: a converted copy, and a caller's network that nobody touched."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import DenseNet, UNet, resnet18
from torch import nn

from monai_crossd import to_crossd
from monai_crossd.conv import CrossDConv2d

NETS = {
    "resnet18": lambda: resnet18(spatial_dims=2, n_input_channels=1, num_classes=3, widen_factor=0.125),
    "UNet": lambda: UNet(2, 1, 2, channels=(4, 8, 8), strides=(2, 2), num_res_units=2),
    "DenseNet": lambda: DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2)),
}


def settle(net):
    """BatchNorm statistics as after some training."""
    net.train()
    with torch.no_grad():
        net(torch.randn(4, 1, 32, 32))
    return net.eval()


def types(net):
    return {path: type(module) for path, module in net.named_modules()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("init", ["repeat", "preserve", "paper"])
def test_monai_networks(name, init):
    net = settle(NETS[name]())
    state, kinds, x = copy.deepcopy(net.state_dict()), types(net), torch.randn(2, 1, 32, 32)
    expected = net(x)
    converted = to_crossd(net, init=init)
    # the caller's network is what it was
    assert types(net) == kinds
    assert all(value.equal(state[key]) for key, value in net.state_dict().items())
    assert net(x).equal(expected)
    # every Conv2d was replaced under its name, and nothing else
    for path, kind in kinds.items():
        assert type(converted.get_submodule(path)) is (CrossDConv2d if kind is nn.Conv2d else kind), path
    y = converted(x)
    assert y.shape == expected.shape
    if init == "preserve":
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
    else:
        assert not torch.allclose(y, expected, atol=1e-4)
    converted.train()(x).square().mean().backward()
    assert all(m.weight.grad is not None for m in converted.modules() if isinstance(m, CrossDConv2d))
    assert all(value.grad is None for value in net.parameters())


def test_nothing_is_shared_with_the_callers_network():
    net = NETS["resnet18"]()
    converted = to_crossd(net)
    mine = {value.data_ptr() for value in net.state_dict().values() if value.numel()}
    assert not mine & {value.data_ptr() for value in converted.state_dict().values() if value.numel()}


def test_the_root_may_be_a_convolution():
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 6)
    converted = to_crossd(conv, init="preserve")
    assert type(converted) is CrossDConv2d
    torch.testing.assert_close(converted(x), conv(x), atol=1e-6, rtol=0)


def test_a_tied_layer_stays_one_layer():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(conv, nn.ReLU(), conv, nn.Sequential(conv))
    converted = to_crossd(net, init="preserve")
    assert converted[0] is converted[2] is converted[3][0]
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(converted(x), net(x), atol=1e-5, rtol=0)


def test_a_converted_network_may_be_converted_on():
    first = to_crossd(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    net = nn.Sequential(first, nn.Conv2d(4, 2, 3))
    converted = to_crossd(net)
    assert [type(m) for m in (converted[0][0], converted[1])] == [CrossDConv2d] * 2
    assert type(converted[0][0].predictor[0]) is nn.Conv2d
    assert converted[0][0].weight.equal(first[0].weight)


class OwnConv(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("make", "path", "kind"),
    [
        (lambda: OwnConv(1, 1, 3), "block.0", "OwnConv"),
        (lambda: nn.LazyConv2d(4, 3), "block.0", "LazyConv2d"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)), "block.0", "ParametrizedConv2d"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 1, 3)), "block.0", "ParametrizedConv2d"),
        # these stay a Conv2d by type, and make their weight in a hook
        (lambda: nn.utils.spectral_norm(nn.Conv2d(1, 1, 3)), "block.0", "weight_orig"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_conv2d_with_a_behaviour_of_its_own_is_refused_by_its_path(make, path, kind):
    net = nn.Sequential()
    net.add_module("block", nn.Sequential(make(), nn.ReLU()))
    net.add_module("last", nn.Conv2d(1, 1, 1))
    before = types(net)
    with pytest.raises(TypeError, match=rf"{path} .*{kind}"):
        to_crossd(net)
    assert types(net) == before


def test_a_refused_root_has_a_name_too():
    with pytest.raises(TypeError, match="the network is a OwnConv"):
        to_crossd(OwnConv(1, 1, 3))


@pytest.mark.parametrize("net", [nn.Linear(2, 2), nn.Sequential(), nn.Conv3d(1, 1, 3)], ids=lambda net: str(net)[:10])
def test_nothing_to_convert_is_an_error(net):
    with pytest.raises(ValueError, match=f"{type(net).__name__} has no nn.Conv2d to convert"):
        to_crossd(net)


def test_unknown_start_is_an_error():
    with pytest.raises(ValueError, match="but is 'keep'"):
        to_crossd(nn.Conv2d(1, 1, 3), init="keep")


def test_transposed_convolutions_stay():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 1, 3))
    assert type(to_crossd(net)[1]) is nn.ConvTranspose2d


def test_mode_dtype_and_options_are_kept():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3)).eval(), nn.Dropout()).bfloat16()
    converted = to_crossd(net, hidden_channels=5, max_angle=0.3)
    assert [m.training for m in converted] == [True, False, True]
    assert converted[1][0].training is False
    assert converted[1][0].predictor.training is False
    assert {value.dtype for value in converted.state_dict().values() if value.is_floating_point()} == {torch.bfloat16}
    assert (converted[0].hidden_channels, converted[0].max_angle) == (5, 0.3)


def test_device_is_kept():
    converted = to_crossd(nn.Sequential(nn.Conv2d(2, 4, 3, device="meta"), nn.Conv2d(4, 4, 3)))
    assert converted[0].weight.is_meta
    assert converted[0].predictor[0].weight.is_meta
    assert not converted[1].weight.is_meta


def test_frozen_layers_stay_frozen():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3))
    net[0].requires_grad_(False)
    converted = to_crossd(net)
    assert not converted[0].weight.requires_grad
    assert not converted[0].bias.requires_grad
    assert converted[1].weight.requires_grad
