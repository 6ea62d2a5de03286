# SPDX-License-Identifier: Apache-2.0
"""2D networks as 3D ones: against the 2D network itself, slice by slice or on a volume that repeats one image."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ways import WAYS

from monai_crossd import ConversionError, CrossDConv2d, CrossDConv3d, to_3d, to_crossd
from monai_crossd.conv.factory import CONVOLUTIONS
from monai_crossd.transfer.modules3d import CLASSES, PADDING

STATIC = [m for m in WAYS if m not in ("crossd", "bank")]


def randomise(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(0.3 * torch.randn_like(value))
        for name, value in net.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn_like(value))
            elif name.endswith("running_var"):
                value.copy_(torch.rand_like(value) + 0.5)
    return net


def repeated(image: torch.Tensor, depth: int, axis: int) -> torch.Tensor:
    return image.unsqueeze(axis + 2).repeat_interleave(depth, dim=axis + 2)


LAYERS = {
    "conv": nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
    "conv_dilated": nn.Conv2d(4, 6, (3, 5), padding=(2, 1), dilation=(2, 1), padding_mode="reflect"),
    "conv_even": nn.Conv2d(4, 6, 4, stride=2, padding=1, bias=False),
    "conv_same": nn.Conv2d(4, 6, (5, 3), padding="same"),
    "transposed": nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
    "transposed_odd": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed_dilated": nn.ConvTranspose2d(4, 6, (4, 3), stride=(3, 2), dilation=2),
    "batch_norm": nn.BatchNorm2d(4),
    "sync_norm": nn.SyncBatchNorm(4),
    "instance_norm": nn.InstanceNorm2d(4, affine=True),
    "group_norm": nn.GroupNorm(2, 4),
    "max_pool": nn.MaxPool2d(3, 2, 1),
    "max_pool_uneven": nn.MaxPool2d((3, 2), (2, 1), dilation=(1, 2), ceil_mode=True),
    "avg_pool": nn.AvgPool2d((3, 2), (2, 1)),
    "avg_pool_padded": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg_pool_divided": nn.AvgPool2d((2, 3), divisor_override=5),
    "adaptive_avg": nn.AdaptiveAvgPool2d((2, 3)),
    "adaptive_max": nn.AdaptiveMaxPool2d(2),
    "upsample_nearest": nn.Upsample(scale_factor=2),
    "upsample_linear": nn.Upsample(scale_factor=(2.0, 3.0), mode="bilinear", align_corners=True),
    "upsample_size": nn.Upsample(size=(20, 21), mode="bilinear"),
    "upsampling_nearest": nn.UpsamplingNearest2d(scale_factor=2),
    "upsampling_bilinear": nn.UpsamplingBilinear2d(scale_factor=2),
    "shuffle": nn.PixelShuffle(2),
    "unshuffle": nn.PixelUnshuffle(2),
    "pad_constant": nn.ConstantPad2d((1, 2, 3, 0), 0.0),
    "pad_zero": nn.ZeroPad2d((1, 0, 2, 1)),
    "pad_reflect": nn.ReflectionPad2d((1, 2, 3, 0)),
    "pad_replicate": nn.ReplicationPad2d(2),
    "pad_circular": nn.CircularPad2d((1, 2, 0, 1)),
    "dropout": nn.Dropout2d(0.5),
    "alpha": nn.FeatureAlphaDropout(0.5),
    "softmax": nn.Softmax2d(),
    "root_activation": nn.GELU(),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_i3d_of_a_repeated_image_gives_the_image_output(name, axis):
    net, x = randomise(copy.deepcopy(LAYERS[name])).double().eval(), torch.randn(2, 4, 8, 10, dtype=torch.float64)
    y, got = net(x), to_3d(net, inflate="i3d", depth_axis=axis)(repeated(x, 18, axis))
    assert got.dim() == 5
    lost = min(4, (got.shape[axis + 2] - 1) // 2)  # first and last slices see the end of the volume
    got = got.narrow(axis + 2, lost, got.shape[axis + 2] - 2 * lost)
    torch.testing.assert_close(got, repeated(y, got.shape[axis + 2], axis), atol=1e-10, rtol=0)


def test_every_known_layer_is_tried():
    assert {*CLASSES, *PADDING} - {type(layer) for layer in LAYERS.values()} == {nn.LPPool2d, nn.MaxUnpool2d}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_has_no_image_output_to_compare_has_the_same_geometry(axis):
    x = repeated(torch.rand(1, 2, 8, 8), 8, axis)
    pooled = to_3d(nn.LPPool2d(2, 2), depth_axis=axis)(x)
    torch.testing.assert_close(pooled, 2**0.5 * repeated(F.lp_pool2d(x.select(axis + 2, 0), 2, 2), 4, axis))
    pool = to_3d(nn.MaxPool2d(2, return_indices=True), depth_axis=axis)
    unpool = to_3d(nn.MaxUnpool2d((2, 2)), depth_axis=axis)
    y = torch.randn(1, 2, 8, 8, 8)
    values, at = pool(y)
    torch.testing.assert_close(unpool(values, at), F.max_unpool3d(values, at, 2))


@pytest.mark.parametrize("method", ["center", "planar", "crossd"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_slice_gives_its_image_output(method, axis):
    net = randomise(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2, groups=2),
            nn.ConvTranspose2d(4, 3, 3, padding=1), nn.Sigmoid(),
        )
    ).double().eval()  # fmt: skip
    x = torch.randn(2, 1, 6, 7, 8, dtype=torch.float64)
    slices = torch.stack([net(s) for s in x.unbind(axis + 2)], dim=axis + 2)
    torch.testing.assert_close(to_3d(net, *WAYS[method], axis)(x), slices, atol=1e-10, rtol=0)


def test_a_strided_transposed_center_takes_the_nearest_slice():
    net = nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1).double()
    x = torch.randn(1, 2, 4, 5, 6, dtype=torch.float64)
    slices = torch.stack([net(s) for s in x.unbind(4)], dim=4).repeat_interleave(2, dim=4)
    torch.testing.assert_close(to_3d(net)(x), slices, atol=1e-12, rtol=0)


def residual() -> nn.Module:
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 4, 7, stride=2, padding=3)
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
            self.short, self.norm = nn.Conv2d(4, 8, 1, stride=2), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.head(F.relu(self.norm(self.b(self.a(x)) + self.short(x))).flatten(2).mean(2))

    return Residual()


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("source", ["plain", "crossd"])
@pytest.mark.parametrize("axis", [0, -1])
def test_every_method_runs_and_learns(method, source, axis):
    net = residual() if source == "plain" else to_crossd(residual())
    if (method, source) == ("bank", "plain"):
        with pytest.raises(ValueError, match=r"stem: a plain 2D kernel has no bank"):
            to_3d(net, *WAYS[method], axis)
        return
    if source == "crossd":
        net(torch.randn(4, 1, 16, 16))
    made = to_3d(net, *WAYS[method], axis)
    y = made(torch.randn(2, 1, 12, 13, 14))
    assert y.shape == (2, 3)
    y.square().sum().backward()
    assert all(p.grad is not None for n, p in made.named_parameters())
    kind = CONVOLUTIONS[method].layer3d if method in CONVOLUTIONS else nn.Conv3d
    assert type(made.stem) is type(made.short) is kind
    if method == "plane_cycle":
        assert [m.plane for m in (made.stem, made.a, made.b)] == ([0, 1, 2] if axis == 0 else [2, 0, 1])
        assert made.short.plane == made.stem.plane


@pytest.mark.parametrize("method", STATIC)
def test_crossd_source_is_its_plain_form_at_the_running_shift(method):
    from monai_crossd import to_plain

    net = to_crossd(residual())
    net(torch.randn(4, 1, 16, 16))
    x = torch.randn(2, 1, 12, 13, 14)
    torch.testing.assert_close(
        to_3d(net.eval(), *WAYS[method])(x), to_3d(to_plain(net), *WAYS[method])(x), atol=1e-5, rtol=1e-4
    )


def test_crossd_carries_its_state():
    net = to_crossd(residual())
    net(torch.randn(4, 1, 16, 16))
    made = to_3d(net, "crossd", mode="static", placement="spread")
    assert made.a.running_shift.equal(net.a.running_shift)
    assert (made.a.mode, made.a.placement) == ("static", "spread")
    torch.testing.assert_close(to_3d(net, "crossd").state_dict(), net.state_dict(), atol=0, rtol=0)
    with pytest.raises(ValueError, match="conv='conv' has no options, got mode"):
        to_3d(net, inflate="i3d", mode="static")
    with pytest.raises(ValueError, match="i3d"):
        to_3d(net, "i3dd")


@pytest.mark.parametrize("method", ["crossd", "soft_acs", "center"])
def test_a_copy_that_keeps_everything(method):
    net = residual().double().eval()
    net.norm.train()
    net.a.weight.requires_grad_(False)
    net.register_buffer("counter", torch.ones(2))
    before = copy.deepcopy(net.state_dict())
    made = to_3d(net, *WAYS[method])
    torch.testing.assert_close(net.state_dict(), before, atol=0, rtol=0)
    assert type(net.a) is nn.Conv2d
    assert (made.training, made.norm.training, made.a.training) == (False, True, False)
    assert not made.a.weight.requires_grad
    assert made.b.weight.requires_grad
    assert made.counter.equal(net.counter)
    assert made.a.weight.dtype == torch.float64
    x = torch.randn(2, 1, 9, 9, 9, dtype=torch.float64)
    made.norm.eval()
    # a class local to a function does not pickle, the layers do
    assert pickle.loads(pickle.dumps(made.a))(torch.ones(1, 4, 5, 5, 5).double()).shape == (1, 4, 5, 5, 5)
    twin = copy.deepcopy(made)
    assert twin(x).equal(made(x))
    twin.load_state_dict(made.state_dict())


def test_tied_modules_and_parameters_stay_tied():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    other = nn.Conv2d(2, 2, 3, padding=1)
    other.weight = conv.weight
    net = nn.Sequential(conv, nn.ReLU(), conv, other)
    made = to_3d(net, inflate="i3d")
    assert made[0] is made[2]
    assert made[3] is not made[0]
    assert made[3].weight is made[0].weight
    assert made[3].bias is not made[0].bias
    assert len(list(made.parameters())) == len(list(net.parameters())) == 3


def test_roots():
    assert type(to_3d(CrossDConv2d(2, 4, 3), "crossd")) is CrossDConv3d
    assert type(to_3d(CrossDConv2d(2, 4, 3))) is nn.Conv3d
    assert type(to_3d(nn.BatchNorm2d(3))) is nn.BatchNorm3d
    assert to_3d(nn.Dropout2d(0.3)).p == 0.3


class Own2d(nn.Module):
    def forward(self, x):
        return x


class OwnConv(nn.Conv2d):
    pass


class OwnNorm(nn.BatchNorm2d):
    pass


class Resize(nn.Module):
    mode = "class attributes are not looked at"

    def __init__(self):
        super().__init__()
        self.how = "bilinear"


class Functional(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 2)


class EitherWay(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 2) if x.dim() == 4 else F.avg_pool3d(x, 2)


class PlaneMean(nn.Module):
    def forward(self, x):
        return self.mean(x) * x

    def mean(self, x):
        return x.mean((2, 3), keepdim=True)


class OwnMean(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).mean((1, 2))


class Named2dSequential(nn.Sequential):
    pass


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Own2d(), "block.0 is a Own2d, a 2D module that no 3D form is known of: build the 3D network"),
        (OwnConv(1, 1, 3), r"block.0 is a OwnConv, a Conv2d with a behaviour of its own"),
        (nn.utils.spectral_norm(nn.Conv2d(1, 1, 3)), "block.0 is a Conv2d with weight_orig"),
        (nn.LazyConv2d(1, 3), "block.0 is a LazyConv2d"),
        (nn.LazyConvTranspose2d(1, 3), "block.0 is a LazyConvTranspose2d"),
        (OwnNorm(1), "block.0 is a OwnNorm, a BatchNorm2d with a behaviour of its own"),
        (nn.FractionalMaxPool2d(2, 3), "block.0 is a FractionalMaxPool2d, a 2D module"),
        (nn.LayerNorm((1, 8, 8)), r"block.0 is a LayerNorm over images of one size \(1, 8, 8\)"),
        (nn.Upsample(scale_factor=2, mode="bicubic"), "block.0 is a bicubic Upsample"),
        (Functional(), "block.0 calls avg_pool2d in its forward, a function for images .*: build the 3D network"),
        (PlaneMean(), "block.0 works on the two axes of an image in its forward"),
        (Resize(), r"block.0 is a Resize that interpolates images \(how is 'bilinear'\)"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_has_no_3d_form_is_named(layer, says):
    net = nn.ModuleDict({"block": nn.ModuleList([layer])})
    with pytest.raises(TypeError, match=says):
        to_3d(net, inflate="i3d")


def test_a_function_for_both_is_left_alone():
    assert to_3d(EitherWay())(torch.ones(1, 1, 4, 4, 4)).shape == (1, 1, 2, 2, 2)


def test_a_shape_for_images_is_found_by_an_example():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), OwnMean()))
    made = to_3d(net, inflate="i3d")  # nothing to be seen
    with pytest.raises(ConversionError, match=r"1\.1 fails on a volume of shape \[1, 1, 9, 9, 9\] .*load_2d"):
        to_3d(net, inflate="i3d", example=torch.zeros(1, 1, 9, 9, 9))
    with pytest.raises(ConversionError, match=r"0 fails on a volume of shape \[1, 1, 4, 4, 4\]"):
        to_3d(nn.Sequential(Functional()), example=torch.ones(1, 1, 4, 4, 4))
    assert not made[0]._forward_hooks
    fine = to_3d(
        Named2dSequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), inflate="i3d", example=torch.ones(1, 1, 5, 5, 5)
    )
    assert fine[1].num_batches_tracked == 0
    assert not any(m._forward_hooks for m in fine.modules())


def test_methods_name_the_layer_they_cannot_carry():
    net = nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, (2, 3)))
    with pytest.raises(ValueError, match="1: a bank of depth 3 cannot be padded"):
        to_3d(net, "crossd")
    with pytest.raises(ValueError, match="1: a 2×3 kernel cannot stand across axis 0"):
        to_3d(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 2, (2, 3))), "plane_cycle")


@pytest.mark.parametrize("depth_axis", [-1, 0, 1])
@pytest.mark.parametrize("method", ["center", "planar", "crossd"])
def test_kept_depth_gives_every_slice_its_2d_output(method, depth_axis):
    """Whatever strides, pools and upsamples within the slices; of a Cross-D network where all slices are one image."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        nn.AvgPool2d(2, stride=(2, 1), divisor_override=3), nn.Conv2d(4, 3, 1, stride=(1, 2)), nn.LPPool2d(2, 2, 1),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.ELU(),
    ).double()  # fmt: skip
    image = torch.rand(2, 2, 24, 20, dtype=torch.float64)
    net(image)  # statistics that are not the first ones
    net.eval()
    axis = depth_axis % 3 + 2
    if method == "crossd":
        net = to_crossd(net, init="preserve").eval()
        volume = torch.stack([image] * 5, dim=axis)
    else:
        volume = torch.rand(2, 2, 24, 20, 5, dtype=torch.float64).movedim(-1, axis)
    expected = torch.stack([net(slice_) for slice_ in volume.unbind(axis)], dim=axis)
    torch.testing.assert_close(
        to_3d(net, *WAYS[method], depth_axis, keep_depth=True)(volume), expected, atol=1e-10, rtol=0
    )


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.ConvTranspose2d(1, 1, 2, stride=2), "0 is a transposed convolution that strides, which keeps no depth"),
        (nn.Upsample(size=(8, 8)), r"0 is an Upsample to the size \(8, 8\), which keeps no depth"),
    ],
)
def test_what_cannot_keep_the_depth_is_named(layer, says):
    to_3d(nn.Sequential(layer))
    with pytest.raises(ConversionError, match=says):
        to_3d(nn.Sequential(layer), keep_depth=True)


@pytest.mark.parametrize("wrong", ["i3d", "center", "bank"])
def test_a_way_to_inflate_is_no_convolution(wrong):
    with pytest.raises(ValueError, match=f"no convolution: pass inflate='{wrong}'"):
        to_3d(nn.Conv2d(1, 1, 3), wrong)


@pytest.mark.parametrize(("words", "says"), [(("acss",), "did you mean 'acs'"), (("acs", "i3"), "did you mean 'i3d'")])
def test_unknown_words_are_answered(words, says):
    with pytest.raises(ValueError, match=says):
        to_3d(nn.Conv2d(1, 1, 3), *words)


def test_transposed_kernels_beside_other_layers_follow_inflate():
    net2d = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ConvTranspose2d(3, 1, 3, padding=1))
    for conv in CONVOLUTIONS:
        spread, center = to_3d(net2d, conv, "i3d")[1].weight, to_3d(net2d, conv)[1].weight
        torch.testing.assert_close(spread, torch.stack([net2d[1].weight / 3] * 3, dim=-1))
        assert center[..., 1].equal(net2d[1].weight)
        assert center[..., ::2].abs().sum() == 0
