# SPDX-License-Identifier: Apache-2.0
"""Thin images, kernels that reach beyond them, wrong inputs, and torch.func: what torch's own layers do, ours do."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, hessian, jvp, stack_module_state, vmap

from monai_crossd.conv import (
    ACSConv3d,
    ACSConvTranspose3d,
    CrossDConv2d,
    CrossDConv3d,
    PlanarConv3d,
    SoftACSConv3d,
    center_kernel,
    embed_planes,
    embed_planes_transposed,
    embed_views,
    spread_kernel,
)

STATIC = partial(CrossDConv3d, mode="static")
# layer and the kernel of the Conv3d that it is
DENSE = {
    "acs": (ACSConv3d, lambda net: embed_planes(net.weight, net.kernel_size)),
    "mean_acs": (partial(SoftACSConv3d, mean=True), lambda net: embed_views(net.weight, None, net.kernel_size)),
    "soft_acs": (
        SoftACSConv3d,
        lambda net: embed_views(net.weight, net.view_weight.softmax(1), net.kernel_size),
    ),
    "planar": (PlanarConv3d, lambda net: center_kernel(net.weight, net.kernel_size[2], 2)),
    "plane_cycle": (partial(PlanarConv3d, plane=0), lambda net: center_kernel(net.weight, net.kernel_size[0], 0)),
    "center": (
        partial(STATIC, depth_axis=1),
        lambda net: center_kernel(net._kernel_at(None), net.kernel_size[1], 1),
    ),
    "spread": (
        partial(STATIC, placement="spread"),
        lambda net: spread_kernel(net._kernel_at(None), net.kernel_size[2], 2),
    ),
}


def three(low, high):
    return st.tuples(*[st.integers(low, high)] * 3)


@pytest.mark.parametrize("name", DENSE)
@settings(max_examples=40)
@given(
    kernel_size=three(1, 5),
    dilation=three(1, 4),
    stride=three(1, 3),
    padding=st.one_of(three(0, 5), st.sampled_from(["same", "valid"])),
    mode=st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
    groups=st.integers(1, 2),
    size=three(1, 8),
)
def test_output_or_error_of_any_geometry_is_that_of_torch(
    name, kernel_size, dilation, stride, padding, mode, groups, size
):
    layer, kernel = DENSE[name]
    geometry = {"stride": 1 if padding == "same" else stride, "padding": padding, "dilation": dilation}
    arguments = {**geometry, "groups": groups, "padding_mode": mode, "dtype": torch.float64}
    ours = layer(2 * groups, 3 * groups, kernel_size, **arguments)
    plain = nn.Conv3d(2 * groups, 3 * groups, kernel_size, **arguments)
    with torch.no_grad():
        for value in ours.parameters():
            value.normal_()
        plain.weight.copy_(kernel(ours))
        plain.bias.copy_(ours.bias)
    x = torch.randn(2, 2 * groups, *size, dtype=torch.float64, requires_grad=True)
    try:
        expected = plain(x)
    except RuntimeError:
        with pytest.raises(RuntimeError) as raised:
            ours(x)
        assert "narrow" not in str(raised.value)
        return
    y = ours(x)
    torch.testing.assert_close(y, expected, atol=1e-9, rtol=1e-9)
    seed = torch.randn_like(y)
    gradients = [torch.autograd.grad(out, x, seed)[0] for out in (y, expected)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-9)


@settings(max_examples=80)
@given(
    kernel_size=three(1, 5),
    dilation=three(1, 2),
    stride=three(1, 5),
    padding=three(0, 4),
    extra=three(0, 4),
    groups=st.integers(1, 2),
    size=three(1, 4),
)
def test_transposed_of_any_geometry_is_that_of_torch(kernel_size, dilation, stride, padding, extra, groups, size):
    extra = tuple(min(e, max(s, d) - 1) for e, s, d in zip(extra, stride, dilation, strict=True))
    arguments = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups}
    ours = ACSConvTranspose3d(2 * groups, 3 * groups, kernel_size, **arguments, dtype=torch.float64)
    plain = nn.ConvTranspose3d(2 * groups, 3 * groups, kernel_size, **arguments, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(embed_planes_transposed(ours.weight, groups, kernel_size))
        plain.bias.copy_(ours.bias)
    x = torch.randn(2, 2 * groups, *size, dtype=torch.float64)
    try:
        expected = plain(x)
    except RuntimeError:
        expected = None
    if expected is None or expected.numel() == 0:  # torch's kernels differ in whether nothing is an error
        with pytest.raises(RuntimeError, match="too small"):
            ours(x)
    else:
        torch.testing.assert_close(ours(x), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("geometry", "size", "wrong", "says"),
    [
        ({"kernel_size": (1, 5, 5), "padding": (1, 1, 3)}, (2, 1, 3), None, r"output of size \[0, 3, 1\].*too small"),
        ({"kernel_size": 1, "padding": 1}, (1, 4, 4), None, r"output of size \[-1, 2, 2\]"),
        ({"kernel_size": 3, "stride": 2}, (3, 3, 3), [5, 7, 7], r"axis 0 can be 7 to 8"),
        ({"kernel_size": 3, "stride": 2}, (3, 3, 3), [9, 7, 7], r"axis 0 can be 7 to 8"),
        ({"kernel_size": 3, "stride": 2}, (3, 3, 3), [7, 7], r"3 entries"),
    ],
)
def test_impossible_output_of_a_transposed_layer(geometry, size, wrong, says):
    layer, x = ACSConvTranspose3d(2, 3, **geometry), torch.randn(1, 2, *size)
    with pytest.raises((RuntimeError, ValueError), match=says):
        layer(x, wrong)


EVERY = {
    "crossd2d": (CrossDConv2d, 2),
    **{
        f"{mode}_{placement}": (partial(CrossDConv3d, mode=mode, placement=placement), 3)
        for mode in ("dynamic", "static")
        for placement in ("center", "spread")
    },
    "acs": (ACSConv3d, 3),
    "soft_acs": (SoftACSConv3d, 3),
    "mean_acs": (partial(SoftACSConv3d, mean=True), 3),
    "transposed_acs": (partial(ACSConvTranspose3d, stride=2), 3),
    "planar": (PlanarConv3d, 3),
}
every_layer = pytest.mark.parametrize("name", EVERY)


@every_layer
@pytest.mark.parametrize("geometry", [{"kernel_size": 3, "padding": 1}, {"kernel_size": 4, "groups": 2, "padding": 2}])
def test_torch_func(name, geometry):
    layer, dims = EVERY[name]
    nets = [layer(2, 4, **geometry, dtype=torch.float64).eval() for _ in range(2)]
    with torch.no_grad():
        for value in (value for net in nets for value in net.parameters()):
            value.normal_()
    stacked, buffers = stack_module_state(nets)
    base, x = copy.deepcopy(nets[0]), torch.randn(3, 2, *(4, 4, 3)[:dims], dtype=torch.float64)

    def run(parameters, buffers, x):
        return functional_call(base, (parameters, buffers), (x,))

    def loss(parameters, buffers, x):
        return run(parameters, buffers, x).square().sum()

    ensemble = vmap(run, (0, 0, None))(stacked, buffers, x)
    torch.testing.assert_close(ensemble, torch.stack([net(x) for net in nets]))
    torch.testing.assert_close(vmap(nets[0])(x), nets[0](x))  # unbatched inside
    gradients = vmap(grad(loss), (0, 0, None))(stacked, buffers, x)
    for index, net in enumerate(nets):
        wanted = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
        for (key, _), value in zip(net.named_parameters(), wanted, strict=True):
            torch.testing.assert_close(gradients[key][index], value, msg=lambda m, k=key: f"{k}: {m}")
    first, buffer = {k: v[0] for k, v in stacked.items()}, {k: v[0] for k, v in buffers.items()}
    tangent = {key: torch.randn_like(value) for key, value in first.items()}
    _, slope = jvp(lambda p: loss(p, buffer, x), (first,), (tangent,))
    torch.testing.assert_close(slope, sum((gradients[k][0] * tangent[k]).sum() for k in first))
    small = x[:1, :, :2, :2]
    assert hessian(lambda v: run(first, buffer, v).sin().sum())(small).isfinite().all()


@every_layer
def test_wrong_inputs_name_what_is_wrong(name):
    layer, dims = EVERY[name]
    net = layer(4, 8, 3)
    space = [6] * dims
    for shape, says in (
        ((2, 0, *space), "expected 4 input channels, got 0"),
        ((2, 5, *space), "expected 4 input channels, got 5"),
        (space[1:], rf"{dims + 2} axes"),
        ((1, 1, 4, *space), rf"{dims + 2} axes"),
    ):
        with pytest.raises(ValueError, match=says):
            net(torch.zeros(shape))
    for dtype in (torch.float64, torch.int64, torch.complex64):
        with pytest.raises(RuntimeError):
            net(torch.zeros(2, 4, *space, dtype=dtype))


@pytest.mark.parametrize("layer", [ACSConv3d, SoftACSConv3d, PlanarConv3d, CrossDConv3d])
def test_images_taken_for_one_volume_are_too_thin(layer):
    with pytest.raises(RuntimeError, match=r"kernel|Kernel"):
        layer(4, 8, 3)(torch.zeros(4, 1, 8, 8))
