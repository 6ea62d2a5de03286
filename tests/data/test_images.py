# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_crossd.data import list_images


@pytest.fixture
def study(tmp_path, write_nifti):
    """A folder as people have it: NIfTI, a DICOM series of a patient, hidden files and notes."""
    write_nifti(tmp_path / "b.nii.gz")
    write_nifti(tmp_path / "sub" / "a.nii")
    Image.new("L", (8, 8)).save(tmp_path / "picture.PNG")
    (tmp_path / "._b.nii.gz").write_bytes(b"junk of macOS")
    (tmp_path / "notes.txt").write_text("not an image")
    series = tmp_path / "patient" / "series"
    series.mkdir(parents=True)
    for z in range(2):
        image = sitk.GetImageFromArray(np.full((1, 4, 4), z, np.int16))
        for tag, value in {"0020|000e": "1.2.3", "0020|0032": f"0\\0\\{z}", "0020|0013": str(z)}.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(series / f"{z}.dcm"))
        writer.Execute(image)
    return tmp_path


def names(items, folder):
    return [str(Path(item["image"]).relative_to(folder)) for item in items]


def test_a_folder_at_any_depth(study):
    assert names(list_images(study), study) == ["b.nii.gz", "patient/series", "picture.PNG", "sub/a.nii"]
    assert all(list(item) == ["image"] for item in list_images(study))


def test_one_image(study):
    for name in ("b.nii.gz", "patient/series", "picture.PNG"):
        assert names(list_images(study / name), study) == [name]


def test_images_of_a_data_set(study, write_nifti):
    write_nifti(study / "imagesTs" / "new.nii.gz")
    assert names(list_images(study), study) == ["imagesTs/new.nii.gz"]


def test_a_list_and_the_embedded_data(demo_dir, study):
    expected = [Path(item["image"]).name for item in list_images("demo", demo_dir=demo_dir)]
    assert expected == ["chest_08-11.nii.gz", "chest_26-29.nii.gz"]
    listing = demo_dir / "segmentation" / "dataset.json"
    assert [Path(item["image"]).name for item in list_images(listing)] == expected
    training = json.loads(listing.read_text())["training"]
    assert len(list_images(listing, section="training")) == len(training)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda folder: folder / "absent", FileNotFoundError, "absent does not exist"),
        (lambda folder: folder / "empty", ValueError, "empty holds no image: give an image"),
        (lambda folder: folder / "broken.nii.gz", ValueError, "broken.nii.gz cannot be read"),
    ],
)
def test_what_cannot_be_predicted_on(make, error, says, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(error, match=says):
        list_images(make(tmp_path))
