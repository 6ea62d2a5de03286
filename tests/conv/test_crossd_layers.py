# SPDX-License-Identifier: Apache-2.0
"""Cross-D layers against Algorithm 1, predictor included; running shift, starts, and what comes from a Conv2d."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from oracles import crossd_conv2d_fft, crossd_conv3d_loop, predict_rotation, rotation_shift_matrix
from torch import nn

from monai_crossd.conv import CrossDConv2d, CrossDConv3d


def randomise(layer):
    """Parameters in double, far from their start."""
    layer.double()
    with torch.no_grad():
        for value in layer.parameters():
            value.copy_(torch.randn_like(value))
        for name, value in layer.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                value.normal_()
    return layer


def literal(layer, x):
    """The paper's algorithm, step by step, with the parameters of `layer`."""
    axis, angle = predict_rotation(layer.predictor, x, layer.max_angle)
    geometry = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
    if x.dim() == 4:
        return crossd_conv2d_fft(x, layer.weight, axis, angle, layer.bias, **geometry)
    placement = layer.placement
    return crossd_conv3d_loop(x, layer.weight, axis, angle, layer.bias, layer.depth_axis, placement, **geometry)


def assert_layer_is_literal(layer, x):
    twin, x_twin = copy.deepcopy(layer), x.clone().requires_grad_()
    x.requires_grad_()
    ours, expected = layer(x), literal(twin, x_twin)
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
    cotangent = torch.randn_like(ours)
    ours.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(x.grad, x_twin.grad, atol=1e-10, rtol=0)
    for (name, a), b in zip(layer.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-10, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    for name, value in layer.predictor.named_buffers():  # BatchNorm moved as it should
        torch.testing.assert_close(value, twin.predictor.get_buffer(name), msg=lambda m, n=name: f"{n}: {m}")


CASES = [
    {"kernel_size": 2},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 5, "padding": 2, "stride": 2},
    {"kernel_size": 7, "padding": 3, "groups": 2},
    {"kernel_size": 3, "groups": 4, "bias": False},
    {"kernel_size": (1, 3), "dilation": (1, 2)},
    {"kernel_size": (4, 3), "stride": (2, 1), "padding": (2, 1), "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": "same", "padding_mode": "circular", "max_angle": 1.5, "hidden_channels": 5},
]


