# SPDX-License-Identifier: Apache-2.0
"""Ultrasound: compression, speckle and gain against their formulas and statistics."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_crossd.transforms import LogCompressd, RandDepthGaind, RandSpeckled
from monai_crossd.transforms.ultrasound import LogCompress, RandDepthGain, RandSpeckle


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


RANDOM = [RandSpeckle, RandDepthGain]


def amplitude(image: torch.Tensor, dynamic_range: float) -> np.ndarray:
    """Decompress, literally."""
    return 10 ** ((image.double().numpy() - 1) / 2 * dynamic_range / 20)


# variance of a Nakagami variate of mean 1, worked out by hand from Gamma(1/2) = sqrt(pi)
@pytest.mark.parametrize(
    ("looks", "variance"), [(1, 4 / math.pi - 1), (2, 32 / (9 * math.pi) - 1), (3, 256 / (75 * math.pi) - 1)]
)
@pytest.mark.parametrize("dynamic_range", [50.0, 80.0])
def test_statistics_in_the_linear_domain(looks, variance, dynamic_range):
    image = torch.zeros(1, 400, 500)  # in the middle of the range, far from the clipping at both ends
    result = RandSpeckle((looks, looks), dynamic_range, prob=1).set_random_state(0)(image)
    factor = amplitude(result, dynamic_range) / amplitude(image, dynamic_range)
    assert factor.mean() == pytest.approx(1, abs=0.005)
    assert factor.var() == pytest.approx(variance, rel=0.03)


def test_one_look_is_rayleigh():
    """Quantiles of the distribution with mean 1: sigma sqrt(-2 ln(1 - q)), sigma = sqrt(2 / pi)."""
    speckle = RandSpeckle((1, 1), prob=1).set_random_state(0)
    speckle.randomize()
    factor = speckle.factor((200_000,)).numpy()
    q = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(np.quantile(factor, q), np.sqrt(2 / np.pi * -2 * np.log(1 - q)), rtol=0.015)


def test_equals_decompress_multiply_compress():
    speckle = RandSpeckle((2, 5), 60, prob=1).set_random_state(4)
    image = torch.rand(2, 20, 30, 3) * 2 - 1
    result = speckle(image)
    product = amplitude(image, 60) * speckle.factor(tuple(image.shape)).double().numpy()
    expected = np.clip(1 + 2 / 60 * 20 * np.log10(product), -1, 1)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


def test_gain_along_the_depth_equals_numpy():
    gain = RandDepthGain(4, 6, 2, beam_axis=1, dynamic_range=50, prob=1).set_random_state(2)
    image = torch.rand(1, 9, 29, 4) - 0.5
    result = gain(image)
    assert result.shape == image.shape
    state = np.random.RandomState(2)
    state.rand()
    knots = state.uniform(-4, 4) + state.uniform(-6, 6) * np.linspace(0, 1, 8) + state.uniform(-2, 2, 8)
    curve = np.interp(np.linspace(0, 7, 29), np.arange(8), knots)
    product = amplitude(image, 50) * 10 ** (curve / 20)[None, None, :, None]
    np.testing.assert_allclose(result.numpy(), np.clip(1 + 2 / 50 * 20 * np.log10(product), -1, 1), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_beam_axis(axis):
    result = RandDepthGain(beam_axis=axis, prob=1).set_random_state(0)(torch.zeros(1, 5, 6, 7))[0].as_tensor()
    spread = [float((result.amax(a) - result.amin(a)).max()) for a in range(3)]
    assert spread[axis] > 0.01
    assert sum(value > 0 for value in spread) == 1


@pytest.mark.parametrize("transform", RANDOM)
def test_no_echo_stays_and_range_is_kept(transform):
    image = torch.rand(1, 30, 30) * 2 - 1
    image[:, :10] = -1
    for seed in range(5):
        result = transform(prob=1).set_random_state(seed)(image)
        assert (result[:, :10] == -1).all()
        assert -1 <= result.min() <= result.max() <= 1
        assert not torch.allclose(result, image)


@pytest.mark.parametrize("transform", RANDOM)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 1), (1, 8, 8, 1), (2, 1, 8, 5)])
def test_shapes_and_metadata(transform, shape):
    image = MetaTensor(torch.zeros(shape), affine=2 * torch.eye(4), meta={"filename_or_obj": "a.nii"})
    result = transform(prob=1).set_random_state(0)(image)
    assert result.shape == shape
    assert result.isfinite().all()
    assert torch.equal(result.affine, image.affine)
    assert result.meta["filename_or_obj"] == "a.nii"
    assert not image.any()


@pytest.mark.parametrize("transform", [RandSpeckled, RandDepthGaind])
def test_random_state(transform):
    item = {"image": torch.zeros(1, 8, 8), "second": torch.zeros(1, 8, 8), "label": 3}
    made = transform(["image", "second"], prob=0.5)

    def draw(seed):
        copy = pickle.loads(pickle.dumps(made)).set_random_state(seed)
        return [copy(item) for _ in range(12)]

    first, again, other = draw(1), draw(1), draw(2)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["image"], a["second"])
        assert a["label"] == 3
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))
    changed = sum(bool(a["image"].any()) for a in first)
    assert 0 < changed < 12
    assert not transform("image", prob=0)(item)["image"].any()


def test_global_state_of_torch_is_left_alone():
    state = torch.get_rng_state()
    RandSpeckle(prob=1)(torch.zeros(1, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandSpeckle((0, 4)), r"looks is \(0, 4\)"),
        (lambda: RandSpeckle((4, 2)), r"looks is \(4, 2\)"),
        (lambda: RandSpeckle((1.5, 2)), r"looks is \(1\.5, 2\)"),
        (lambda: RandSpeckle((1, 2, 3)), "expected two whole numbers"),
        (lambda: RandSpeckle(dynamic_range=0), "dynamic_range is 0"),
        (lambda: RandDepthGain(gain=-1), "expected none below 0"),
        (lambda: RandDepthGain(dynamic_range=-1), "dynamic_range is -1"),
        (lambda: RandDepthGain(beam_axis=2)(torch.zeros(1, 4, 4)), r"beam_axis is 2; the image has the shape"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
