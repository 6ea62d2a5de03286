# SPDX-License-Identifier: Apache-2.0
"""Voxels that are not finite, and channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_crossd.transforms import EnsureChannelsd, ReplaceNonFinited
from monai_crossd.transforms.voxels import EnsureChannels, ReplaceNonFinite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "fill", "expected"),
    [
        ([NAN, -3.0, 4.0], None, [-3.0, -3.0, 4.0]),
        ([INF, -3.0, 4.0], None, [4.0, -3.0, 4.0]),
        ([-INF, -3.0, 4.0], None, [-3.0, -3.0, 4.0]),
        ([NAN, INF, -INF, 2.0], 0, [0.0, 0.0, 0.0, 2.0]),
        ([NAN, 7.0, 7.0], None, [7.0, 7.0, 7.0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values(values, fill, expected, dtype):
    image = torch.tensor([values], dtype=dtype)
    before = image.clone()
    bad = sum(not np.isfinite(v) for v in values)
    with pytest.warns(UserWarning, match=f"has {bad} NaN or infinite voxels of {len(values)}; they are replaced"):
        result = ReplaceNonFinite(fill)(image)
    assert result.tolist() == [expected]
    assert result.dtype == dtype
    assert torch.equal(image, before) or before.isnan().any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float64])
def test_finite_images_stay(dtype):
    image = MetaTensor(torch.arange(6).to(dtype).view(1, 2, 3), meta={"filename_or_obj": "a.nii"})
    result = ReplaceNonFinite()(image)
    assert result.dtype == dtype
    assert result.meta == image.meta
    assert result.tolist() == image.tolist()


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((1, 4, 4), NAN, r"a\.nii has only NaN or infinite voxels: remove it"),
        ((1, 4, 4), INF, r"a\.nii has only NaN or infinite voxels"),
        ((1, 4, 0), 0.0, r"a\.nii has no voxels: its shape is \(1, 4, 0\)"),
    ],
)
def test_nothing_to_repair_from(shape, value, message):
    image = MetaTensor(torch.full(shape, value), meta={"filename_or_obj": "a.nii"})
    with pytest.raises(ValueError, match=message):
        ReplaceNonFinite()(image)


def test_dictionary():
    item = {"image": torch.tensor([[NAN, 1.0]]), "label": torch.tensor([[NAN, 3.0]]), "name": "x"}
    with pytest.warns(UserWarning, match="replaced"):
        result = ReplaceNonFinited(["label", "other"], fill=0, allow_missing_keys=True)(item)
    assert result["label"].tolist() == [[0.0, 3.0]]
    assert result["image"] is item["image"]
    assert result["name"] == "x"


@pytest.mark.parametrize("fill", [NAN, INF])
def test_fill_must_be_finite(fill):
    with pytest.raises(ValueError, match="expected a finite number"):
        ReplaceNonFinite(fill)


def test_luminance_is_that_of_pil():
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colours, "RGB").convert("L"))
    result = EnsureChannels(1)(torch.from_numpy(colours).permute(2, 0, 1))
    assert result.dtype == torch.float32
    assert np.abs(result[0].numpy() - grey).max() <= 1  # PIL rounds to whole numbers


@pytest.mark.parametrize("value", [0, 7, 255])
def test_grey_as_colour_keeps_its_value(value):
    result = EnsureChannels(1)(torch.full((3, 4, 5, 2), value, dtype=torch.uint8))
    assert result.shape == (1, 4, 5, 2)
    torch.testing.assert_close(result.as_tensor(), torch.full((1, 4, 5, 2), float(value)))


@pytest.mark.parametrize("shape", [(1, 4, 5), (1, 4, 5, 6)])
def test_repeat(shape):
    image = MetaTensor(torch.rand(shape), affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))
    result = EnsureChannels(3)(image)
    assert result.shape == (3, *shape[1:])
    assert all(torch.equal(channel, image[0]) for channel in result)
    assert torch.equal(result.affine, image.affine)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_right_number_stays(channels):
    image = torch.rand(channels, 3, 3, dtype=torch.float64)
    assert torch.equal(EnsureChannels(channels)(image), image)


@pytest.mark.parametrize(("found", "wanted"), [(2, 1), (4, 1), (4, 3), (3, 2), (1, 2), (1, 4), (2, 3)])
def test_no_way_to_that_number(found, wanted):
    with pytest.raises(ValueError, match=rf"The image has {found} channels .* Set channels to {found}"):
        EnsureChannelsd("image", wanted)({"image": torch.rand(found, 3, 3)})


def test_wrong_number():
    with pytest.raises(ValueError, match="channels is 0; expected at least 1"):
        EnsureChannels(0)


def test_the_file_is_named():
    image = MetaTensor(torch.rand(4, 3, 3), meta={"filename_or_obj": "a.png"})
    with pytest.raises(
        ValueError, match=r"a\.png has 4 channels \(shape \(4, 3, 3\)\).*Set channels to 4 \(in_channels"
    ):
        EnsureChannels(3)(image)
