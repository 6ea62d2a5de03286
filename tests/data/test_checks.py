# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_crossd.data import check_files, check_pairs, list_images, load_datalist
from monai_crossd.data.checks import find_faults
from monai_crossd.data.readers import open_image

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write(path: Path, shape, affine=None) -> str:
    """A file of any format with its axes in the order of `shape`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.zeros(shape))
    elif path.suffix == ".png":
        Image.new("L", shape).save(path)
    elif path.suffix == ".nii":
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4) if affine is None else affine), path)
    else:
        image = sitk.Image(shape, sitk.sitkUInt8)
        if affine is not None:
            rotation = (np.diag([-1, -1, 1]) @ affine[:3, :3])[: len(shape), : len(shape)]
            spacing = np.linalg.norm(rotation, axis=0)
            image.SetSpacing(spacing)
            image.SetDirection((rotation / spacing).ravel())
            image.SetOrigin((np.diag([-1, -1, 1]) @ affine[:3, 3])[: len(shape)])
        sitk.WriteImage(image, str(path))
    return str(path)


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_the_affine_is_that_of_every_format(tmp_path, suffix):
    affine = np.array([[0, -2, 0, 7], [0.5, 0, 0, -3], [0, 0, 4, 1], [0, 0, 0, 1.0]])
    shape, found = open_image(write(tmp_path / f"a{suffix}", (4, 5, 6), affine)).grid()
    assert shape == (4, 5, 6)
    np.testing.assert_allclose(found, affine, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "right"),
    [
        ("a.nii", (4, 5, 6), (3,)),
        ("a.nii", (4, 5, 1), (2, 3)),
        ("a.nii", (4, 5), (2,)),
        ("a.nii", (4, 5, 6, 2), (3,)),
        ("a.mha", (4, 5, 6), (3,)),
        ("a.nrrd", (4, 5), (2,)),
        ("a.png", (4, 5), (2,)),
        ("a.npy", (4, 5, 6), (3,)),
    ],
)
@pytest.mark.parametrize("spatial_dims", [2, 3, None])
def test_dimensions(tmp_path, name, shape, right, spatial_dims):
    item = {"image": write(tmp_path / name, shape), "label": 0}
    if spatial_dims in (*right, None):
        check_files([item], spatial_dims)
        return
    with pytest.raises(ValueError, match=rf"{name} has {min(len(shape), 3)} dimensions, .*; expected {spatial_dims} "):
        check_files([item], spatial_dims)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_lists_and_folders(tmp_path, spatial_dims):
    """Two of each class fit, one does not."""
    names = [f"{label}/{number}" for label in "ab" for number in range(3)]
    for name in names:
        volume = (name == "b/1") == (spatial_dims == 2)
        write(tmp_path / "set" / (name + (".nii" if volume else ".png")), (4, 5, 6) if volume else (4, 5))
    message = rf"b/1\.\w+ has {5 - spatial_dims} dimensions, .*; expected {spatial_dims} \(spatial_dims="
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path / "set", "classification", spatial_dims=spatial_dims)
    options = {"on_error": "skip-and-report", "spatial_dims": spatial_dims}
    both = [load_datalist(tmp_path / "set", s, "classification", **options) for s in ("training", "validation")]
    assert sum(map(len, both)) == 5
    (cause,) = (skipped.cause for items in both for skipped in items.skipped)
    assert re.search(message, cause)


def pair(folder, image, label):
    return {"image": write(folder / f"i{image[0]}", *image[1:]), "label": write(folder / f"l{label[0]}", *label[1:])}


SHAPE = (4, 5, 6)
MOVED = np.eye(4) + 50 * np.eye(4, k=3)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        ((".nii", SHAPE), (".nii", SHAPE), None),
        ((".nii", SHAPE, LPS), (".nrrd", SHAPE, LPS), None),
        ((".mha", SHAPE, LPS), (".nii", SHAPE, LPS + 1e-4 * np.eye(4, k=3)), None),
        ((".nii", (*SHAPE, 2)), (".nii", SHAPE), None),
        ((".nii", SHAPE, LPS), (".npy", SHAPE), None),
        ((".png", (4, 5)), (".png", (4, 5)), None),
        ((".nii", (4, 5), np.diag([3.0, 3, 1, 1])), (".png", (4, 5)), None),
        ((".nii", SHAPE, LPS), (".nii", SHAPE), "are on other grids: their affines are"),
        ((".nii", SHAPE), (".mha", SHAPE, LPS), "are on other grids"),
        ((".nii", SHAPE), (".nii", SHAPE, MOVED), "are on other grids"),
        ((".nrrd", SHAPE), (".nrrd", SHAPE, np.diag([1.0, 1, 2, 1])), "are on other grids"),
        ((".nii", SHAPE), (".nii", (5, 4, 6)), "Shapes differ"),
        ((".png", (4, 5)), (".png", (5, 4)), "Shapes differ"),
    ],
)
def test_pairs(tmp_path, image, label, message):
    item = pair(tmp_path, image, label)
    if message is None:
        check_pairs([item])
        return
    with pytest.raises(ValueError, match=message) as caught:
        check_pairs([item])
    assert item["image"] in str(caught.value)
    assert item["label"] in str(caught.value)


def test_channels_on_other_grids(tmp_path):
    images = [write(tmp_path / "a.nii", SHAPE), write(tmp_path / "b.nii", SHAPE, LPS)]
    ((index, error),) = find_faults([{"image": images[:1]}, {"image": images}])
    assert index == 1
    assert "are on other grids" in str(error)


def test_a_list_refuses_or_leaves_out_label_maps_on_other_grids(tmp_path):
    for name in "abcd":
        write(tmp_path / "imagesTr" / f"{name}.nii", SHAPE, LPS)
        write(tmp_path / "labelsTr" / f"{name}.nii", SHAPE, LPS if name != "b" else np.eye(4))
    items = [{"image": f"imagesTr/{name}.nii", "label": f"labelsTr/{name}.nii"} for name in "abcd"]
    (tmp_path / "list.json").write_text(json.dumps({"training": items[:3], "validation": items[3:]}))
    with pytest.raises(ValueError, match=r'section "training", item 1: image .*b\.nii and .*b\.nii are on other grids'):
        load_datalist(tmp_path / "list.json")
    found = load_datalist(tmp_path / "list.json", on_error="skip-and-report")
    assert [Path(item["image"]).stem for item in found] == ["a", "c"]
