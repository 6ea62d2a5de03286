# SPDX-License-Identifier: Apache-2.0
"""A layer made from a plain convolution, and the plain convolution made from a layer."""

from __future__ import annotations

import copy
import inspect
import pickle
import random

import pytest
import torch
from geometry import draw_conv, draw_transposed
from torch import nn

from monai_crossd.conv import (
    ACSConv3d,
    ACSConvTranspose3d,
    CrossDConv2d,
    CrossDConv3d,
    PlanarConv3d,
    SoftACSConv3d,
    crossd_kernel2d,
)

FLAT = [ACSConv3d, SoftACSConv3d, PlanarConv3d]
LAYERS = [*FLAT, CrossDConv3d]


def plain2d(case: dict) -> nn.Conv2d:
    kind = nn.ConvTranspose2d if "output_padding" in case else nn.Conv2d
    return kind(**{name: value for name, value in case.items() if name != "size"}).double()


def cases(count: int, dims: int, draw=draw_conv) -> list[dict]:
    rng = random.Random(7)
    return [draw(rng, dims) for _ in range(count)]


def volume(case: dict) -> torch.Tensor:
    # the third axis is as long as the longest, so that a depth of any kernel fits
    size = case["size"] if len(case["size"]) == 3 else [*case["size"], max(case["size"]) + 9]
    return torch.randn(2, case["in_channels"], *size, dtype=torch.float64)


@pytest.mark.parametrize("layer", LAYERS)
def test_copies_everything(layer):
    conv = nn.Conv2d(4, 6, 3, (2, 1), (0, 1), (1, 2), 2, padding_mode="reflect", dtype=torch.float64).eval()
    conv.weight.requires_grad_(False)
    before = copy.deepcopy(conv.state_dict())
    made = layer.from_conv(conv, depth_axis=0, depth_stride=3)
    assert (made.stride, made.padding, made.dilation) == ((3, 2, 1), (0, 0, 1), (1, 1, 2))
    assert made.kernel_size == (3, 3, 3)
    assert (made.groups, made.padding_mode, made.training) == (2, "reflect", False)
    assert made.weight.dtype == made.bias.dtype == torch.float64
    assert not made.weight.requires_grad
    assert made.bias.requires_grad
    assert made.bias.equal(conv.bias)
    assert made.bias is not conv.bias
    torch.testing.assert_close(conv.state_dict(), before, atol=0, rtol=0)
    assert layer.from_conv(nn.Conv2d(4, 6, 3, bias=False)).bias is None
    if layer in FLAT:
        assert made.weight.equal(conv.weight)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("depth_axis", [0, 1, 2, -1])
