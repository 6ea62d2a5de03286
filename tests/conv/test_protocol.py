# SPDX-License-Identifier: Apache-2.0
"""What a layer says of itself to the engine that fills it: its value from a 2D kernel, and what has no counterpart."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from monai_crossd.conv import ACSConv3d, ACSConvTranspose3d, CrossDConv2d, CrossDConv3d, PlanarConv3d, SoftACSConv3d
from monai_crossd.conv.from_2d import Misfit

# layer of 4 to 6 channels, and how a plain kernel and a bank fill it
LAYERS = {
    "crossd2d": (CrossDConv2d, "2D kernel repeated through the bank", "bank"),
    "crossd": (CrossDConv3d, "2D kernel repeated through the bank", "bank"),
    "acs": (ACSConv3d, "2D kernel over three views", "2D kernel at the running shift over three views"),
    "soft_acs": (SoftACSConv3d, "2D kernel in all three views", "2D kernel at the running shift in all three views"),
    "planar": (
        partial(PlanarConv3d, plane=0),
        "2D kernel in the plane across axis 0",
        "2D kernel at the running shift in the plane across axis 0",
    ),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
def test_kernel_of_a_plain_layer_gives_its_output_and_writes_nothing(name):
    kind, says, _ = LAYERS[name]
    layer, kernel = kind(4, 6, 3), torch.randn(6, 4, 3, 3)
    before = copy.deepcopy(layer.state_dict())
    value, how = layer.kernel_from_2d(kernel)
    assert how == says
    torch.testing.assert_close(layer.state_dict(), before, atol=0, rtol=0)
    with torch.no_grad():
        layer.weight.copy_(value)
    plain = layer.to_plain().weight  # Cross-D at the shift (1, 1, 1)
    if name in ("crossd2d", "crossd", "planar"):
        torch.testing.assert_close(plain.sum(4 if name == "crossd" else 2) if plain.dim() == 5 else plain, kernel)
    else:
        torch.testing.assert_close(plain.sum((2, 3, 4)), kernel.sum((2, 3)), atol=1e-5, rtol=1e-5)


@every_layer
def test_kernel_of_a_bank(name):
    kind, _, says = LAYERS[name]
    source = CrossDConv2d(4, 6, 3, bank_init="paper")
    source.running_shift.copy_(torch.tensor([0.7, 1.1, 1.2]))
    value, how = kind(4, 6, 3).kernel_from_2d(source.weight, source.running_shift)
    assert how == says
    expected = source.weight if "crossd" in name else source.to_conv2d().weight
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("layer", "shape", "says"),
    [
        (ACSConv3d(4, 6, 3), (6, 4, 5, 5), "5×5 kernel does not fit the 3×3 plane"),
        (ACSConv3d(4, 6, 3), (6, 2, 3, 3), r"source \(6, 2, 3, 3\) does not fit \(6, 4, 3, 3\)"),
        (ACSConv3d(4, 6, 3), (6, 4, 3, 3, 3), "a bank but no running_shift"),
        (PlanarConv3d(4, 6, 3), (6, 4, 3, 1), r"source \(6, 4, 3, 1\) does not fit \(6, 4, 3, 3\)"),
        (CrossDConv3d(4, 6, 3), (6, 4, 3, 1), r"source \(6, 4, 3, 1\) does not fit \(6, 4, 3, 3, 3\)"),
        (CrossDConv3d(4, 6, 3), (6, 4, 5, 3, 3), r"source \(6, 4, 5, 3, 3\) does not fit \(6, 4, 3, 3, 3\)"),
        (ACSConvTranspose3d(4, 6, 3), (6, 4, 3, 3), r"source \(6, 4, 3, 3\) does not fit \(4, 6, 3, 3\)"),
    ],
)
def test_what_does_not_fit_is_a_value_error_with_both_shapes(layer, shape, says):
    with pytest.raises(Misfit, match=says) as caught:
        layer.kernel_from_2d(torch.zeros(shape))
    assert isinstance(caught.value, ValueError)


def test_parameters_without_a_counterpart():
    layer, kernel = CrossDConv3d(4, 6, 3), torch.zeros(6, 4, 3, 3)
    for weight, why in ((kernel, "plain convolution; the angle is set to 0"), (layer.weight, "kept no running shift")):
        value, says = layer.without_source("running_shift", weight)
        assert value.tolist() == [1, 1, 1]
        assert why in says
    before = copy.deepcopy(layer.state_dict())
    for name in ("weight", "bias"):
        value, says = layer.without_source(f"predictor.3.{name}", kernel)
        given = before[f"predictor.3.{name}"]
        assert value[:3].equal(given[:3])
        assert value[3].abs().sum() == 0
        assert given[3].abs().sum() > 0
    assert layer.without_source("predictor.0.weight", kernel) == (None, says)
    torch.testing.assert_close(layer.state_dict(), before, atol=0, rtol=0)
    value, says = SoftACSConv3d(4, 6, 3).without_source("view_weight", kernel)
    assert (value.shape, value.abs().sum(), says) == ((6, 3), 0, "all views weigh the same")
    for made in (layer, ACSConv3d(4, 6, 3), SoftACSConv3d(4, 6, 3, mean=True)):
        assert made.without_source("weight", kernel) == (None, "")  # must be there
    assert "no shift to predict" in CrossDConv3d(4, 6, 1).without_target("predictor.0.weight")
    assert layer.without_target("predictor.0.weight") == ""  # its own predictor takes it
    for fixed in (ACSConv3d(4, 6, 1), PlanarConv3d(4, 6, 3), CrossDConv3d(4, 6, 3, mode="static")):
        assert "none is predicted" in fixed.without_target("predictor.0.weight")
        assert fixed.without_target("gain") == ""
