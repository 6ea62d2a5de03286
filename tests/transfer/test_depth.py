# SPDX-License-Identifier: Apache-2.0
"""Where every slice goes: by the formula of `to_3d`, and with `keep_depth`; against the 2D layer by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from ways import WAYS

from monai_crossd import ConversionError, to_3d

AXES = [-1, 0, 1]


def by_hand(conv, volume, axis):
    """Slice z is the 2D output of slice z·s − p + d·(k // 2), or of zeros where there is none."""
    k, s, p, d = (getattr(conv, name)[0] for name in ("kernel_size", "stride", "padding", "dilation"))
    slices = volume.unbind(axis)
    number = (len(slices) + 2 * p - d * (k - 1) - 1) // s + 1
    outputs = []
    for z in range(number):
        at = z * s - p + d * (k // 2)
        outputs.append(conv(slices[at] if 0 <= at < len(slices) else torch.zeros_like(slices[0])))
    return torch.stack(outputs, dim=axis)


GEOMETRIES = [
    (k, s, p, d)
    for k, s, p, d in itertools.product((1, 2, 3, 4, 5), (1, 2, 4), (0, 1, 2), (1, 2))
    if 7 + 2 * p >= d * (k - 1) + 1 and p <= d * (k - 1)
]


@pytest.mark.parametrize("method", ["center", "planar"])
@pytest.mark.parametrize("axis", AXES)
def test_a_slice_goes_where_the_docstring_says(method, axis):
    volume = torch.randn(1, 2, 9, 9, 7, dtype=torch.float64).movedim(4, axis % 3 + 2)
    for k, s, p, d in GEOMETRIES:
        conv = nn.Conv2d(2, 2, k, s, p, d).double()
        expected = by_hand(conv, volume, axis % 3 + 2)
        got = to_3d(conv, *WAYS[method], axis)(volume)
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0, msg=lambda m, at=(k, s, p, d): f"{at}: {m}")


KEPT = {
    "unpadded": nn.Conv2d(2, 4, 3),
    "unpadded, dilated": nn.Conv2d(2, 4, 3, dilation=2),
    "padded too much": nn.Conv2d(2, 4, 3, padding=2),
    "uneven": nn.Conv2d(2, 4, (5, 3), padding=(0, 1), stride=(2, 1)),
    "even": nn.Conv2d(2, 4, 2),
    "even, padded": nn.Conv2d(2, 4, 4, stride=2, padding=1),
    "even and odd": nn.Conv2d(2, 4, (4, 3), padding=1),
    "even, same": nn.Conv2d(2, 4, 4, padding="same"),
    "valid": nn.Conv2d(2, 4, 3, padding="valid"),
    "reflected": nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
    "patches": nn.Conv2d(2, 4, 4, stride=4),
    "point": nn.Conv2d(2, 4, 1, stride=2, padding=1),
    "padded on one side": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(2, 4, 3, stride=2)),
    "reflection": nn.ReflectionPad2d((1, 2, 2, 1)),
    "replication": nn.ReplicationPad2d(2),
    "circular": nn.CircularPad2d(1),
    "constant": nn.ConstantPad2d((1, 0, 2, 0), 3.0),
    "cropped": nn.ZeroPad2d((-1, -1, -2, 0)),
    "shuffle": nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.PixelShuffle(2)),
    "unshuffle": nn.PixelUnshuffle(2),
    "transposed": nn.ConvTranspose2d(2, 4, 3),
    "transposed, even": nn.ConvTranspose2d(2, 4, 4, padding=2),
    "transposed, dilated": nn.ConvTranspose2d(2, 4, 3, padding=1, dilation=2),
    "max pool": nn.MaxPool2d(2),
    "max pool, ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max pool, dilated": nn.MaxPool2d(2, 1, 1, dilation=2),
    "average pool": nn.AvgPool2d(4, 3, 1, ceil_mode=True, count_include_pad=False),
    "adaptive": nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive, one axis": nn.AdaptiveMaxPool2d((1, 4)),
    "adaptive, None": nn.AdaptiveAvgPool2d((None, 2)),
    "upsample": nn.Upsample(scale_factor=(2, 3), mode="bilinear"),
    "upsampling": nn.UpsamplingBilinear2d(scale_factor=2),
}


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("method", ["center", "planar"])
def test_kept_depth_gives_every_slice_its_own(method, axis):
    at = axis % 3 + 2
    volume = torch.randn(2, 2, 12, 8, 5, dtype=torch.float64).movedim(4, at)
    for name, layer in KEPT.items():
        layer = layer.double().eval()
        expected = torch.stack([layer(one) for one in volume.unbind(at)], dim=at)
        got = to_3d(layer, *WAYS[method], axis, keep_depth=True, example=volume)(volume)
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("method", ["i3d", "acs", "soft_acs", "mean_acs", "crossd", "plane_cycle", "planar"])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_method_keeps_the_depth_or_says_why_not(method, depth):
    volume = torch.randn(1, 2, 14, 14, depth)
    convolutions = {k: v for k, v in KEPT.items() if isinstance(v, nn.Conv2d) and v.padding_mode == "zeros"}
    refused: dict[str, str] = {}
    for name, layer in convolutions.items():
        try:
            made = to_3d(nn.Sequential(layer.float()), *WAYS.get(method, (method,)), keep_depth=True)
        except ValueError as error:
            refused[name] = str(error)
        else:
            assert made(volume).shape[4] == depth, name
            assert made(volume).shape[2:4] == layer(volume[..., 0]).shape[2:], name
    if method in ("i3d", "planar"):
        assert not refused
    assert set(refused) < set(convolutions)
    assert all(text.startswith("0: ") for text in refused.values())


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 1}, {"padding": "valid"}], ids=str
)
def test_a_crossd_layer_keeps_the_depth_whatever_the_padding(geometry, mode):
    conv, volume = nn.Conv2d(2, 4, 3, **geometry), torch.randn(2, 2, 9, 8, 5)
    made = to_3d(conv, "crossd", keep_depth=True, mode=mode).eval()
    torch.testing.assert_close(made(volume), torch.stack([conv(s) for s in volume.unbind(4)], dim=4))


def test_an_even_kernel_shares_itself_among_one_slice_less():
    conv = nn.Conv2d(1, 1, 4, stride=4)
    made = to_3d(conv, inflate="i3d", keep_depth=True)
    assert made.kernel_size == (4, 4, 3)
    torch.testing.assert_close(made.weight.sum(-1), conv.weight)


def test_a_pool_to_one_value_takes_the_depth():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    volume = torch.randn(1, 2, 4, 5, 6)
    torch.testing.assert_close(to_3d(net, keep_depth=True)(volume), net[2](volume.mean((2, 3, 4))))


@pytest.mark.parametrize("layer", [nn.Unfold(3), nn.Fold((4, 4), 3)], ids=lambda v: type(v).__name__)
def test_patches_of_images_are_refused(layer):
    with pytest.raises(ConversionError, match=rf"1 is a {type(layer).__name__}, which works in 2D only"):
        to_3d(nn.Sequential(nn.Conv2d(1, 9, 1), layer))
