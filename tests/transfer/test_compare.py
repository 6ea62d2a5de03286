# SPDX-License-Identifier: Apache-2.0
"""Forwards whose own code means the axes of an image: found by an example; and those that do not: no alarm."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ways import WAYS

from monai_crossd import ConversionError, to_3d, to_crossd


class Net(nn.Module):
    """A convolution, then code of its own."""

    def __init__(self, code, *layers):
        super().__init__()
        self.conv, self.code = nn.Conv2d(1, 4, 3, padding=1), code
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return self.code(self.conv(x), *self.layers)


FILTER = torch.ones(4, 1, 3, 3)
IMAGES_ONLY = {
    "mean list": lambda x: x.mean([2, 3]),
    "mean from the end": lambda x: x.mean((-2, -1)),
    "mean keepdim": lambda x: x * x.mean(dim=[2, 3], keepdim=True),
    "mean of one axis": lambda x: x - x.mean(-1, keepdim=True),
    "mean twice": lambda x: x.mean(3).mean(2),
    "sum": lambda x: x.sum(dim=[2, 3]),
    "amax": lambda x: x.amax([2, 3]),
    "max twice": lambda x: x.max(-1)[0].max(-1)[0],
    "std": lambda x: x / (1 + x.std(dim=[-2, -1], keepdim=True)),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=[2, 3]),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "pad reflect": lambda x: F.pad(x, [1, 0, 1, 0], mode="reflect"),
    "cat": lambda x: torch.cat([x, x], -3),
    "stack": lambda x: torch.stack([x, x], -1).mean(-2),
    "chunk": lambda x: torch.mul(*x.chunk(2, dim=-3)),
    "crop": lambda x: x[..., 1:-1, 1:-1],
    "crop by index": lambda x: x[..., 1:, :],
    "narrow": lambda x: x.narrow(-1, 1, 3),
    "stride": lambda x: x[..., ::2],
    "softmax": lambda x: x.softmax(-3),
    "softmax of a row": lambda x: x.softmax(-1),
    "glu": lambda x: F.glu(x, dim=-3),
    "flip": lambda x: x.flip([-2, -1]),
    "roll": lambda x: x.roll((1, 2), (-2, -1)),
    "roll of a row": lambda x: x.roll(1, -1),
    "transpose": lambda x: x.transpose(-1, -2),
    "permute": lambda x: x.permute(0, 1, 3, 2),
    "rot90": lambda x: torch.rot90(x, 1, (-2, -1)),
    "flatten": lambda x: x.flatten(-2).mean(-1),
    "view": lambda x: x.view(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]).mean(-1),
    "unpack": lambda x: torch.ones(x.shape[2:]).mul(x).sum([2, 3]),
    "unpack four": lambda x: x.reshape(*[n for n in [*x.shape][:4]]),
    "position": lambda x: x + torch.linspace(0, 1, x.shape[-1]),
    "einsum": lambda x: torch.einsum("bchw,bchw->bc", x, x),
    "matmul": lambda x: x @ x.mT,
    "cumsum": lambda x: x.cumsum(-1),
    "diff": lambda x: x.diff(dim=-1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-2:]),
    "interpolate to a size": lambda x: F.interpolate(x, size=(5, 5)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "conv2d": lambda x: F.conv2d(x, FILTER, groups=4),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 3),
    "scrambled": lambda x: x.flatten(2).reshape(x.shape[0], -1, 2).mean(1),
    "in a tuple": lambda x: (x, x.mean([2, 3])),
    "in a dictionary": lambda x: {"features": x.relu(), "pooled": x.mean([2, 3])},
}
# what gives every slice its own, by axis of the depth
SLICE_BY_SLICE = {
    -1: {"mean keepdim"},
  0: {"pad", "stack", "crop", "crop by index",
        "narrow", "stride", "roll", "roll of a row", "flip", "softmax of a row",
        "mean of one axis", "transpose", "position", "matmul", "cumsum", "diff", "std", "layer norm", "rot90",
        "adaptive_avg_pool2d", "scrambled"},
}  # fmt: skip
EITHER = {
    "mean": lambda x: x.flatten(2).mean(2),
    "mean of all axes": lambda x: x.mean(tuple(range(2, x.dim()))),
    "max": lambda x: x.flatten(2).max(2)[0],
    "channels": lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1).softmax(1),
    "pad": lambda x: F.pad(x, (1, 1) * (x.dim() - 2)),
    "crop": lambda x: x[:, :, 1:-1, 1:-1],
    "rows": lambda x: x.mean(2),
    "places": lambda x: x.flatten(2),
    "places last": lambda x: x.flatten(2).transpose(1, 2),
    "channels last": lambda x: x.movedim(1, -1),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3).mean(1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "to the size of another": lambda x: F.interpolate(x[:, :, ::2, ::2], size=x.shape[2:]) + x,
    "dropout": lambda x: F.dropout(x, 0.5, False),
    "noise": lambda x: x + torch.randn_like(x),
    "a tuple and None": lambda x: (x, None, {"a": x.flatten(2).amax(2)}),
}
WITH_LAYERS = {
    "down and up": lambda x, *layers: F.interpolate(layers[0](x), scale_factor=2) + x,
    "pad, pool and mean": lambda x, *layers: layers[0](F.pad(x, (1, 1) * (x.dim() - 2))).flatten(2).mean(2),
    "norm": lambda x, *layers: layers[1](layers[2](x)),
    "pooled": lambda x, *layers: x * layers[3](x).sigmoid(),
    "grid": lambda x, *layers: layers[4](x).flatten(1, 2),
}


def layers():
    norm = nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)
    return nn.MaxPool2d(2), *norm, nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d((2, 2))


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("keep_depth", [False, True])
@pytest.mark.parametrize("name", IMAGES_ONLY)
def test_code_for_images_is_found(name, axis, keep_depth):
    """Axes that are counted from the end are the image's own where the depth is the first."""
    net, volume = Net(IMAGES_ONLY[name]), torch.randn(1, 1, 8, 8, 8)
    if name in SLICE_BY_SLICE[axis]:
        to_3d(net, depth_axis=axis, keep_depth=keep_depth, example=volume)
        return
    with pytest.raises(ConversionError, match=r"does something else to a volume|fails on a volume|keeps? .*depth"):
        to_3d(net, depth_axis=axis, keep_depth=keep_depth, example=volume)


