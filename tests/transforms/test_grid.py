# SPDX-License-Identifier: Apache-2.0
"""Grids of images and label maps: compared, and resampled beside other entries."""

from __future__ import annotations

import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd
from PIL import Image

from monai_crossd.transforms import CheckGridd, KeySafeSpacingd, modality_transforms
from monai_crossd.transforms.grid import same_grid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def moved(x: float, base=None) -> np.ndarray:
    affine = np.diag([0.5, 0.5, 3.0, 1.0]) if base is None else base.copy()
    affine[0, 3] += x
    return affine


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "other", "expected"),
    [
        (moved(0), moved(1e-4), True),
        (moved(0), moved(0.02), True),
        (moved(0), moved(0.03), False),  # a twentieth of 0.5 mm is 0.025
        (moved(0), moved(50), False),
        (np.eye(4), LPS, False),
        (np.eye(4), np.diag([1, 1, 1.001, 1]), True),
        (np.eye(4), np.diag([1, 1, 1.1, 1]), False),
        (np.eye(4), turned(90), False),
        (np.eye(4), turned(2), False),
        (np.eye(4), turned(1e-3), True),
        (np.eye(4), np.full((4, 4), np.nan), False),
        (LPS.astype(np.float32), LPS, True),
    ],
)
def test_same_grid(affine, other, expected):
    assert same_grid(affine, other, (16, 16, 8)) is expected
    assert same_grid(other, affine, (16, 16, 8)) is expected or np.isnan(other).any()


def test_the_thickness_of_one_slice_is_no_place():
    assert same_grid(np.eye(4), np.diag([1, 1, 5, 1]), (8, 8, 1))
    assert same_grid(np.eye(4), np.diag([1, 1, 5, 1]), (8, 8))


def nifti(path, shape, affine=None):
    nib.save(nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4) if affine is None else affine), path)
    return str(path)


def png(path, shape, channels=None):
    Image.fromarray(np.ones((*shape[::-1], *([channels] if channels else [])), np.uint8)).save(path)
    return str(path)


@pytest.mark.parametrize("stage", ["train", "validate", "infer"])
@pytest.mark.parametrize(
    ("spatial_dims", "shape", "expected"),
    [
        (2, (8, 6), (8, 6)),
        (2, (8, 6, 1), (8, 6)),
        (2, (8, 6, 5), None),
        (2, (8, 6, 3), None),  # slices are no colours
        (3, (8, 6), None),
        (3, (8, 6, 1), (8, 6, 1)),
        (3, (8, 6, 5), (8, 6, 5)),
    ],
)
def test_dimensions(tmp_path, stage, spatial_dims, shape, expected):
    item = {"image": nifti(tmp_path / "a.nii", shape)}
    transform = modality_transforms("mr", spatial_dims, stage)
    if expected:
        assert transform(item)["image"].shape == (1, *expected)
        return
    with pytest.raises(RuntimeError) as caught:
        transform(item)
    message = str(caught.value.__cause__)
    assert message.startswith(f"{item['image']} has {len(shape)} dimensions, shape {shape}; expected {spatial_dims} ")


@pytest.mark.parametrize("channels", [None, 3])
def test_picture_is_no_volume(tmp_path, channels):
    with pytest.raises(RuntimeError) as caught:
        modality_transforms("us", 3, "train")({"image": png(tmp_path / "a.png", (8, 6), channels)})
    assert "a.png has 2 dimensions, shape (8, 6); expected 3" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(4), None),
        (LPS, "image .*i.nii and label map .*l.nii are on other grids"),
        (moved(50, np.eye(4)), "are on other grids"),
        (np.diag([2.0, 1, 1, 1]), "are on other grids"),
        (turned(90), "are on other grids"),
    ],
)
@pytest.mark.parametrize("stage", ["train", "validate"])
def test_label_map_on_another_grid(tmp_path, affine, message, stage):
    item = {"image": nifti(tmp_path / "i.nii", (6, 6, 4)), "label": nifti(tmp_path / "l.nii", (6, 6, 4), affine)}
    transform = modality_transforms("mr", 3, stage, label_key="label")
    if message is None:
        assert transform(item)["label"].shape == (1, 6, 6, 4)
        return
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        transform(item)
    with pytest.raises(ValueError, match=message):
        raise caught.value.__cause__


def test_label_map_of_another_shape(tmp_path):
    item = {"image": nifti(tmp_path / "i.nii", (6, 6, 4)), "label": nifti(tmp_path / "l.nii", (6, 4, 6))}
    with pytest.raises(RuntimeError) as caught:
        modality_transforms("mr", 3, "train", label_key="label")(item)
    assert "have the shapes (6, 6, 4) and (6, 4, 6)" in str(caught.value.__cause__)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1)])
def test_a_picture_is_on_the_grid_of_its_partner(tmp_path, shape):
    """A mask as PNG beside a slice with a voxel size: both are resampled alike."""
    affine = np.diag([0.5, 0.5, 1, 1])
    item = {"image": nifti(tmp_path / "i.nii", shape, affine), "label": png(tmp_path / "l.png", (8, 6))}
    result = modality_transforms("mr", 2, "validate", label_key="label", pixdim=1.0)(item)
    assert result["label"].shape == result["image"].shape == (1, 4, 4)
    item = {"image": png(tmp_path / "i.png", (8, 6)), "label": png(tmp_path / "l.png", (8, 6))}
    assert modality_transforms("mr", 2, "validate", label_key="label")(item)["label"].shape == (1, 8, 6)


def test_array_as_label_map_is_turned_with_its_image(tmp_path):
    array = np.zeros((6, 6, 4), np.uint8)
    array[:2] = 1
    np.save(tmp_path / "l.npy", array)
    nib.save(nib.Nifti1Image(array, LPS), tmp_path / "i.nii")
    read = CheckGridd(["image", "label"], 3)
    item = {
        "image": MetaTensor(torch.tensor(array)[None], LPS, meta={"filename_or_obj": "i.nii"}),
        "label": MetaTensor(torch.tensor(array)[None], meta={"filename_or_obj": "l.npy"}),
    }
    np.testing.assert_array_equal(read(item)["label"].affine.numpy(), LPS)


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