def test_keeps_slices_that_the_conv2d_keeps_rows(layer, depth_axis):
    for kernel, dilation in [((3, 3), 1), ((5, 5), 2), ((1, 7), 1), ((7, 1), 1), ((1, 3), 2)]:
        pads = tuple(dilation * (k // 2) for k in kernel)
        for padding in (pads, "same"):
            conv = nn.Conv2d(2, 4, kernel, padding=padding, dilation=dilation)
            x = torch.randn(1, 2, 5, 6, 7)
            assert layer.from_conv(conv, depth_axis)(x).shape == (1, 4, 5, 6, 7)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("layer", [PlanarConv3d, CrossDConv3d])
def test_every_slice_gets_its_2d_output(layer, axis):
    for kernel in ((3, 3), (5, 3), (3, 1)):
        conv = nn.Conv2d(2, 4, kernel, stride=2, padding=1).double()
        pads = conv.padding[0] - conv.kernel_size[0] // 2
        if pads and layer is PlanarConv3d:
            continue
        made = layer.from_conv(conv, axis, depth_stride=1)
        x = torch.randn(1, 2, 9, 9, 9, dtype=torch.float64)
        slices = torch.stack([conv(s) for s in x.unbind(axis + 2)], dim=axis + 2)
        y = made.eval()(x)
        lost = (slices.shape[axis + 2] - y.shape[axis + 2]) // 2
        torch.testing.assert_close(y, slices.narrow(axis + 2, lost, y.shape[axis + 2]), atol=1e-12, rtol=0)


def test_planar_in_another_plane_needs_a_square():
    conv = nn.Conv2d(2, 4, 3, padding=1)
    made = PlanarConv3d.from_conv(conv, plane=0)
    x = torch.randn(1, 2, 5, 6, 7)
    slices = torch.stack([conv(s) for s in x.unbind(2)], dim=2)
    torch.testing.assert_close(made(x), slices, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"1×7 kernel cannot stand across axis 0 of volumes whose depth is axis -1"):
        PlanarConv3d.from_conv(nn.Conv2d(2, 4, (1, 7)), plane=0)


def test_crossd_of_a_crossd2d_is_that_layer():
    flat = CrossDConv2d(4, 6, 3, padding=1, hidden_channels=5, max_angle=0.3, bank_init="paper")
    flat(torch.randn(3, 4, 8, 8))
    flat.momentum = 0.5
    flat.predictor[0].weight.requires_grad_(False)
    made = CrossDConv3d.from_conv(flat, placement="spread", depth_axis=1)
    assert (made.hidden_channels, made.max_angle, made.bank_init, made.momentum) == (5, 0.3, "paper", 0.5)
    assert (made.placement, made.depth_axis, made.mode) == ("spread", 1, "dynamic")
    torch.testing.assert_close(made.state_dict(), flat.state_dict(), atol=0, rtol=0)
    assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in flat.parameters()]
    static = CrossDConv3d.from_conv(flat, mode="static")
    assert static.predictor is None
    assert static.running_shift.equal(flat.running_shift)


def test_crossd_whose_depth_cannot_be_padded_alike():
    with pytest.raises(ValueError, match=r"bank of depth 3 cannot be padded like the first axis of a \(2, 3\) kernel"):
        CrossDConv3d.from_conv(nn.Conv2d(2, 4, (2, 3)))


@pytest.mark.parametrize("layer", [*FLAT, CrossDConv3d], ids=lambda c: c.__name__)
@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_to_conv3d_gives_the_same_output(layer, options):
    for case in cases(120, 3):
        case = {**case, **options}
        arguments = {name: value for name, value in case.items() if name != "size"}
        if layer is CrossDConv3d:
            extra = {"mode": "static", "depth_axis": random.choice([0, 1, 2]), "placement": "center"}
            extra["placement"] = random.choice(["center", "spread"])
        elif layer is PlanarConv3d:
            extra = {"plane": random.choice([0, 1, 2])}
        elif layer is SoftACSConv3d:
            extra = {"mean": random.random() < 0.5}
        else:
            extra = {}
        made = layer(**arguments, **extra).double().eval()
        with torch.no_grad():
            for value in [*made.parameters(), *made.buffers()]:
                value.add_(0.1 * torch.randn_like(value))
        made.weight.requires_grad_(False)
        plain = made.to_conv3d()
        assert type(plain) is nn.Conv3d
        assert not plain.training
        assert not plain.weight.requires_grad
        x = volume(case)
        torch.testing.assert_close(plain(x), made(x), atol=1e-10, rtol=0)


def test_a_planar_kernel_stays_flat_where_it_can():
    assert PlanarConv3d(2, 4, 3, padding=1).to_conv3d().kernel_size == (3, 3, 1)
    assert PlanarConv3d(2, 4, 3, padding="same", plane=0).to_conv3d().kernel_size == (1, 3, 3)
    assert PlanarConv3d(2, 4, 3).to_conv3d().kernel_size == (3, 3, 3)  # cuts slices: no padding says so
    assert CrossDConv3d(2, 4, 5, padding=2, depth_axis=1).to_conv3d().kernel_size == (5, 1, 5)


def test_to_conv2d_at_a_shift():
    flat = CrossDConv2d(2, 4, 3, padding=1, padding_mode="circular", bank_init="paper").double()
    for _ in range(3):
        flat(torch.randn(4, 2, 6, 6, dtype=torch.float64))
    x, shift = torch.randn(2, 2, 6, 6, dtype=torch.float64), torch.tensor([0.7, 1.1, 1.2], dtype=torch.float64)
    assert flat.to_conv2d().weight.equal(crossd_kernel2d(flat.weight, flat.running_shift[None])[0])
    assert flat.to_conv2d([1, 1, 1]).weight.detach().allclose(flat.weight.roll((1, 1, 1), (2, 3, 4))[:, :, 1])
    made = CrossDConv3d.from_conv(flat)
    kernel = flat.to_conv2d(shift).weight
    assert made.to_conv3d(shift).weight.equal(kernel.unsqueeze(-1))
    with pytest.raises(ValueError, match=r"three numbers, got shape \[1, 3\]"):
        flat.to_conv2d(torch.ones(1, 3))
    flat.running_shift.copy_(shift)
    flat.predictor = None  # static
    torch.testing.assert_close(flat.to_conv2d()(x), flat(x), atol=1e-12, rtol=0)


def test_transposed_layer_from_and_to_plain():
    for case in cases(60, 2, draw_transposed):
        conv = plain2d(case)
        made = ACSConvTranspose3d.from_conv(conv)
        assert made.output_padding == (*conv.output_padding, conv.output_padding[0])
        if len(set(conv.kernel_size)) == 1:
            assert made.weight.equal(conv.weight)
        assert made.weight.sum().isclose(conv.weight.sum())
        x = torch.randn(2, case["in_channels"], 3, 4, 5, dtype=torch.float64)
        plain = made.to_conv3d()
        try:
            expected = plain(x)
        except RuntimeError:  # the output would be empty
            continue
        torch.testing.assert_close(made(x), expected, atol=1e-10, rtol=0)


def test_transposed_output_size_is_that_of_torch():
    made, x = ACSConvTranspose3d(2, 4, 3, stride=(2, 3, 1), padding=1), torch.randn(1, 2, 4, 5, 6)
    for size in ([8, 13, 6], [7, 15, 6], [1, 4, 7, 14, 6]):
        torch.testing.assert_close(made(x, size), made.to_conv3d()(x, size), atol=1e-6, rtol=0)
    for size, says in [([9, 13, 6], "axis 0 can be 7 to 8"), ([7, 13], "must have 3 entries")]:
        with pytest.raises(ValueError, match=says):
            made(x, size)
    with pytest.raises(ValueError, match="'zeros' for a transposed convolution, but is 'reflect'"):
        ACSConvTranspose3d(2, 4, 3, padding_mode="reflect")
    with pytest.raises(ValueError, match="padding must be an int or 3 ints"):
        ACSConvTranspose3d(2, 4, 3, padding="same")


OTHER = {
    "in_channels": 6, "out_channels": 8, "kernel_size": 2, "stride": 2, "padding": 2, "output_padding": 1, "groups": 2,
    "bias": False, "dilation": 2, "padding_mode": "reflect", "device": "meta", "dtype": torch.float64,
}  # fmt: skip


@pytest.mark.parametrize("name", inspect.signature(ACSConvTranspose3d).parameters)
def test_every_argument_of_the_transposed_layer_has_an_effect(name):
    base = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 3}

    def observe(arguments):
        torch.manual_seed(0)
        net = ACSConvTranspose3d(**arguments)
        seen = [(k, v.shape, v.dtype, v.device) for k, v in net.state_dict().items()]
        return seen, None if net.weight.is_meta else net(torch.ones(1, net.in_channels, 4, 4, 4).to(net.weight)).shape

    if name == "padding_mode":  # torch has one
        with pytest.raises(ValueError, match="padding_mode must be 'zeros'"):
            observe({**base, name: OTHER[name]})
        return
    assert observe({**base, name: OTHER[name]}) != observe(base)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transposed_layer_copies_scripts_and_casts():
    made = ACSConvTranspose3d(4, 8, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2)
    x = torch.randn(2, 4, 4, 5, 6)
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), torch.jit.script(made)):
        torch.testing.assert_close(twin(x), made(x))
        torch.testing.assert_close(twin(x[0]), made(x)[0])
    plain = nn.ConvTranspose3d(4, 8, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2)
    assert made(x).shape == plain(x).shape
    assert made(x[:0]).shape == plain(x[:0]).shape
    for name in ("kernel_size", "stride", "padding", "output_padding", "dilation", "transposed", "padding_mode"):
        assert getattr(made, name) == getattr(plain, name), name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = made(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), made(x), atol=0.1, rtol=0.1)
    assert "output_padding=(1, 1, 1)" in repr(made)
