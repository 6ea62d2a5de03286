# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_crossd.transforms import ClipPercentiles


def numpy_clip(image: np.ndarray, lower: float, upper: float, nonzero: bool) -> np.ndarray:
    result = image.astype(np.float64)
    for channel in result:
        chosen = channel != 0 if nonzero else np.ones(channel.shape, bool)
        if chosen.any():
            channel[chosen] = np.clip(channel[chosen], *np.percentile(channel[chosen], (lower, upper)))
    return result


@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["int16", "uint8", "uint16", "float32", "float64"]),
    percents=st.tuples(st.floats(0, 49), st.floats(50, 100)),
    nonzero=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_numpy(shape, channels, dtype, percents, nonzero, seed):
    rng = np.random.default_rng(seed)
    image = (rng.integers(0, 200, (channels, *shape)) * (rng.random((channels, *shape)) < 0.7)).astype(dtype)
    before = image.copy()
    result = ClipPercentiles(*percents, nonzero)(torch.from_numpy(image))
    np.testing.assert_allclose(result.numpy(), numpy_clip(before, *percents, nonzero), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(image, before)
    assert result.dtype == (torch.float64 if dtype == "float64" else torch.float32)


def test_more_values_than_torch_quantile_takes():
    """Past 2**24 values the ranks are no whole float32 numbers either."""
    image = torch.arange(2**24 + 9, dtype=torch.float64).view(1, -1)
    result = ClipPercentiles(10, 90, nonzero=False)(image)
    low, high = np.percentile(image.numpy(), (10, 90))
    assert (float(result.min()), float(result.max())) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("percents", [(-1, 50), (50, 50), (60, 40), (1, 101), (float("nan"), 50)])
def test_wrong_percentiles(percents):
    with pytest.raises(ValueError, match="expected 0 <= lower < upper <= 100"):
        ClipPercentiles(*percents)


def test_metadata_stay():
    image = MetaTensor(torch.rand(1, 4, 4, 4), affine=2 * torch.eye(4), meta={"filename_or_obj": "a.nii"})
    result = ClipPercentiles()(image)
    assert torch.equal(result.affine, image.affine)
    assert result.meta["filename_or_obj"] == "a.nii"
