# SPDX-License-Identifier: Apache-2.0
"""MONAI's ResNets with our layers, and as backbones of its FlexibleUNet."""

from __future__ import annotations

import warnings

import pytest
import torch
from monai.networks.nets import FlexibleUNet, resnet18, resnet50
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from monai.networks.nets.resnet import ResNet, ResNetEncoder
from torch import nn

from monai_crossd import use_conv
from monai_crossd.conv import ACSConv3d, CrossDConv2d, CrossDConv3d
from monai_crossd.networks import CrossDResNetEncoder, build_resnet, register_backbones

KINDS = {("crossd", 2): CrossDConv2d, ("crossd", 3): CrossDConv3d, ("acs", 2): nn.Conv2d, ("acs", 3): ACSConv3d,
         ("conv", 2): nn.Conv2d, ("conv", 3): nn.Conv3d}  # fmt: skip


@pytest.mark.parametrize("case", KINDS.items(), ids=str)
@pytest.mark.parametrize("model_name", ["resnet10", "resnet18", "resnet50"])
def test_every_convolution_at_every_size(case, model_name):
    (conv, dims), kind = case
    net = build_resnet(model_name, conv, dims, n_input_channels=2, num_classes=3, widen_factor=0.125)
    assert isinstance(net, ResNet)
    assert type(net.conv1) is kind
    assert type(net.layer4[-1].conv2) is kind
    x = torch.randn(2, 2, *[33, 24, 17][:dims])
    y = net(x)
    assert y.shape == (2, 3)
    y.sum().backward()
    assert all(value.grad is not None for value in net.parameters())


def test_the_papers_resnet18_has_monais_keys():
    net = build_resnet(num_classes=165)
    plain = resnet18(spatial_dims=2, n_input_channels=1, num_classes=165, shortcut_type="B", bias_downsample=False)
    ours = {k for k in net.state_dict() if ".predictor." not in k and not k.startswith("conv1.predictor")}
    ours = {k for k in ours if not k.endswith("running_shift")}
    assert ours == set(plain.state_dict())
    assert net.conv1.weight.shape == (64, 1, 7, 7, 7)
    assert net.conv1.stride == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        ({"conv1_t_size": 5}, lambda net: net.conv1.kernel_size == (5, 5, 5)),
        ({"conv1_t_stride": (2, 2, 1)}, lambda net: net.conv1.stride == (2, 2, 1)),
        ({"no_max_pool": True}, lambda net: net.no_max_pool),
        ({"feed_forward": False}, lambda net: net.fc is None),
        ({"widen_factor": 0.5}, lambda net: net.conv1.out_channels == 32),
        ({"conv_options": {"mode": "static"}}, lambda net: net.conv1.mode == "static"),
        ({"n_input_channels": 3}, lambda net: net.conv1.in_channels == 3),
        ({"num_classes": 7}, lambda net: net.fc.out_features == 7),
    ],
)
def test_arguments_arrive(arguments, check):
    base = {"spatial_dims": 3, "widen_factor": 0.125}
    assert not check(build_resnet("resnet10", **base))
    assert check(build_resnet("resnet10", **{**base, **arguments}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"model_name": "resnet19"}, "did you mean 'resnet1.'"), ({"conv": "crosd"}, "did you mean 'crossd'")],
)
def test_unknown_names_are_answered_with_a_suggestion(arguments, says):
    with pytest.raises(ValueError, match=says):
        build_resnet(**arguments)


@pytest.mark.parametrize("dims", [2, 3])
def test_backbone_of_flexible_unet(dims):
    net = FlexibleUNet(1, 2, "crossd_resnet10", spatial_dims=dims, decoder_channels=(16, 8, 8, 4, 4))
    assert type(net.encoder.conv1) is KINDS["crossd", dims]
    x = torch.randn(1, 1, *[32] * dims)
    assert net.eval()(x).shape == (1, 2, *[32] * dims)
    assert type(FlexibleUNet(1, 2, "resnet10", spatial_dims=dims).encoder.conv1) is KINDS["conv", dims]


def test_every_resnet_is_a_backbone():
    names = set(FLEXUNET_BACKBONE.register_dict)
    assert {f"crossd_{name}" for name in ResNetEncoder.backbone_names} <= names
    assert set(CrossDResNetEncoder.get_encoder_names()) <= names
    for name in CrossDResNetEncoder.backbone_names:
        entry, plain = (FLEXUNET_BACKBONE.register_dict[n] for n in (name, name.removeprefix("crossd_")))
        assert entry["type"] is CrossDResNetEncoder
        assert entry["feature_number"] == plain["feature_number"]
        assert entry["feature_channel"] == plain["feature_channel"]


def test_pretrained_is_refused():
    with pytest.raises(ValueError, match=r"no pretrained weights of 'crossd_resnet10'.*load_2d"):
        FlexibleUNet(1, 2, "crossd_resnet10", pretrained=True)


def test_registering_again_changes_nothing():
    def types():  # the rest of an entry FlexibleUNet itself writes to
        return {name: entry["type"] for name, entry in FLEXUNET_BACKBONE.register_dict.items()}

    before = types()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_backbones()
    assert types() == before


def test_a_foreign_backbone_stays_with_a_warning(monkeypatch):
    class Foreign(ResNetEncoder):
        pass

    foreign = {**FLEXUNET_BACKBONE.register_dict["crossd_resnet10"], "type": Foreign}
    monkeypatch.setitem(FLEXUNET_BACKBONE.register_dict, "crossd_resnet10", foreign)
    with pytest.warns(UserWarning, match="'crossd_resnet10' that is not monai_crossd's .* left alone"):
        register_backbones()
    assert FLEXUNET_BACKBONE.register_dict["crossd_resnet10"] is foreign
    assert FLEXUNET_BACKBONE.register_dict["crossd_resnet18"]["type"] is CrossDResNetEncoder


def test_bottlenecks_repeat_their_banks_too():
    with use_conv("crossd"):
        net = resnet50(spatial_dims=2, n_input_channels=1, widen_factor=0.125)
    for layer in net.modules():
        if isinstance(layer, CrossDConv2d):
            assert layer.weight.equal(layer.weight[:, :, :1].expand_as(layer.weight))
