# SPDX-License-Identifier: Apache-2.0
"""Graphs of whole networks, exported from one image or volume: each sample of a larger batch keeps its own kernels."""

from __future__ import annotations

import warnings

import pytest
import torch
from exporters import ONNX_DYNAMO, make_graph
from monai.networks.nets import BasicUNet, FlexibleUNet, SegResNet, UNet

from monai_crossd import to_3d
from monai_crossd.conv import use_conv
from monai_crossd.networks import HybridNet, ResNetUNet, build_resnet

SMALL = {"widen_factor": 0.0625, "conv1_t_stride": 1, "no_max_pool": True}


def unet(dims, conv):
    with use_conv(conv):
        return UNet(dims, 1, 2, channels=(4, 8), strides=(2,), num_res_units=1)


def segresnet(dims, conv):
    with use_conv(conv):
        return SegResNet(dims, 4, 1, 2, blocks_down=(1, 1), blocks_up=(1,), norm=("GROUP", {"num_groups": 2}))


def basic_unet(dims, conv):
    with use_conv(conv):
        return BasicUNet(dims, 1, 2, features=(4, 4, 4, 4, 4, 4))


def hybrid(dims, conv):
    net2d = build_resnet("resnet10", **SMALL)
    return HybridNet(net2d, to_3d(net2d, "crossd"))


NETS = {
    "resnet": lambda dims, conv: build_resnet("resnet10", conv, dims, **SMALL),
    "resnet_unet": lambda dims, conv: ResNetUNet(
        dims, 1, 2, "resnet10", conv, decoder_channels=(4, 4, 4, 4, 4), **SMALL
    ),
    "unet": unet,
    "segresnet": segresnet,
    "basic_unet": basic_unet,
    "hybrid": hybrid,
}
FAST = [("unet", 2), ("unet", 3)]
CASES = [
    *[
        pytest.param(name, dims, "crossd", marks=[] if (name, dims) in FAST else [pytest.mark.slow])
        for name in NETS
        for dims in (2, 3)
    ],
    *[
        pytest.param("resnet_unet", 3, conv, marks=pytest.mark.slow)
        for conv in ("acs", "soft_acs", "mean_acs", "planar", "plane_cycle")
    ],
]


def make(name, dims, conv):
    net = NETS[name](dims, conv).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return net, torch.randn(5, 1, *[32 if name == "basic_unet" else 16] * dims)


def check(graph, net, x):
    for batch in (x[:1], x[:3], x):
        with torch.no_grad():
            expected = torch.cat([net(sample.unsqueeze(0)) for sample in batch])
        scale = expected.abs().max().item()
        torch.testing.assert_close(graph(batch), expected, atol=1e-4 * scale, rtol=1e-3)


@pytest.mark.parametrize(("name", "dims", "conv"), CASES)
@pytest.mark.parametrize("exporter", ["trace", "onnx_trace"])
def test_of_one_sample_is_right_for_many(name, dims, conv, exporter, tmp_path):
    net, x = make(name, dims, conv)
    check(make_graph(exporter, net, x[:1], tmp_path), net, x)


@pytest.mark.parametrize(("name", "dims"), [("resnet_unet", 3), ("resnet", 2)])
@pytest.mark.parametrize("exporter", ONNX_DYNAMO)
@pytest.mark.slow
def test_onnx_by_torch_export(name, dims, exporter, tmp_path):
    net, x = make(name, dims, "crossd")
    check(make_graph(exporter, net, x[:1], tmp_path), net, x)


@pytest.mark.slow
def test_flexible_unet_with_our_backbone(tmp_path):
    net = FlexibleUNet(1, 2, "crossd_resnet10", spatial_dims=2, decoder_channels=(8, 8, 4, 4, 4)).eval()
    x = torch.randn(5, 1, 32, 32)
    check(make_graph("trace", net, x[:1], tmp_path), net, x)


@pytest.mark.slow
def test_trace_runs_where_the_package_is_not(tmp_path, run_without_package):
    net, x = (part.double() for part in make("resnet_unet", 3, "crossd"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, x[:1]).save(tmp_path / "net.ts")
    torch.save((x, net(x).detach()), tmp_path / "case.pt")
    run_without_package(
        f"import torch; x, y = torch.load(r'{tmp_path / 'case.pt'}'); net = torch.jit.load(r'{tmp_path / 'net.ts'}')\n"
        "for n in (1, 3, 5): torch.testing.assert_close(net(x[:n]), y[:n], atol=1e-9, rtol=1e-6)"
    )
