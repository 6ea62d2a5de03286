# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_crossd.conv import CrossDConv2d, CrossDConv3d
from monai_crossd.conv.crossd_cpu import predict_shift
from monai_crossd.conv.shift import crossd_kernel2d, shift_kernel
from monai_crossd.visualize import draw_bank
from monai_crossd.visualize.bank import rotation_from_map
from monai_crossd.visualize.capture import find_layer, run_layer


def make_net(layer: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), layer or CrossDConv2d(2, 3, 3, bank_init="paper"))


def pictures(figure, titles: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """What is shown, row by row, in the rows whose label begins with one of the words."""
    found: dict[str, list] = {}
    label = ""
    for axes in (axes for part in figure.subfigs for axes in part.axes):
        label = axes.get_ylabel() or label
        if axes.images and label.startswith(titles):
            found.setdefault(label, []).append(torch.as_tensor(axes.images[0].get_array().copy()))
    return {label: torch.stack(arrays) for label, arrays in found.items()}


def shift_of(layer: CrossDConv2d | CrossDConv3d, x: torch.Tensor) -> torch.Tensor:
    """As the layer itself computes it."""
    return predict_shift(layer.predictor(x.flatten(3) if x.dim() == 5 else x), layer.max_angle)


@pytest.mark.parametrize(("training", "channels"), [(False, [(0, 0)]), (True, [(2, 1), (1, 0)])])
def test_picture_holds_bank_shifts_and_kernels(tmp_path, figures, channels, training):
    net = make_net().train(training)
    images = torch.randn(4, 1, 9, 9)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert draw_bank(net, "2", images, tmp_path / "a" / "bank.png", channels) == tmp_path / "a" / "bank.png"
    assert net.training is training
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    net.eval()
    layer = net[2]
    with torch.no_grad():
        shifts = shift_of(layer, net[:2](images))
        whole = shift_kernel(layer.weight, shifts)[:, :, :, 1]  # the middle slice of the whole bank, shifted
    rows = pictures(figures[0], ("kernel\n", "out "))
    for at, (o, i) in enumerate(channels):
        torch.testing.assert_close(rows[f"out {o}, in {i}"], layer.weight.detach()[o, i])
        torch.testing.assert_close(rows[f"kernel\nout {o}, in {i}"], whole[:, o, i], msg=str(at))
    for column, shift in enumerate(shifts):
        text = "shift s = " + " ".join(f"{value:.2f}" for value in shift.tolist())
        assert [a for a in figures[0].subfigs[1].axes if text in a.get_title()], (column, text)
    bars = [[1 + b.get_height() for b in a.patches] for a in figures[0].subfigs[1].axes if len(a.patches) == 3]
    torch.testing.assert_close(torch.tensor(bars, dtype=torch.float32), shifts)


@pytest.mark.parametrize("placement", ["center", "spread"])
@pytest.mark.parametrize("depth_axis", [0, 1, -1])
def test_layer_of_a_3d_network(tmp_path, sketches, depth_axis, placement):
    layer = CrossDConv3d(1, 2, 3, bank_init="paper", depth_axis=depth_axis, placement=placement).eval()
    volume = torch.randn(2, 1, 5, 6, 7)
    draw_bank(layer, "", volume, tmp_path / "bank.png", [(1, 0)])
    with torch.no_grad():
        expected = crossd_kernel2d(layer.weight, shift_of(layer, volume))[:, 1, 0]
    torch.testing.assert_close(pictures(sketches[0], ("kernel\n",))["kernel\nout 1, in 0"], expected)
    shown = next(a.images[0].get_array() for a in sketches[0].subfigs[1].axes if a.get_ylabel() == "image")
    middle = volume[0, 0].select(depth_axis, volume.shape[2 + depth_axis % 3] // 2)
    torch.testing.assert_close(torch.as_tensor(shown.copy()), middle)


def test_rotation_is_what_the_layer_takes():
    layer = CrossDConv2d(2, 3, 3, max_angle=1.0).eval()
    x = torch.randn(5, 2, 6, 6) * 3
    with torch.no_grad():
        axis, angle, shift = rotation_from_map(layer.predictor(x), layer.max_angle)
        torch.testing.assert_close(shift, shift_of(layer, x))
    torch.testing.assert_close(axis.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(shift.sum(1), torch.full((5,), 3.0))
    rotations = torch.eye(3) + angle[:, None, None] * torch.stack(
        [torch.stack([torch.linalg.cross(k, e) for e in torch.eye(3)], dim=1) for k in axis]
    )
    torch.testing.assert_close(shift, rotations.sum(1))  # Rᵀ1


@pytest.mark.parametrize(
    ("name", "images", "channels", "message"),
    [
        ("9", (2, 1, 9, 9), [(0, 0)], r"no layer '9': Sequential holds 0, 1, 2"),
        ("2.x", (2, 1, 9, 9), [(0, 0)], r"no layer '2.x': '2' of Sequential holds predictor"),
        ("0", (2, 1, 9, 9), [(0, 0)], "'0' is a Conv2d that predicts no shift"),
        ("2", (1, 9, 9), [(0, 0)], r"images have shape \(1, 9, 9\); expected \(B, C, H, W\)"),
        ("2", (9, 1, 9, 9), [(0, 0)], "B from 1 to 8"),
        ("2", (2, 1, 9, 9), [], "channels is empty"),
        ("2", (2, 1, 9, 9), [(3, 0)], r"channel \(3, 0\) is not in the bank: expected .* below \(3, 2\)"),
        ("2", (2, 1, 9, 9), [(0, -1)], "is not in the bank"),
    ],
)
def test_what_does_not_fit(tmp_path, name, images, channels, message):
    with pytest.raises(ValueError, match=message):
        draw_bank(make_net(), name, torch.zeros(images), tmp_path / "bank.png", channels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", [CrossDConv2d(2, 3, 1), CrossDConv3d(1, 2, 3, mode="static")])
def test_layer_without_a_predictor(tmp_path, layer):
    with pytest.raises(ValueError, match="predicts no shift"):
        draw_bank(layer, "", torch.zeros(1, 2, 9, 9), tmp_path / "bank.png")


def test_layer_that_does_not_run():
    net = make_net()
    net.forward = lambda x: net[0](x)
    with pytest.raises(ValueError, match="Layer '2' does not run in Sequential"):
        run_layer(net, "2", torch.zeros(1, 1, 9, 9))
    assert find_layer(net, "") is net
    assert not net[2]._forward_hooks
