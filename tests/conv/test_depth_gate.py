# SPDX-License-Identifier: Apache-2.0
"""The gate to the slices beside a kernel, against dense 3D kernels written tap by tap."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import crossd_conv3d_loop
from torch import nn

from monai_crossd.conv import CrossDConv2d, CrossDConv3d, crossd_conv3d, rotation_shift
from monai_crossd.convert import to_3d, transfer_weights

F64 = {"dtype": torch.float64}


@st.composite
def cases(draw):
    """Any geometry whose bank has a slice on both sides of its centre."""
    groups, inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    axis = draw(st.integers(0, 2))
    size = [draw(st.integers(1, 3)) for _ in range(3)]
    size[axis] = draw(st.integers(3, 5))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(3))
    geometry = {
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(3)),
        "padding": tuple(draw(st.integers(0, 5)) for _ in range(3)),
        "dilation": dilation,
        "groups": groups,
        "padding_mode": draw(st.sampled_from(["zeros", "replicate"])),
    }
    volume = tuple(max(2, d * (k - 1) + 1 + draw(st.integers(-2, 2))) for k, d in zip(size, dilation, strict=True))
    reach = [
        v + 2 * p >= d * (k - 1) + 1 for v, p, k, d in zip(volume, geometry["padding"], size, dilation, strict=True)
    ]
    if not all(reach):
        geometry["padding"] = tuple(d * (k - 1) for k, d in zip(size, dilation, strict=True))
    bank = (outer * groups, inner, size[axis], *(s for a, s in enumerate(size) if a != axis))
    return bank, axis, volume, geometry


@given(cases())
def test_gated_is_the_dense_convolution(case):
    size, axis, volume, geometry = case
    channels = size[1] * geometry["groups"]
    x, bank, gate = (torch.randn(s, **F64, requires_grad=True) for s in ((2, channels, *volume), size, (2, channels)))
    turn, angle, bias = torch.randn(2, 3, **F64), torch.randn(2, **F64) / 2, torch.randn(size[0], **F64)
    ours = crossd_conv3d(x, bank, rotation_shift(turn, angle), bias, depth_axis=axis, gate=gate, **geometry)
    literal = crossd_conv3d_loop(x, bank, turn, angle, bias, axis, "centre", gate, **geometry)
    torch.testing.assert_close(ours, literal, atol=1e-10, rtol=0)
    cotangent = torch.randn_like(ours)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (x, bank, gate), cotangent),
        torch.autograd.grad(literal, (x, bank, gate), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)


def test_closed_it_is_the_centre_and_it_opens():
    layer2d = CrossDConv2d(3, 4, 3, padding=1)
    centre, gated = (CrossDConv3d.from_conv(layer2d, placement=p).double() for p in ("centre", "gated"))
    x = torch.randn(2, 3, 5, 6, 4, **F64)
    torch.testing.assert_close(gated(x), centre(x), atol=1e-12, rtol=0)
    gated(x).square().sum().backward()
    assert gated.gate.grad.abs().min() > 0


@pytest.mark.parametrize("groups", [1, 3])
def test_frozen_it_is_one_plain_convolution(groups):
    layer = CrossDConv3d(3, 6, (3, 1, 5), padding=2, groups=groups, mode="static", placement="gated").double()
    nn.init.normal_(layer.gate)
    x = torch.randn(2, 3, 5, 6, 7, **F64)
    torch.testing.assert_close(layer.to_conv3d()(x), layer(x), atol=1e-10, rtol=0)


def test_a_bank_without_neighbours_has_no_gate():
    assert CrossDConv3d(2, 2, 1, placement="gated").gate is None
    with pytest.raises(ValueError, match="bank of depth 3 or more, got 'spread' and 3"):
        crossd_conv3d(
            *map(torch.zeros, [(1, 2, 4, 4, 4), (2, 2, 3, 3, 3), (1, 3)]), gate=torch.zeros(2, 2), placement="spread"
        )
    with pytest.raises(ValueError, match=r"gate must be \(2, 2\), got shape \[2, 3\]"):
        crossd_conv3d(*map(torch.zeros, [(1, 2, 4, 4, 4), (2, 2, 3, 3, 3), (1, 3)]), gate=torch.zeros(2, 3))


def test_weights_of_images_leave_it_closed():
    net2d = nn.Sequential(CrossDConv2d(1, 4, 3), nn.ReLU(), CrossDConv2d(4, 2, 1))
    net3d = nn.Sequential(CrossDConv3d(1, 4, 3, placement="gated"), nn.ReLU(), CrossDConv3d(4, 2, 1, placement="gated"))
    nn.init.ones_(net3d[0].gate)
    report = transfer_weights(net2d, net3d)
    assert report.initial == {"0.gate": "closed: an image has no slices beside it"}
    assert not net3d[0].gate.any()
    same = to_3d(net2d, "crossd", placement="gated")
    x = torch.randn(1, 1, 6, 6, 5)
    torch.testing.assert_close(same.eval()(x), net3d.eval()(x))