@pytest.mark.parametrize("arguments", CASES, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_2d_layer_is_algorithm_1(arguments, training):
    layer = randomise(CrossDConv2d(4, 8, **arguments)).train(training)
    assert_layer_is_literal(layer, torch.randn(3, 4, 9, 8, dtype=torch.float64))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("depth_axis", [-1, 0, 1])
@pytest.mark.parametrize("placement", ["center", "spread"])
@pytest.mark.parametrize("size", [3, (2, 3, 4)], ids=str)
def test_3d_layer_is_algorithm_1_in_every_slice(size, placement, depth_axis, training):
    layer = CrossDConv3d(4, 6, size, padding=1, groups=2, depth_axis=depth_axis, placement=placement)
    assert_layer_is_literal(randomise(layer).train(training), torch.randn(2, 4, 5, 6, 4, dtype=torch.float64))


@pytest.mark.parametrize("depth_axis", [-1, 0])
@pytest.mark.parametrize("placement", ["center", "spread"])
def test_static_3d_layer_uses_the_running_shift(placement, depth_axis):
    layer = randomise(CrossDConv3d(2, 4, 3, padding=1, mode="static", depth_axis=depth_axis, placement=placement))
    axis, angle = torch.randn(1, 3, dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    layer.running_shift.copy_(rotation_shift_matrix(axis, angle)[0])
    x = torch.randn(2, 2, 5, 6, 4, dtype=torch.float64)
    expected = crossd_conv3d_loop(
        x, layer.weight, axis.expand(2, 3), angle.expand(2), layer.bias, depth_axis, placement, padding=1
    )
    torch.testing.assert_close(layer(x), expected, atol=1e-10, rtol=0)
    assert layer.predictor is None


def test_one_by_one_is_a_plain_convolution():
    layer, conv = CrossDConv2d(4, 8, 1), nn.Conv2d(4, 8, 1)
    assert layer.predictor is None
    layer.load_state_dict({**conv.state_dict(), "weight": conv.weight.unsqueeze(2), "running_shift": torch.ones(3)})
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.parametrize("kind", [CrossDConv2d, CrossDConv3d])
def test_running_shift_is_a_mean_like_that_of_batch_norm(kind):
    layer = randomise(kind(4, 8, 3)).train()
    assert layer.running_shift.equal(torch.ones(3, dtype=torch.float64))
    expected = torch.ones(3, dtype=torch.float64)
    for _ in range(3):
        x = torch.randn(5, 4, *[6] * (2 if kind is CrossDConv2d else 3), dtype=torch.float64)
        shift = rotation_shift_matrix(*predict_rotation(copy.deepcopy(layer.predictor), x))
        expected = 0.9 * expected + 0.1 * shift.mean(dim=0)
        layer(x)
        torch.testing.assert_close(layer.running_shift, expected, atol=1e-12, rtol=0)
    assert (expected - 1).abs().max() > 0.01
    assert "running_shift" in layer.state_dict()
    assert "running_shift" not in dict(layer.named_parameters())
    layer.eval()(x)
    layer(x[0])
    torch.testing.assert_close(layer.running_shift, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [CrossDConv2d, CrossDConv3d])
def test_2d_and_3d_share_keys_and_shapes(kind):
    two, three = CrossDConv2d(4, 8, 3), CrossDConv3d(4, 8, 3)
    assert {k: v.shape for k, v in two.state_dict().items()} == {k: v.shape for k, v in three.state_dict().items()}


@pytest.mark.parametrize(
    ("layer", "bank"),
    [
        (CrossDConv2d(4, 6, (2, 5), groups=2), (6, 2, 5, 2, 5)),
        (CrossDConv3d(4, 6, (2, 5, 3)), (6, 4, 3, 2, 5)),
        (CrossDConv3d(4, 6, (2, 5, 3), depth_axis=0), (6, 4, 2, 5, 3)),
        (CrossDConv3d(4, 6, (2, 5, 3), depth_axis=-2), (6, 4, 5, 2, 3)),
    ],
)
def test_bank_has_its_depth_first(layer, bank):
    assert layer.weight.shape == bank


@pytest.mark.parametrize("kind", [CrossDConv2d, CrossDConv3d])
def test_repeated_start_is_one_kernel_drawn_like_torchs(kind):
    bank = kind(32, 64, 3, groups=2).weight
    assert bank.equal(bank[:, :, :1].expand_as(bank))
    bound = 1 / math.sqrt(16 * 9)
    assert 0.98 * bound < bank.abs().max() <= bound
    assert kind(32, 64, 3, groups=2).bias.abs().max() <= bound


@pytest.mark.parametrize("kind", [CrossDConv2d, CrossDConv3d])
def test_start_of_the_paper_is_a_random_bank(kind):
    bank = kind(32, 64, 3, bank_init="paper").weight
    assert bank.std().item() == pytest.approx(math.sqrt(2 / (64 * 27)), rel=0.05)
    assert not bank[:, :, 0].equal(bank[:, :, 1])


CONVS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 4, "stride": 2},
    {"kernel_size": 2, "padding": "same"},
    {"kernel_size": (3, 5), "padding": (1, 2), "groups": 2},
    {"kernel_size": (4, 1), "dilation": (2, 1)},
    {"kernel_size": 1},
    {"kernel_size": 7, "padding": 3, "groups": 4, "bias": False},
    {"kernel_size": 3, "padding": 2, "padding_mode": "circular"},
]


