# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_crossd.transforms import LogCompress, LogCompressd


@given(
    dynamic_range=st.floats(20, 120),
    scale=st.floats(1e-6, 1e6),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_equals_numpy(dynamic_range, scale, dtype, seed):
    envelope = (scale * np.random.default_rng(seed).rayleigh(1, (1, 6, 5, 2))).astype(dtype)
    decibels = 20 * np.log10(envelope / envelope.max())
    expected = 2 * (np.clip(decibels, -dynamic_range, 0) + dynamic_range) / dynamic_range - 1
    result = LogCompress(dynamic_range)(torch.from_numpy(envelope))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)
    assert result.dtype == torch.float32


@pytest.mark.parametrize(("value", "expected"), [(0.0, -1.0), (3.0, 1.0), (1e30, 1.0)])
def test_constant_images(value, expected):
    assert torch.equal(LogCompress()(torch.full((1, 3, 3), value)).as_tensor(), torch.full((1, 3, 3), expected))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16])
def test_integers(dtype):
    result = LogCompress(40)(torch.tensor([[[0, 1, 10, 100]]]).to(dtype))
    torch.testing.assert_close(result.as_tensor(), torch.tensor([[[-1.0, -1.0, 0.0, 1.0]]]))


def test_negative_values_are_no_envelope():
    with pytest.raises(ValueError, match=r"smallest value is -0\.5; amplitudes are not negative.*DetectEnvelope"):
        LogCompressd("image")({"image": torch.tensor([[[-0.5, 1.0]]])})


@pytest.mark.parametrize("dynamic_range", [0, -60, float("inf"), float("nan")])
def test_wrong_dynamic_range(dynamic_range):
    with pytest.raises(ValueError, match="expected decibels above 0"):
        LogCompress(dynamic_range)


def test_metadata_stay():
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=2 * torch.eye(4), meta={"filename_or_obj": "a.nii"})
    result = LogCompress()(image)
    assert torch.equal(result.affine, image.affine)
    assert result.meta["filename_or_obj"] == "a.nii"
