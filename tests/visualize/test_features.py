# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_crossd import to_3d
from monai_crossd.visualize import draw_features


def make_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


def maps(figure) -> list[torch.Tensor]:
    return [torch.as_tensor(axes.images[0].get_array().copy()) for axes in figure.axes[1:] if axes.images]


@pytest.mark.parametrize("depth_axis", [0, 1, -1])
@pytest.mark.parametrize("index", [None, 0, 4])
def test_planar_network_gives_the_slice(tmp_path, sketches, depth_axis, index):
    net = make_net()
    volume = torch.randn(1, 5, 5, 5)
    draw_features(
        net, to_3d(net, "planar", depth_axis=depth_axis), volume, "0", tmp_path / "f.png", index=index,
        depth_axis=depth_axis, channels=[4, 1],
    )  # fmt: skip
    with torch.no_grad():
        expected = net[0](volume.select(1 + depth_axis % 3, 2 if index is None else index)[None])[0, [4, 1]]
    shown = maps(sketches[0])
    for at in range(2):
        torch.testing.assert_close(shown[at], expected[at])
        torch.testing.assert_close(shown[2 + at], expected[at])
    titles = [axes.get_title() for axes in sketches[0].axes if axes.get_title()]
    assert titles == ["slice", "channel 4", "channel 1", "r = 1.00, spread ×1", "r = 1.00, spread ×1"]
    limits = {axes.images[0].get_clim() for axes in sketches[0].axes[1:] if axes.images}
    assert len(limits) == 1


def test_networks_by_name_and_by_the_spread_of_their_maps(tmp_path, figures):
    net = make_net().train()
    double = to_3d(net, "planar")
    with torch.no_grad():
        net[0].weight[2] *= 0
        double[0].weight.mul_(-3)
        double[0].bias.mul_(-3)
    before = net[1].running_mean.clone()
    nets = {"same": to_3d(net, "planar"), "times −3": double}
    draw_features(net, nets, torch.randn(1, 8, 8, 4), "0", tmp_path / "f.png")
    titles = [axes.get_title() for axes in figures[0].axes if axes.get_title()]
    assert titles[1:6] == [f"channel {i}" for i in (0, 1, 3, 4, 5)]  # that of no spread is left out
    assert titles[6:] == ["r = 1.00, spread ×1"] * 5 + ["r = -1.00, spread ×3"] * 5
    assert {"same", "times −3"} <= {text.get_text() for axes in figures[0].axes for text in axes.texts}
    assert net.training
    assert torch.equal(net[1].running_mean, before)


def test_slice_of_a_layer_that_strides(tmp_path, sketches):
    net = nn.Sequential(nn.AvgPool2d(2))
    volume = torch.arange(8.0).expand(1, 8, 8, 8)  # each slice holds its number
    for index, expected in ((0, 0.5), (1, 0.5), (6, 6.5), (7, 6.5)):
        draw_features(net, to_3d(net), volume, "0", tmp_path / "f.png", index=index)
        assert maps(sketches[-1])[1].unique().tolist() == [expected]
        assert "constant" in [axes.get_title() for axes in sketches[-1].axes]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume": torch.zeros(1, 1, 8, 8, 4)}, r"volume has shape \(1, 1, 8, 8, 4\); expected \(C, H, W, D\)"),
        ({"depth_axis": 3}, "depth_axis is 3"),
        ({"index": 4}, r"index is 4; expected 0 \.\.\. 3"),
        ({"index": -1}, "index is -1"),
        ({"channels": [6]}, r"channels are \[6\]; expected some of 0 \.\.\. 5"),
        ({"channels": []}, r"channels are \[\]"),
        ({"net3d": {}}, "net3d is empty"),
        ({"layer_name": "7"}, "no layer '7'"),
        ({"net3d": nn.Sequential(nn.Conv3d(1, 5, 3))}, r"gives \(1, 5, 6, 6, 2\) in '3D'; expected \(1, 6, H, W, D\)"),
    ],
)
def test_what_does_not_fit(tmp_path, change, message):
    net = make_net()
    given = {"net3d": to_3d(net, "planar"), "volume": torch.zeros(1, 8, 8, 4), "layer_name": "0", **change}
    with pytest.raises(ValueError, match=message):
        draw_features(net, path=tmp_path / "f.png", **given)
    assert list(tmp_path.iterdir()) == []
