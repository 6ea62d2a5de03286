# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from monai_crossd.data import load_datalist, load_labels
from monai_crossd.data.sources import image_folder_datalist, read_class_folders
from monai_crossd.demo import prepare_phantoms

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


def noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 9), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def cats_and_dogs(tmp_path):
    """Five pictures of each, all different."""
    for number in range(10):
        noise(tmp_path / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return tmp_path


@pytest.mark.parametrize(
    ("link", "nested"),
    [("cat/up", False), ("cat/up", True), ("all", False), ("all", True), ("cat/again", True), ("cat/deep/up", False)],
)
def test_links_to_a_parent_mislabel_nothing(cats_and_dogs, link, nested):
    place = cats_and_dogs / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(cats_and_dogs / "cat" if link == "cat/again" else cats_and_dogs, target_is_directory=True)
    items = [
        item
        for section in ("training", "validation")
        for item in load_datalist(cats_and_dogs, section, "classification", nested=nested)
    ]
    assert len({Path(item["image"]).resolve() for item in items}) == len(items) == 10
    assert all(("cat", "dog")[item["label"]] == Path(item["image"]).parent.name for item in items)


@pytest.mark.parametrize("kind", ["folder", "file", "hard link", "copy"])
def test_an_image_in_two_classes(cats_and_dogs, kind):
    cat, dog = cats_and_dogs / "cat", cats_and_dogs / "dog"
    if kind == "folder":
        (cat / "more").symlink_to(dog, target_is_directory=True)
    elif kind == "file":
        (cat / "x.png").symlink_to(dog / "1.png")
    elif kind == "hard link":
        (cat / "x.png").hardlink_to(dog / "1.png")
    else:
        shutil.copy(dog / "1.png", cat / "x.png")
    with pytest.raises(ValueError, match=r"cat/.* and .*dog/.*\.png are the same image, with the labels 0 and 1"):
        load_datalist(cats_and_dogs, "training", "classification")


@pytest.mark.parametrize("name", ["1", "#2", "a b", "Größe", "1.2.840.10008", "x.png", "日本", "val.id", "_"])
def test_names_of_classes(tmp_path, name):
    for number in range(4):
        noise(tmp_path / ("other", name)[number % 2] / f"{name}{number}.png", number)
    names = load_labels(tmp_path, "classification")
    assert names == dict(enumerate(sorted(["other", name])))
    for section in ("training", "validation"):
        items = load_datalist(tmp_path, section, "classification", val_fraction=0.5)
        assert [Path(item["image"]).parent.name for item in items] == [names[item["label"]] for item in items]


def test_what_file_managers_leave(cats_and_dogs):
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png", "LICENSE", "notes.txt", "meta.xml"):
        for folder in ("", "cat", "dog"):
            (cats_and_dogs / folder / name).write_bytes(b"Mac OS X")
    (cats_and_dogs / ".hidden" / "x").mkdir(parents=True)
    items = [item for s in ("training", "validation") for item in load_datalist(cats_and_dogs, s, "classification")]
    assert len(items) == 10
    assert load_labels(cats_and_dogs, "classification") == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("parts", [("",), ("train", "val")])
def test_one_class_is_no_classification(tmp_path, parts):
    for part in parts:
        for number in range(4):
            noise(tmp_path / part / "cat" / f"{part}{number}.png", number + 10 * len(part))
    for read in (load_datalist, load_labels):
        with pytest.raises(ValueError, match=r"has one class \(0 cat\); expected two or more"):
            read(tmp_path, task="classification")


@pytest.mark.parametrize("folders", [True, False])
def test_a_volume_is_one_item(tmp_path, folders):
    """DICOM series in folders of their own, or the bare slices of one series as a class."""
    prepare_phantoms("ct", tmp_path / "phantoms", "classification", 6, (16, 16, 4), file_format="dicom")
    series = sorted((tmp_path / "phantoms" / "imagesTr").iterdir())
    for i, folder in enumerate(series if folders else series[:2]):
        place = tmp_path / "set" / "ab"[i % 2]
        shutil.copytree(folder, place / folder.name if folders else place)
    if not folders:
        shutil.copytree(series[2], tmp_path / "set" / "a" / "x")
    items, _ = read_class_folders(tmp_path / "set")
    names = [Path(item["image"]).relative_to(tmp_path / "set").as_posix() for item in items["training"]]
    expected = [f"{'ab'[i % 2]}/{folder.name}" for i, folder in enumerate(series)] if folders else ["a", "a/x", "b"]
    assert sorted(names) == sorted(expected)
