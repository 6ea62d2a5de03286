# SPDX-License-Identifier: Apache-2.0
"""MR: bias fields that are corrected and made, and percentiles against numpy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import RandBiasField

from monai_crossd.transforms import N4BiasFieldCorrectiond, RandNonuniformityd
from monai_crossd.transforms.mr import ClipPercentiles, N4BiasFieldCorrection, RandNonuniformity


def shaded(shape: tuple[int, ...], pixdim: tuple[float, ...]) -> tuple[MetaTensor, np.ndarray]:
    """Two tissues, 100 and 200, in a dark background, under exp(0.5 x); and the mask of the brighter tissue."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) if n > 3 else np.zeros(n) for n in shape], indexing="ij")
    radius = sum(x**2 for x in grid)
    clean = np.select([radius < 0.3, radius < 0.8], [200.0, 100.0], 0.0)
    noise = np.random.default_rng(0).normal(0, 1, shape)
    image = clean * np.exp(0.5 * grid[0]) + np.abs(noise)
    affine = np.diag([*pixdim, *[1.0] * (4 - len(pixdim))])
    return MetaTensor(torch.tensor(image[None], dtype=torch.float32), affine=torch.tensor(affine)), radius < 0.3


@pytest.mark.parametrize(
    ("shape", "pixdim"),
    [
        ((40, 36), (1, 1)),
        ((130, 128), (1, 1)),
        ((40, 36, 12), (1, 1, 10)),
        ((40, 36, 1), (1, 1, 10)),
        ((40, 36, 3), (1, 1, 5)),
    ],
)
def test_tissue_gets_even(shape, pixdim):
    image, tissue = shaded(shape, pixdim)
    before = image.clone()
    result = N4BiasFieldCorrection()(image)
    variation = [float(x[0].numpy()[tissue].std() / x[0].numpy()[tissue].mean()) for x in (image, result)]
    assert variation[0] > 0.1
    assert variation[1] < 0.25 * variation[0]
    assert result.shape == image.shape
    assert result.dtype == torch.float32
    assert torch.equal(result.affine, image.affine)
    assert torch.equal(image, before)
    if shape == (40, 36, 12):  # of the others one run is enough
        assert torch.equal(N4BiasFieldCorrection()(image), result)


def test_equals_simpleitk_step_by_step():
    """Channels apart, axes and spacing in SimpleITK's order, short axes not shrunk."""
    image, _ = shaded((72, 36, 12), (1, 2, 10))
    image = torch.cat([image, image.flip(1)])
    result = N4BiasFieldCorrection(shrink_factor=3, iterations=(20, 10))(image)
    for channel, corrected in zip(image, result, strict=True):
        moving = sitk.GetImageFromArray(channel.numpy().transpose(2, 1, 0))
        moving.SetSpacing((1, 2, 10))
        mask = sitk.OtsuThreshold(moving, 0, 1, 200)
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations((20, 10))
        n4.Execute(sitk.Shrink(moving, (2, 1, 1)), sitk.Shrink(mask, (2, 1, 1)))
        field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(moving)).transpose(2, 1, 0)
        np.testing.assert_allclose(corrected.numpy(), channel.numpy() / np.exp(field), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_constant_images_stay(value):
    image = torch.full((2, 12, 10, 8), value)
    assert torch.equal(N4BiasFieldCorrection()(image), image)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.float64])
def test_dtypes(dtype):
    image, _ = shaded((32, 32), (1, 1))
    whole = image.round()
    expected = N4BiasFieldCorrection()(whole)
    torch.testing.assert_close(N4BiasFieldCorrectiond("image")({"image": whole.to(dtype)})["image"], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shrink_factor": 0}, "shrink_factor is 0; expected at least 1"),
        ({"iterations": ()}, r"iterations is \(\); expected"),
        ({"iterations": (5, 0)}, r"iterations is \(5, 0\); expected"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        N4BiasFieldCorrection(**arguments)


def test_a_line_is_no_image():
    with pytest.raises(ValueError, match=r"shape \(1, 9, 1\); N4 needs two axes"):
        N4BiasFieldCorrection()(torch.rand(1, 9, 1))


@pytest.mark.parametrize("shape", [(1, 9, 8), (2, 9, 8, 5), (1, 9, 8, 1)])
def test_simulated_field_is_that_of_monai(shape):
    """On an image whose darkest voxel is 0 both multiply by the same field; and an offset of the image stays."""
    image = torch.rand(shape) + 0.1
    image.view(-1)[0] = 0
    theirs = RandBiasField(prob=1, coeff_range=(-0.3, 0.3)).set_random_state(1)(image)
    ours = RandNonuniformity(prob=1, coeff_range=(-0.3, 0.3)).set_random_state(1)(image)
    assert not torch.allclose(theirs, image, atol=0.01)
    torch.testing.assert_close(ours, theirs)
    lower = RandNonuniformity(prob=1, coeff_range=(-0.3, 0.3)).set_random_state(1)(image - 5)
    torch.testing.assert_close(lower, theirs - 5)


def test_background_of_a_z_score_stays():
    image = torch.randn(1, 16, 16)
    image[:, :8] = 0
    result = RandNonuniformity(prob=1, coeff_range=(0.1, 0.3)).set_random_state(0)(image)
    assert not result[:, :8].any()
    assert not torch.allclose(result[:, 8:], image[:, 8:], atol=0.01)


def test_simulation_in_a_dictionary():
    item = {"image": torch.randn(1, 12, 12), "t2": torch.randn(1, 12, 12)}
    transform = RandNonuniformityd(["image", "t2"], prob=1)
    copies = [pickle.loads(pickle.dumps(transform)).set_random_state(3)(item) for _ in range(2)]
    for key in item:
        assert torch.equal(copies[0][key], copies[1][key])
        assert not torch.allclose(copies[0][key], item[key])
        torch.testing.assert_close(copies[0][key].min(), item[key].min())
    untouched = RandNonuniformityd("image", prob=0)(item)
    assert torch.equal(untouched["image"], item["image"])


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
