# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_crossd.transforms import WINDOWS, intensity_transforms

PRESETS = [
    ("ct", {"window": "lung"}),
    ("ct", {"window": (-150, 250)}),
    ("mr", {}),
    ("mr", {"nonzero": False}),
    ("mr", {"bias_correction": True}),
    ("us", {}),
    ("us", {"log_compressed": False}),
]


def apply(modality: str, image, **options) -> torch.Tensor:
    return Compose(intensity_transforms(modality, "image", **options))({"image": image})["image"]


# low and high by hand, from the published level and width
@pytest.mark.parametrize(
    ("window", "low", "high"),
    [
        ("lung", -1350, 150),
        ("mediastinum", -125, 225),
        ("abdomen", -150, 250),
        ("liver", -45, 105),
        ("bone", -500, 1300),
        ("brain", 0, 80),
        ("stroke", 20, 60),
        ("temporal_bone", -800, 2000),
        ("spine", -75, 175),
        ("wide", -1000, 1000),
        ((-100, 300), -100, 300),
        ([-100.5, 300], -100.5, 300),
        (None, -1000, 1000),
    ],
)
@pytest.mark.parametrize("dtype", ["int16", "int32", "float64"])
def test_ct_window(window, low, high, dtype):
    hounsfield = np.random.default_rng(0).integers(-3024, 3000, (1, 6, 7, 5)).astype(dtype)
    hounsfield.flat[:2] = low, high
    expected = np.clip((hounsfield.astype(float) - low) / (high - low) * 2 - 1, -1, 1)
    result = apply("ct", torch.from_numpy(hounsfield), window=window)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert result.dtype == torch.float32


def test_windows_are_levels_and_widths():
    assert all(-1000 < level < 1000 and 0 < width < 3000 for level, width in WINDOWS.values())


@pytest.mark.parametrize("nonzero", [True, False])
@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (5, 90)])
def test_mr_z_score(nonzero, percentiles):
    rng = np.random.default_rng(0)
    image = rng.gamma(4, 100, (2, 9, 8, 7)) * (rng.random((2, 9, 8, 7)) < 0.6)
    image[1] *= 30
    expected = image.copy()
    for channel in expected:
        chosen = channel != 0 if nonzero else np.ones(channel.shape, bool)
        values = np.clip(channel[chosen], *np.percentile(channel[chosen], percentiles))
        channel[chosen] = (values - values.mean()) / values.std()
    result = apply("mr", torch.from_numpy(image), nonzero=nonzero, percentiles=percentiles)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({}, [0, 51, 255], [-1, -0.6, 1]),
        ({"value_range": (0, 65535)}, [0, 65535, 70000], [-1, 1, 1]),
        ({"value_range": (0, 1)}, [0, 0.25, 1], [-1, -0.5, 1]),
        ({"log_compressed": False}, [0, 1, 1000], [-1, -1, 1]),
        ({"log_compressed": False}, [1, 10, 1000], [-1, -1 / 3, 1]),
        ({"log_compressed": False, "dynamic_range": 20}, [1, 10, 100], [-1, -1, 1]),
    ],
)
def test_us(options, values, expected):
    result = apply("us", torch.tensor([[values]], dtype=torch.float64), **options)
    torch.testing.assert_close(result.as_tensor(), torch.tensor([[expected]], dtype=torch.float32))


def test_dark_ultrasound_stays_dark():
    assert apply("us", torch.tensor([[[0, 10, 20]]], dtype=torch.uint8)).max() < -0.8


@given(
    preset=st.sampled_from(PRESETS),
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=3).filter(lambda s: sum(n > 1 for n in s) > 1),
    channels=st.integers(1, 2),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"]),
    constant=st.sampled_from([None, None, 0, 1, 100, 30000]),
    seed=st.integers(0, 99),
)
def test_any_image_gives_finite_float32(preset, shape, channels, dtype, constant, seed):
    modality, options = preset
    image = np.random.default_rng(seed).integers(0, 200, (channels, *shape))
    image = (image if constant is None else np.full(image.shape, constant)).astype(dtype)
    tensor = MetaTensor(torch.from_numpy(image.copy()), affine=torch.diag(torch.tensor([1.0, 2.0, 10.0, 1.0])))
    result = apply(modality, tensor, **options)
    assert result.dtype == torch.float32
    assert result.shape == image.shape
    assert result.isfinite().all()
    assert torch.equal(result.affine, tensor.affine)
    np.testing.assert_array_equal(tensor.numpy(), image)  # the data set's item is not changed
    if constant is not None:
        assert result.min() == result.max()


@pytest.mark.parametrize(("modality", "options"), PRESETS)
def test_pickle(modality, options):
    compose = pickle.loads(pickle.dumps(Compose(intensity_transforms(modality, "image", **options))))
    image = torch.rand(1, 24, 24, 3) * 100
    assert torch.equal(compose({"image": image.clone()})["image"], apply(modality, image.clone(), **options))


@pytest.mark.parametrize(
    ("modality", "options", "message"),
    [
        ("pet", {}, "pet"),
        ("CT", {}, "CT"),
        ("ct", {"window": "lungs"}, "did you mean 'lung'"),
        ("ct", {"window": (100, 100)}, r"window is \(100, 100\); expected two finite numbers"),
        ("ct", {"window": (1, 2, 3)}, r"window is \(1, 2, 3\)"),
        ("ct", {"window": (0, float("inf"))}, "expected two finite numbers"),
        (
            "mr",
            {"window": "lung"},
            "window='lung' is no option of \"mr\", which has bias_correction, percentiles, nonz",
        ),
        ("mr", {"percentiles": (99, 1)}, r"percentiles is \(99, 1\)"),
        ("mr", {"percentiles": (-1, 99)}, "expected 0 <= lower < upper <= 100"),
        ("us", {"value_range": (255, 0)}, r"value_range is \(255, 0\)"),
        ("us", {"dynamic_range": 60}, "dynamic_range=60 is for envelope data"),
        ("us", {"log_compressed": False, "value_range": (0, 1)}, "is for compressed pictures"),
        ("us", {"log_compressed": False, "dynamic_range": 0}, "dynamic_range is 0"),
        ("us", {"windows": 1}, "windows=1 is no option"),
    ],
)
def test_wrong_arguments(modality, options, message):
    with pytest.raises(ValueError, match=message):
        intensity_transforms(modality, "image", **options)
