# SPDX-License-Identifier: Apache-2.0
"""Several data sets as one list: against the lists of each, read by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_crossd.data import load_datalist, load_heads, load_labels
from monai_crossd.data.data_sets import name_data_sets


def write_npz(path: Path, classes: int, images: int = 6) -> Path:
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.zeros((images, 8, 8), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(images, dtype=np.uint8) % classes)[:, None]
    np.savez(path, **arrays)
    return path


@pytest.fixture
def sources(tmp_path) -> list:
    for number, name in enumerate(("bent", "straight")):
        for i in range(4):
            path = tmp_path / "fractures" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 40 * number + i, np.uint8)).save(path)
    return [write_npz(tmp_path / "breastmnist.npz", 2), tmp_path / "fractures", write_npz(tmp_path / "own.npz", 3)]


@pytest.mark.parametrize("section", ["training", "validation"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_items_are_those_of_each_with_their_classes_in_a_row(sources, section, kind):
    items = load_datalist(kind(sources), section, "classification", spatial_dims=2)
    alone = [load_datalist(source, section, "classification", spatial_dims=2) for source in sources]
    assert [item["image"] for item in items] == [item["image"] for part in alone for item in part]
    starts = {"breastmnist": 0, "fractures": 2, "own": 4}
    assert [item["label"] - starts[item["data_set"]] for item in items] == [i["label"] for part in alone for i in part]
    assert [item["data_set"] for item in items] == [n for n, part in zip(starts, alone, strict=True) for _ in part]


def test_names_and_heads(sources):
    assert load_heads(sources) == {"breastmnist": 2, "fractures": 2, "own": 3}
    assert list(load_labels(sources, "classification").values()) == [
        "breastmnist/malignant", "breastmnist/normal, benign", "fractures/bent", "fractures/straight",
        "own/class 0", "own/class 1", "own/class 2",
    ]  # fmt: skip
    assert load_heads(sources[0]) == {}
    assert load_heads(sources[:1]) == {"breastmnist": 2}
    assert "data_set" not in load_datalist(sources[0], "training", "classification")[0]


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([], "the list of data sets is empty"),
        (["/a/set.npz", "/b/set.npz"], r"\['/a/set.npz', '/b/set.npz'\] have one name, 'set': rename"),
        (["/a/one", "/a/one/"], "have one name, 'one'"),
    ],
)
def test_names_that_cannot_be_told_apart(datasets, message):
    with pytest.raises(ValueError, match=message):
        name_data_sets(datasets)


def test_a_list_is_not_for_segmentation(sources):
    for call in (load_datalist, load_labels):
        with pytest.raises(ValueError, match=r"segmentation learns from one data set, but .*breastmnist"):
            call(sources, task="segmentation")


def test_one_that_is_missing_is_named(sources, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        load_datalist([*sources, tmp_path / "absent.npz"], "training", "classification")
    with pytest.raises(ValueError, match='"test"'):  # the folder has none
        load_datalist(sources, "test", "classification")


def test_what_is_left_out_is_kept_in_the_list(sources):
    (sources[1] / "bent" / "0.png").write_bytes(b"no picture")
    items = load_datalist(sources, "training", "classification", on_error="skip-and-report", seed=1)
    others = load_datalist(sources, "validation", "classification", on_error="skip-and-report", seed=1)
    assert len(items.skipped) + len(others.skipped) == 1
    section = "training" if items.skipped else "validation"
    with pytest.raises(ValueError, match=r"0\.png"):
        load_datalist(sources, section, "classification", seed=1)