@pytest.mark.parametrize("method", ["i3d", "center", "acs", "crossd", "planar", "soft_acs"])
def test_whatever_the_method(method):
    for name in ("mean list", "pad", "crop"):
        with pytest.raises(ConversionError, match="does something else"):
            to_3d(Net(IMAGES_ONLY[name]), *WAYS[method], example=torch.zeros(1, 1, 8, 8, 8))
    to_3d(Net(EITHER["mean"]), *WAYS[method], example=torch.zeros(1, 1, 8, 8, 8))


@pytest.mark.parametrize("size", [(8, 8, 8), (8, 10, 4), (6, 12, 2), (8, 6, 1)])
@pytest.mark.parametrize("name", [*EITHER, *WITH_LAYERS])
def test_code_for_both_raises_no_alarm(name, size):
    net = Net(EITHER[name]) if name in EITHER else Net(WITH_LAYERS[name], *layers())
    if name == "down and up" and size[2] % 2:
        return
    to_3d(net, inflate="i3d", example=torch.randn(2, 1, *size))


def test_the_module_is_named():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), Net(lambda x: x)), nn.Identity())
    net[1][1].conv = nn.Conv2d(4, 4, 1)
    net[1][1].code = lambda x: x.softmax(-1)
    with pytest.raises(ConversionError, match=r"^1\.1 does something else to a volume .*load_2d"):
        to_3d(net, example=torch.randn(1, 1, 9, 8, 7))


def test_softmax_of_the_last_axis_is_named_and_of_channels_follows():
    rows = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softmax(-1))
    with pytest.raises(ConversionError, match=r"^1 does something else"):
        to_3d(rows, example=torch.randn(1, 1, 9, 8, 7))
    volume = torch.randn(2, 1, 6, 7, 5)
    for layer in (nn.Softmax(-3), nn.LogSoftmax(-3), nn.Softmin(-3), nn.GLU(-3), nn.Softmax2d(), nn.Softmax(1)):
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), layer)
        expected = torch.stack([net(one) for one in volume.unbind(4)], dim=4)
        torch.testing.assert_close(to_3d(net, example=volume)(volume), expected, atol=1e-5, rtol=1e-5)


def test_kept_depth_is_looked_at_too():
    net = Net(EITHER["nearest"])
    to_3d(net, example=torch.randn(1, 1, 8, 8, 4))
    with pytest.raises(ConversionError, match="does not keep the depth: 4 slices become 8"):
        to_3d(net, keep_depth=True, example=torch.randn(1, 1, 8, 8, 4))


def test_a_crossd_network_is_compared_at_its_running_shift():
    for name, raises in (("mean", False), ("mean list", True)):
        net = to_crossd(Net(EITHER["mean"] if not raises else IMAGES_ONLY[name]))
        net(torch.randn(3, 1, 8, 8))
        if raises:
            with pytest.raises(ConversionError, match="does something else"):
                to_3d(net, "crossd", example=torch.randn(1, 1, 8, 8, 6))
        else:
            to_3d(net, "crossd", example=torch.randn(1, 1, 8, 8, 6))


def test_nothing_is_left_behind():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before, random = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    volume = torch.randn(1, 1, 8, 8, 6)
    random = torch.random.get_rng_state()
    made = to_3d(net, example=volume)
    torch.testing.assert_close(dict(net.state_dict()), dict(before), rtol=0, atol=0)
    assert (net.training, made.training, made[1].num_batches_tracked) == (True, True, 0)
    assert not any(module._forward_hooks for module in [*net.modules(), *made.modules()])
    torch.random.set_rng_state(random)
    plain = to_3d(net)
    torch.testing.assert_close(plain.state_dict(), made.state_dict(), rtol=0, atol=0)


def test_an_example_is_a_batch_of_volumes():
    with pytest.raises(ValueError, match=r"\(B, C, H, W, D\), but has shape \[1, 8, 8\]"):
        to_3d(nn.Conv2d(1, 1, 3), example=torch.zeros(1, 8, 8))
