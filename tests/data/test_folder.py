# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import SimpleITK as sitk
from PIL import Image

from monai_crossd.data import image_folder_datalist, load_datalist, load_labels, prepare_phantoms
from monai_crossd.data.folder import read_class_folders

RADIMAGENET = ("CT/abd/normal", "CT/abd/stone", "MR/knee/normal")


def write(root: Path, *folders: str, number: int = 5) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            Image.new("L", (8, 9)).save(root / folder / f"{i}.png")
    return root


@pytest.mark.parametrize(("nested", "classes"), [(False, ["CT", "MR"]), (True, sorted(RADIMAGENET))])
def test_classes_are_the_first_folders_or_the_leaves(tmp_path, nested, classes):
    write(tmp_path, *RADIMAGENET)
    (tmp_path / "CT" / ".DS_Store").touch()
    (tmp_path / "readme.txt").touch()
    sections, names = read_class_folders(tmp_path, nested)
    assert names == dict(enumerate(classes))
    parents = {path: path.parent.relative_to(tmp_path) for path in tmp_path.rglob("*.png")}
    expected = [
        (str(path), classes.index(parent.as_posix() if nested else parent.parts[0])) for path, parent in parents.items()
    ]
    assert sorted((i["image"], i["label"]) for i in sections["training"]) == sorted(expected)


@pytest.mark.parametrize("nested", [False, True])
def test_load_datalist_gives_the_same(tmp_path, nested):
    write(tmp_path, *RADIMAGENET)
    for section in ("training", "validation"):
        items = load_datalist(tmp_path, section, "classification", nested=nested)
        assert items == image_folder_datalist(tmp_path, section, nested=nested)
    assert len(load_labels(tmp_path, "classification", nested=nested)) == (3 if nested else 2)


def test_stratified_split(tmp_path):
    write(tmp_path, "a", number=10)
    write(tmp_path, "b", number=5)
    sides = [image_folder_datalist(tmp_path, section, seed=3) for section in ("training", "validation")]
    assert [Counter(i["label"] for i in side) for side in sides] == [{0: 8, 1: 4}, {0: 2, 1: 1}]
    assert not {i["image"] for i in sides[0]} & {i["image"] for i in sides[1]}
    assert sides[1] == image_folder_datalist(tmp_path, "validation", seed=3)
    assert len({str(image_folder_datalist(tmp_path, "validation", seed=seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("training", "validation", "test"), ("train", "valid", "")]
)
def test_parts(tmp_path, names):
    parts = {s: n for s, n in zip(("training", "validation", "test"), names, strict=True) if n}
    write(tmp_path, *[f"{part}/{name}" for part in parts.values() for name in ("cat", "dog")], number=1)
    for section, part in parts.items():
        items = load_datalist(tmp_path, section, "classification")
        assert [i["image"] for i in items] == [str(tmp_path / part / name / "0.png") for name in ("cat", "dog")]
    if "test" not in parts:
        with pytest.raises(ValueError, match='no item for section "test"'):
            load_datalist(tmp_path, "test", "classification")


def test_folders_of_patients_belong_to_their_class(tmp_path):
    write(tmp_path, *[f"{name}/P{n}" for n in range(4) for name in ("cat", "dog")], number=2)
    options = {"val_fraction": 0.25, "patient_pattern": r"/(P\d)/"}
    sides = [image_folder_datalist(tmp_path, section, **options) for section in ("training", "validation")]
    assert [len(side) for side in sides] == [12, 4]
    patients = [{Path(i["image"]).parent.name for i in side} for side in sides]
    assert not patients[0] & patients[1]


def test_dicom_series_are_images(tmp_path):
    prepare_phantoms("ct", tmp_path / "phantoms", "classification", 6, (16, 16, 4), file_format="dicom")
    series = sorted((tmp_path / "phantoms" / "imagesTr").iterdir())
    for i, folder in enumerate(series):
        shutil.copytree(folder, tmp_path / "set" / "ab"[i % 2] / folder.name)
    items = load_datalist(tmp_path / "set", "training", "classification", val_fraction=0.34)
    assert len(items) == 4
    assert all(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(item["image"]) for item in items)


BAD = {
    "no folder": ((), False, "holds no class folders"),
    "empty class": (("a/",), False, "/a holds no image: add images"),
    "empty class below": (("a/x/",), False, "/a holds no image"),
    "empty leaf": (("a/x/", "a/y/0"), True, "/a/x holds no image"),
    "empty in val": (("train/a/0", "val/a/"), False, "val/a holds no image"),
    "missing in val": (("train/a/0", "train/b/0", "val/a/0"), False, "val/b holds no image"),
    "only in val": (("train/a/0", "val/a/0", "val/b/0"), False, "val/b is a class without training images"),
    "only in test": (("train/a/0", "test/b/0"), False, "test/b is a class without training images"),
    "one image each": (("a/0", "b/0"), False, 'no image for section "validation"'),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(tmp_path, case):
    names, nested, message = BAD[case]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / f"{name}.png").touch()
    with pytest.raises(ValueError, match=message) as caught:
        image_folder_datalist(tmp_path, "validation", nested=nested)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"root": "nowhere"}, FileNotFoundError, "nowhere is no folder"),
        ({"section": "train"}, ValueError, "training"),
        ({"val_fraction": 0}, ValueError, "val_fraction is 0; expected"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, message):
    write(tmp_path, "a")
    with pytest.raises(error, match=message):
        image_folder_datalist(**{"root": tmp_path} | arguments)
