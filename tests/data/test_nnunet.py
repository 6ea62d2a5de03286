# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_crossd.data import load_datalist, load_labels

LABELS = {"background": 0, "liver": 1}
V1 = {"labels": {"0": "background", "1": "liver"}}


@pytest.fixture
def make(tmp_path, write_nifti):
    """A folder with images and label maps of these names, and a dataset.json."""

    def make(images, maps, /, **content):
        for kind, names in (("imagesTr", images), ("labelsTr", maps)):
            for name in names.split():
                write_nifti(tmp_path / kind / (name if ".nii" in name else f"{name}.nii.gz"))
        if content:
            (tmp_path / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    return make


def read(folder: Path) -> dict[str, list[str] | str]:
    """Names of the image files by case."""
    found = {}
    for section in ("training", "validation"):
        for item in load_datalist(folder, section, val_fraction=0.34):
            image = item["image"]
            found[Path(item["label"]).name.split(".nii")[0]] = (
                Path(image).name if isinstance(image, str) else [Path(path).name for path in image]
            )
    return found


def channels(case: str, count: int) -> list[str]:
    return [f"{case}_{k:04d}.nii.gz" for k in range(count)]


def listed(*cases: str) -> list[dict]:
    return [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 3, "file_ending": ".nii.gz"},
        {"modality": {"0": "CT"}, **V1, "training": listed("a", "b", "c_d"), "test": ["./imagesTs/x.nii.gz"]},
        {"modality": {"0": "CT"}, **V1, "training": listed("a", "b", "c_d"), "numTraining": 3, "test": []},
    ],
)
def test_one_channel(make, content):
    folder = make("a_0000 b_0000 c_d_0000", "a b c_d", **content)
    assert read(folder) == {case: f"{case}_0000.nii.gz" for case in ("a", "b", "c_d")}
    if content:
        assert load_labels(folder) == {0: "background", 1: "liver"}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"channel_names": {"0": "T1", "1": "T2"}, "labels": LABELS, "file_ending": ".nii.gz"},
        {"modality": {"0": "T1", "1": "T2"}, **V1, "training": listed("a", "b")},
        {**V1, "training": listed("a", "b")},
        {
            "channel_names": {"0": "T1", "1": "T2"},
            "labels": LABELS,
            "dataset": {
                case: {
                    "images": [f"imagesTr/{name}" for name in channels(case, 2)],
                    "label": f"labelsTr/{case}.nii.gz",
                }
                for case in "ab"
            },
        },
    ],
)
def test_two_channels(make, content):
    folder = make("a_0000 a_0001 b_0000 b_0001", "a b", **content)
    assert read(folder) == {case: channels(case, 2) for case in "ab"}


def test_names_that_end_in_four_digits(make):
    assert read(make("a_0007 b_2021", "a_0007 b_2021")) == {c: f"{c}.nii.gz" for c in ("a_0007", "b_2021")}


def test_plain_names_beside_a_v1_list(make):
    folder = make("a b", "a b", **V1, modality={"0": "CT"}, training=listed("a", "b"))
    assert read(folder) == {"a": "a.nii.gz", "b": "b.nii.gz"}


def test_names_with_dots_spaces_and_signs(make):
    names = "1.2.840.1 #1_[x] ä"
    images = " ".join(f"{name}_0000.nii.gz" for name in names.split())
    labels = " ".join(f"{name}.nii.gz" for name in names.split())
    folder = make(images, labels, **V1, training=listed(*names.split()))
    assert sorted(read(folder)) == sorted(names.split())


def test_other_files_are_no_cases(make):
    folder = make("a_0000 b_0000", "a b", labels=LABELS, file_ending=".nii.gz", channel_names={"0": "CT"})
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "notes.txt"):
        for kind in ("imagesTr", "labelsTr"):
            (folder / kind / name).write_bytes(b"x")
    assert sorted(read(folder)) == ["a", "b"]


def test_number_of_cases(make, caplog):
    folder = make("a_0000 b_0000", "a b", labels=LABELS, numTraining=5)
    load_datalist(folder)
    assert '"numTraining" is 5, found: 2 cases' in caplog.text


TWO = {"channel_names": {"0": "T1", "1": "T2"}, "labels": LABELS}
BAD = {
    "lacks a channel": ("a_0000 a_0001 b_0000", "a b", {}, r"imagesTr/b has the channels .*Add b_0001"),
    "lacks the first": ("a_0000 a_0001 b_0001", "a b", {}, r"imagesTr/b .*Add b_0000"),
    "lacks a named one": ("a_0000 b_0000", "a b", TWO, r"imagesTr/a .*expected 2, _0000 to _0001\. Add a_0001"),
    "has more": ("a_0000 a_0001 a_0002 b_0000 b_0001", "a b", TWO, r"imagesTr/a .*Name all in dataset\.json"),
    "number and none": ("a_0000 a_0001 b", "a b", {}, r"b\.nii\.gz is one channel; expected 2"),
    "both names": ("a_0000 a", "a", {}, "are both the image of a"),
    "two suffixes": ("a.nii a.nii.gz", "a", {}, "are both the image of a"),
    "two labels": ("a", "a.nii a.nii.gz", {}, "are both the label map of a"),
    "no image": ("a_0000", "a b", {}, r"labelsTr/b\.nii\.gz has no partner in .*imagesTr"),
    "no label": ("a_0000 b_0000", "a", {}, r"imagesTr/b_0000\.nii\.gz has no partner in .*labelsTr"),
    "v1 lacks a channel": (
        "a_0000 a_0001 b_0000",
        "a b",
        {**V1, "modality": {"0": "T1", "1": "T2"}, "training": listed("a", "b")},
        r"imagesTr/b .*Add b_0001",
    ),
    "v1 lacks one between": (
        "a_0000 a_0002",
        "a",
        {**V1, "training": listed("a")},
        r"imagesTr/a .*Add a_0001",
    ),
    "v1 absent": ("a_0000", "a b", {**V1, "training": listed("a", "b")}, r"imagesTr/b\.nii\.gz does not exist"),
    "regions": ("a", "a", {"labels": {"background": 0, "whole": [1, 2], "core": 2}}, r"has regions, 'whole': \[1, 2\]"),
    "ignored": ("a", "a", {"labels": {"background": 0, "x": 1, "ignore": 2}}, '"ignore" .* would be trained'),
    "one number": ("a", "a", {"labels": {"background": 0, "x": 1, "y": 1}}, "number 1 to two names"),
    "ending": ("a", "a", {"labels": LABELS, "file_ending": ".nrrd"}, r"\"file_ending\" is '\.nrrd'"),
    "dataset": ("a", "a", {"labels": LABELS, "dataset": {"a": {"label": "x"}}}, r"'a' is .*expected \{\"images\""),
    "dataset channels": (
        "a",
        "a",
        {**TWO, "dataset": {"a": {"images": ["imagesTr/a.nii.gz"], "label": "labelsTr/a.nii.gz"}}},
        "'a' has 1 images; expected 2 channels",
    ),
    "empty dataset": ("a", "a", {"labels": LABELS, "dataset": {}}, r'"dataset" is \{\}'),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(make, case):
    images, labels, content, message = BAD[case]
    folder = make(images, labels, **content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(folder)


def test_a_folder_that_is_named_by_a_number(make, tmp_path, monkeypatch, write_nifti):
    for case in "ab":
        for kind in ("imagesTr", "labelsTr"):
            write_nifti(tmp_path / "123" / kind / f"{case}.nii")
    monkeypatch.chdir(tmp_path)
    assert len(load_datalist(123)) == len(load_datalist(123, "validation")) == 1
