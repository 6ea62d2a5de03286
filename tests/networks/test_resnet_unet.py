# SPDX-License-Identifier: Apache-2.0
"""The U-Net of the bundles: any size, scripted, exported, filled by a pretrained classifier."""

from __future__ import annotations

import pytest
import torch

from monai_crossd import load_2d
from monai_crossd.conv import ACSConv3d, CrossDConv3d
from monai_crossd.networks import ResNetUNet, build_resnet
from monai_crossd.training import start_from

SMALL = {"model_name": "resnet10", "widen_factor": 0.125, "decoder_channels": (16, 8, 8, 4, 4)}
LIGHT = {"model_name": "resnet18", "widen_factor": 0.25, "decoder_channels": (64, 48, 32, 16, 16)}


@pytest.mark.parametrize("conv", ["crossd", "acs", "conv"])
@pytest.mark.parametrize(
    ("size", "arguments"),
    [
        ((32, 32), {}),
        ((33, 47), {}),
        ((40, 31), {"no_max_pool": True, "conv1_t_stride": 1}),
        ((32, 32, 32), {}),
        ((33, 31, 19), {}),
        ((33, 32, 7), {"conv1_t_stride": (2, 2, 1)}),
        ((32, 32, 5), {"conv1_t_stride": (2, 2, 1), "conv1_t_size": (7, 7, 3), "conv": "conv"}),
    ],
)
def test_any_size_trains(conv, size, arguments):
    net = ResNetUNet(len(size), 2, 3, **{"conv": conv, **SMALL, **arguments})
    x = torch.randn(2, 2, *size)
    y = net(x)
    assert y.shape == (2, 3, *size)
    y.square().mean().backward()
    assert all(value.grad is not None for name, value in net.named_parameters()), "a parameter without a gradient"


def test_the_light_setting_is_light():
    for conv in ("crossd", "acs", "conv"):
        net = ResNetUNet(3, 1, 8, conv=conv, **LIGHT)
        assert sum(value.numel() for value in net.parameters()) <= 3_000_000, conv


def test_encoder_takes_a_classifier():
    classifier = build_resnet("resnet10", "crossd", 2, widen_factor=0.125, num_classes=5)
    net = ResNetUNet(3, 1, 3, **SMALL)
    assert set(net.encoder.state_dict()) == set(classifier.state_dict()) - {"fc.weight", "fc.bias"}
    report = load_2d(net.encoder, classifier)
    assert report.share == 1
    assert set(report.skipped) == {"fc.weight", "fc.bias"}


def trained_2d(conv: str, seed: int = 0) -> ResNetUNet:
    """A 2D network whose batch norms have statistics of their own."""
    torch.manual_seed(seed)
    net = ResNetUNet(2, 1, 3, conv=conv, no_max_pool=True, **SMALL)
    for _ in range(2):
        net(torch.randn(4, 1, 24, 20) * 2 + 1)
    return net.eval()


