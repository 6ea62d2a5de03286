# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd

from monai_crossd.transforms import KeySafeSpacingd


def volume(seed: int = 0) -> MetaTensor:
    image = torch.rand(1, 8, 6, 4, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(image, affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])), meta={"filename_or_obj": "a.nii"})


@pytest.mark.parametrize("extra", [{"image_path": "x"}, {"image_number": 3}, {"image_none": None}, {3: "x", None: 1}])
def test_other_entries_stay(extra):
    """Equal to MONAI's on the image alone, with every other entry as it was and where it was."""
    expected = Spacingd("image", (2, 2, 2))({"image": volume()})["image"]
    item = {**extra, "image": volume(), "label": 2}
    result = KeySafeSpacingd("image", (2, 2, 2))(item)
    assert torch.equal(result["image"], expected)
    assert torch.equal(result["image"].affine, expected.affine)
    assert list(result) == list(item)
    assert {key: value for key, value in result.items() if key != "image"} == {**extra, "label": 2}


def test_metadata_beside_the_image_is_updated_as_by_monai():
    """MONAI 1.6 does, MONAI 1.5 does not: the same here."""
    results = [
        transform("image", (2, 2, 2))({"image": volume(), "image_meta_dict": {"kept": 1}})["image_meta_dict"]
        for transform in (Spacingd, KeySafeSpacingd)
    ]
    assert results[0].keys() == results[1].keys()
    assert results[1]["kept"] == 1


def test_image_and_label():
    item = {"image": volume(), "label": volume(1).round(), "image_path": "x"}
    result = KeySafeSpacingd(["image", "label"], (2, 2, 2), mode=["bilinear", "nearest"])(item)
    assert result["image"].shape == result["label"].shape == (1, 4, 4, 8)
    assert set(result["label"].unique().tolist()) <= {0.0, 1.0}


def test_inverse():
    transform = KeySafeSpacingd("image", (2, 2, 2))
    result = transform.inverse(transform({"image": volume(), "image_path": "x"}))
    assert result["image"].shape == (1, 8, 6, 4)
    assert torch.equal(result["image"].affine, volume().affine)
    assert result["image_path"] == "x"


def test_pickle():
    transform = pickle.loads(pickle.dumps(KeySafeSpacingd("image", (2, 2, 2))))
    assert transform({"image": volume(), "image_path": "x"})["image"].shape == (1, 4, 4, 8)


@pytest.mark.parametrize("pixdim", [(1.5, 1.5), (1, 1, 1, 1), (0, 1, 1), (1, -2, 1)])
def test_voxel_sizes_that_monai_would_guess_at_are_refused(pixdim):
    transform = KeySafeSpacingd("image", pixdim)
    with pytest.raises(ValueError, match=r"pixdim is \[.*\]; expected 3 numbers above 0, or -1 to keep an axis"):
        transform({"image": MetaTensor(torch.zeros(1, 4, 4, 4))})


@pytest.mark.parametrize("pixdim", [2, (2,), (2, 2, 2)])
def test_one_voxel_size_is_that_of_all_axes(pixdim):
    assert KeySafeSpacingd("image", pixdim)({"image": MetaTensor(torch.zeros(1, 4, 4, 4))})["image"].shape[1:] == (
        2,
        2,
        2,
    )
