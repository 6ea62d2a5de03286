# SPDX-License-Identifier: Apache-2.0
"""Graphs of every layer, exported from one example: right for every sample of any batch, and any size of image."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from exporters import ANY_SIZE, ONNX, ONNX_DYNAMO, make_graph
from torch import nn

from monai_crossd.conv import (
    ACSConv3d,
    ACSConvTranspose3d,
    CrossDConv2d,
    CrossDConv3d,
    PlanarConv3d,
    SoftACSConv3d,
    crossd_conv2d,
    crossd_conv3d,
)

# layer, spatial dimensions
LAYERS = {
    "crossd2d": (CrossDConv2d, 2),
    **{
        f"{mode}_{placement}": (partial(CrossDConv3d, mode=mode, placement=placement, depth_axis=axis), 3)
        for axis, mode in ((-1, "dynamic"), (0, "static"))
        for placement in ("center", "spread")
    },
    "acs": (ACSConv3d, 3),
    "soft_acs": (SoftACSConv3d, 3),
    "mean_acs": (partial(SoftACSConv3d, mean=True), 3),
    "transposed_acs": (partial(ACSConvTranspose3d, stride=2, output_padding=1), 3),
    "planar": (PlanarConv3d, 3),
    "plane_cycle": (partial(PlanarConv3d, plane=0), 3),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
GEOMETRIES = [{"kernel_size": 3, "padding": 1}, {"kernel_size": 4, "padding": 2, "groups": 2}]


def make(name, dtype=torch.float32, **geometry):
    """A layer whose values are all random, and a batch of five."""
    layer, dims = LAYERS[name]
    net = layer(4, 6, **geometry).to(dtype).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.normal_()
        if hasattr(net, "running_shift"):
            net.running_shift.copy_(torch.tensor([0.7, 1.2, 1.1]))
    return net, torch.randn(5, 4, *(6, 7, 5)[:dims], dtype=dtype)


def check(graph, net, inputs, tolerance=1e-4):
    for x in inputs:
        with torch.no_grad():
            one_by_one = [net(sample.unsqueeze(0)) for sample in x] or [net(x)]
        torch.testing.assert_close(graph(x), torch.cat(one_by_one), atol=tolerance, rtol=tolerance)


@every_layer
@pytest.mark.parametrize(("geometry", "batch"), zip(GEOMETRIES, [1, 4], strict=True), ids=str)
@pytest.mark.parametrize("exporter", ANY_SIZE)
def test_torchscript_of_any_batch_and_size(name, exporter, batch, geometry, tmp_path):
    net, x = make(name, torch.float64, **geometry)
    graph = make_graph(exporter, net, x[:batch], tmp_path)
    other = torch.randn(2, 4, *[n + 2 for n in x.shape[2:]], dtype=x.dtype)
    thin = torch.randn(3, 4, *[4] * (x.dim() - 3), 1, dtype=x.dtype)
    check(graph, net, [x[:1], x[:3], x, x[:0], other, thin], 1e-12)


@every_layer
@pytest.mark.parametrize("batch", [1, 4])
def test_older_onnx_of_any_batch_and_size(name, batch, tmp_path):
    net, x = make(name, **GEOMETRIES[batch == 4])
    graph = make_graph("onnx_trace", net, x[:batch], tmp_path)
    check(graph, net, [x[:1], x[:3], x, torch.randn(2, 4, *[n + 2 for n in x.shape[2:]])])


@every_layer
def test_onnx_by_monai(name, tmp_path):
    net, x = make(name, kernel_size=(3, 2, 3)[: LAYERS[name][1]], padding=1)
    check(make_graph("onnx_monai", net, x[:1], tmp_path), net, [x[:1], x])


@every_layer
@pytest.mark.parametrize("exporter", ONNX_DYNAMO)
@pytest.mark.slow
def test_onnx_by_torch_export_of_any_batch(name, exporter, tmp_path):
    net, x = make(name, kernel_size=3, padding=1)
    check(make_graph(exporter, net, x[:1], tmp_path), net, [x[:1], x[:3], x])


@every_layer
def test_trace_does_not_warn_of_our_branches(name):
    net, x = make(name, kernel_size=3, padding=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("error", torch.jit.TracerWarning)
        torch.jit.trace(net, x[:1])


def test_functions_with_one_shift_for_all_or_one_for_each(tmp_path):
    bank = torch.randn(6, 4, 3, 3, 3)

    class Net(nn.Module):
        def __init__(self, dims, each):
            super().__init__()
            self.dims, self.each = dims, each

        def forward(self, x):
            shift = x.flatten(1)[:, :3] if self.each else torch.tensor([[0.7, 1.2, 1.1]])
            if self.dims == 2:
                return crossd_conv2d(x, bank, shift, padding=1)
            return crossd_conv3d(x, bank, shift, padding=1)

    for dims in (2, 3):
        for each in (True, False):
            net, x = Net(dims, each), torch.randn(5, 4, *(6, 7, 5)[:dims])
            for exporter in ("trace", *ONNX):
                check(make_graph(exporter, net, x[:1], tmp_path), net, [x[:1], x[:3], x])