@pytest.mark.parametrize("conv", ["conv", "crossd"])
def test_a_2d_unet_fills_encoder_decoder_and_head_slice_by_slice(conv):
    net2d = trained_2d(conv)
    net3d = ResNetUNet(3, 1, 3, conv=conv, no_max_pool=True, conv1_t_stride=(2, 2, 1), **SMALL).eval()
    report = load_2d(net3d, net2d)
    assert report.share == 1
    assert not report.initial
    assert {key.partition(".")[0] for key in report.transferred} == {"encoder", "decoder", "head"}
    volume = torch.randn(2, 1, 24, 20, 1).expand(-1, -1, -1, -1, 5)  # later strides mix slices, so all are one
    assert net2d(volume[..., 0]).std() > 0.01
    for part in net3d(volume).unbind(-1):
        torch.testing.assert_close(part, net2d(volume[..., 0]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_fills_what_it_is_of(prefix, tmp_path):
    """Of a 2D U-Net all, of a classifier the encoder."""
    for net2d, parts in (
        (trained_2d("crossd"), {"encoder", "decoder", "head"}),
        (build_resnet("resnet10", "crossd", 2, widen_factor=0.125, num_classes=5), {"encoder"}),
    ):
        path = tmp_path / "weights.pt"
        torch.save({prefix + key: value for key, value in net2d.state_dict().items()}, path)
        net3d = ResNetUNet(3, 1, 3, **SMALL)
        before = {key: value.clone() for key, value in net3d.state_dict().items()}
        report = start_from(net3d, path, part="encoder")
        assert report.share == 1
        changed = {key for key, value in net3d.state_dict().items() if not torch.equal(value, before[key])}
        assert {key.partition(".")[0] for key in changed} == parts


@pytest.mark.slow
@pytest.mark.parametrize("conv", ["crossd", "acs"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_net_runs_where_the_package_is_not(conv, tmp_path, run_without_package):
    net = ResNetUNet(3, 1, 3, conv=conv, conv1_t_stride=(2, 2, 1), **SMALL).eval()
    x = torch.randn(1, 1, 33, 32, 7)
    torch.jit.script(net).save(tmp_path / "net.ts")
    torch.save((x, net(x).detach()), tmp_path / "case.pt")
    run_without_package(
        f"""
import torch
x, y = torch.load(r"{tmp_path / "case.pt"}")
net = torch.jit.load(r"{tmp_path / "net.ts"}")
torch.testing.assert_close(net(x), y, atol=1e-4, rtol=1e-4)
assert net(x[..., :5].repeat(2, 1, 1, 1, 1)).shape == (2, 3, 33, 32, 5)
"""
    )


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_onnx_with_any_batch(dims, run_onnx):
    net = ResNetUNet(dims, 1, 3, **SMALL).eval()
    inputs = [torch.randn(batch, 1, *[32] * dims) for batch in (2, 1, 3)]
    for y, x in zip(run_onnx(net, inputs[0], *inputs), inputs, strict=True):
        torch.testing.assert_close(y, net(x).detach(), atol=1e-4, rtol=1e-3)


def test_state_dict_round_trip():
    net, twin = ResNetUNet(2, 1, 3, **SMALL).eval(), ResNetUNet(2, 1, 3, **SMALL).eval()
    x = torch.randn(1, 1, 32, 32)
    assert not twin(x).equal(net(x))
    twin.load_state_dict(net.state_dict())
    assert twin(x).equal(net(x))


def test_features_are_the_encoders():
    net = ResNetUNet(2, 1, 3, **SMALL).eval()
    x = torch.randn(1, 1, 32, 32)
    features = net.features(x)
    assert features[0] is x
    assert [tuple(f.shape[1:]) for f in features[1:]] == [(8, 16, 16), (8, 8, 8), (16, 4, 4), (32, 2, 2), (64, 1, 1)]
    pooled = net.encoder(x)
    torch.testing.assert_close(features[-1].mean(dim=(2, 3)), pooled)


@pytest.mark.parametrize("channels", [(16, 8, 8, 4), (16, 8, 8, 4, 4, 4), ()])
def test_decoder_needs_five_widths(channels):
    with pytest.raises(ValueError, match=r"five widths, deepest first, got \("):
        ResNetUNet(2, 1, 3, **{**SMALL, "decoder_channels": channels})


def test_unknown_convolution_is_answered_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'crossd'"):
        ResNetUNet(2, 1, 3, conv="crosd", **SMALL)


@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        ({"conv": "acs"}, lambda net: isinstance(net.encoder.conv1, ACSConv3d)),
        ({"conv_options": {"depth_axis": 0}}, lambda net: net.encoder.conv1.depth_axis == 0),
        ({"act": "prelu"}, lambda net: "PReLU" in str(net.decoder)),
        ({"norm": "instance"}, lambda net: "InstanceNorm3d" in str(net.decoder)),
        ({"dropout": 0.2}, lambda net: "p=0.2" in str(net.decoder)),
        ({"decoder_channels": (8, 8, 8, 8, 8)}, lambda net: net.head.in_channels == 8),
        ({"model_name": "resnet18"}, lambda net: len(net.encoder.layer1) == 2),
    ],
)
def test_arguments_arrive(arguments, check):
    assert not check(ResNetUNet(3, 1, 2, **SMALL))
    net = ResNetUNet(3, 1, 2, **{**SMALL, **arguments})
    assert check(net)
    if "conv" not in arguments:
        assert isinstance(net.encoder.conv1, CrossDConv3d)


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives():
    net, x = ResNetUNet(3, 1, 3, **SMALL).eval(), torch.randn(1, 1, 32, 32, 16)
    expected = net(x)
    torch.testing.assert_close(net.cuda()(x.cuda()).cpu(), expected, atol=1e-2, rtol=1e-2)