@pytest.mark.parametrize("arguments", CONVS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_preserve_keeps_the_output(arguments, training):
    conv = nn.Conv2d(4, 8, **arguments).train(training)
    x = torch.randn(3, 4, 9, 10)
    layer = CrossDConv2d.from_conv(conv, init="preserve")
    torch.testing.assert_close(layer(x), conv(x), atol=1e-6, rtol=0)
    assert layer.training == training


@pytest.mark.parametrize("arguments", CONVS, ids=str)
def test_repeat_keeps_the_kernel_at_no_rotation(arguments):
    conv = nn.Conv2d(4, 8, **arguments)
    layer = CrossDConv2d.from_conv(conv)
    bank = layer.weight
    middle = bank.roll((1, 1, 1), (2, 3, 4))[:, :, bank.shape[2] // 2]
    assert middle.equal(conv.weight)
    assert bank.equal(bank[:, :, :1].expand_as(bank))
    assert conv.bias is None or layer.bias.equal(conv.bias)


def test_paper_draws_a_new_bank_and_keeps_the_bias():
    conv = nn.Conv2d(4, 8, 3)
    layer = CrossDConv2d.from_conv(conv, init="paper")
    assert layer.bank_init == "paper"
    assert not layer.weight[:, :, 0].equal(layer.weight[:, :, 1])
    assert layer.bias.equal(conv.bias)


@pytest.mark.parametrize("init", ["repeat", "preserve", "paper"])
def test_from_conv_carries_what_the_layer_is(init):
    conv = nn.Conv2d(4, 8, (3, 2), (2, 1), (1, 0), (1, 2), 2, False, "reflect", dtype=torch.float64).eval()
    conv.weight.requires_grad_(False)
    before = copy.deepcopy(conv.state_dict())
    layer = CrossDConv2d.from_conv(conv, init=init, hidden_channels=3, max_angle=0.5)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                 "padding_mode"):  # fmt: skip
        assert getattr(layer, name) == getattr(conv, name), name
    assert not layer.weight.requires_grad
    assert layer.predictor[0].weight.requires_grad
    assert not layer.training
    assert layer.bias is None
    assert (layer.hidden_channels, layer.max_angle) == (3, 0.5)
    assert {value.dtype for value in layer.parameters()} == {torch.float64}
    assert all(value.equal(before[key]) for key, value in conv.state_dict().items())
    layer.weight.data.zero_()
    assert conv.weight.abs().sum() > 0


def test_frozen_bias_stays_frozen():
    conv = nn.Conv2d(4, 8, 3)
    conv.bias.requires_grad_(False)
    layer = CrossDConv2d.from_conv(conv)
    assert not layer.bias.requires_grad
    assert layer.weight.requires_grad


def test_device_is_that_of_the_conv():
    layer = CrossDConv2d.from_conv(nn.Conv2d(4, 8, 3, device="meta"))
    assert all(value.is_meta for value in layer.state_dict().values())


def test_unknown_start_is_named():
    with pytest.raises(ValueError, match="init must be one of repeat, paper, preserve, but is 'keep'"):
        CrossDConv2d.from_conv(nn.Conv2d(4, 8, 3), init="keep")


def test_predictor_is_not_stuck_after_preserve():
    layer = CrossDConv2d.from_conv(nn.Conv2d(4, 8, 3), init="preserve").double()
    x, target = torch.randn(6, 4, 9, 9, dtype=torch.float64), torch.randn(6, 8, 7, 7, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    assert layer.predictor[3].weight[:3].abs().min() > 0  # the axis is a fresh one, only the angle is 0

    def gradients():
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        return {name: value.grad.clone() for name, value in layer.named_parameters()}

    first = gradients()
    # at angle 0 the angle is the only output that moves anything ...
    assert first["predictor.3.weight"][3].abs().max() > 1e-8
    assert first["predictor.3.bias"][3].abs() > 1e-8
    optimizer.step()
    second = gradients()
    # ... and once it has moved, all do; what BatchNorm takes away again has no gradient anywhere
    second.pop("predictor.0.bias")
    assert {name: bool(value.abs().max() > 1e-10) for name, value in second.items()} == dict.fromkeys(second, True)


def test_a_fresh_layer_moves_every_parameter():
    layer = CrossDConv2d(4, 8, 3).double()
    layer(torch.randn(6, 4, 9, 9, dtype=torch.float64)).square().mean().backward()
    still = [name for name, value in layer.named_parameters() if value.grad.abs().max() < 1e-14]
    assert still in ([], ["predictor.0.bias"])
