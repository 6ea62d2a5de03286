# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import math
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_crossd.data import class_weights, load_labels


@pytest.fixture
def write(tmp_path):
    """Pairs in imagesTr and labelsTr, the label map of each holding the values given."""

    def write(*maps, dtype=np.float32):
        items = []
        for folder in ("imagesTr", "labelsTr"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for number, values in enumerate(maps):
            array = np.zeros((4, 4, 2), dtype)
            array.flat[: len(values)] = values
            item = {key: str(tmp_path / f"{key}sTr" / f"{number}.nii") for key in ("image", "label")}
            for key, voxels in (("image", array * 0), ("label", array)):
                nib.save(nib.Nifti1Image(voxels, np.eye(4)), item[key])
            items.append(item)
        return tmp_path, items

    return write


@pytest.mark.parametrize(
    ("maps", "highest", "word"),
    [
        (([1, 2], [2, 3]), 3, None),
        (([0.99999, 1.99998], [1]), 2, None),
        (([255], [255, 0]), 1, "255 is read as label 1"),
        (([1, 2, 4],), 4, r"not \[3\], which become classes without a voxel"),
        (([0], [0]), 0, "there is nothing to segment"),
    ],
)
def test_numbers(write, caplog, maps, highest, word):
    folder, _ = write(*maps)
    assert load_labels(folder) == {0: "background", **{n: f"label {n}" for n in range(1, highest + 1)}}
    told = (r for r in caplog.records if r.name.startswith("monai_crossd") and r.levelno >= logging.WARNING)
    messages = [record.getMessage() for record in told]
    assert (len(messages) == 1 and re.search(word, messages[0])) if word else not messages


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (([2, 7, 1000],), r"hold the labels \[2, 7, 1000\], and not \[1, 3, 4, 5, 6\], \.\.\.: 1001 classes"),
        (([1], [0, 255, 3]), r"\[1, 3, 255\], .*1\.nii holds 255"),
        (([3],), "4 classes, most without a voxel"),
        (([128, 255],), "256 classes"),
        (([1], [0.5]), r"1\.nii has 1 voxels that are no labels, \[0\.5\]"),
        (([1], [-1]), r"1\.nii has 1 voxels that are no labels, \[-1\.0\]"),
        (([1], [math.nan]), r"1\.nii has 1 voxels that are no labels, \[nan\]"),
    ],
)
def test_refused(write, maps, message):
    folder, _ = write(*maps)
    with pytest.raises(ValueError, match=message):
        load_labels(folder)


def test_what_is_no_label_map_can_be_skipped(write, caplog):
    folder, _ = write([1], [0.5], [2])
    assert list(load_labels(folder, on_error="skip-and-report")) == [0, 1, 2]
    assert "1.nii has 1 voxels that are no labels" in caplog.text


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("off", [0.0, 1e-4, 0.012])
def test_class_weights(write, power, off):
    maps = ([1, 1, 2, 2, 2, 2], [2 - off, 1 + off])
    _, items = write(*maps)
    counts = np.array([64 - 8, 3, 5])
    expected = (np.median(counts) / counts) ** power
    np.testing.assert_allclose(class_weights(items, 3, power).numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(class_weights(items, 4, power)[3].numpy(), 0)


@pytest.mark.parametrize("others", [[], [0, 1, 1]])
def test_class_weights_of_a_white_mask(write, others):
    _, items = write([255] * 8, others, dtype=np.uint8)
    white = 8 + sum(others)
    expected = torch.tensor([(32 / (64 - white)) ** 0.5, (32 / white) ** 0.5])
    torch.testing.assert_close(class_weights(items, 2), expected)
    with pytest.raises(ValueError, match=r"0\.nii holds the label 255, but there are 3 classes"):
        class_weights(items, 3)


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([1, 3], 3, r"holds the label 3, but there are 3 classes \(0 to 2; found: \[0, 1, 3\]\)"),
        ([0.5], 3, r"\[0\.5\]"),
        ([-1], 3, r"\[-1\.0\]"),
        ([0], 3, "None of 2 label maps holds a label other than 0"),
    ],
)
def test_no_class_weights(write, values, classes, message):
    _, items = write([0], values)
    with pytest.raises(ValueError, match=message):
        class_weights(items, classes)


def test_colours_are_no_labels(tmp_path):
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / "l.png")
    with pytest.raises(ValueError, match=r"l\.png has 3 channels"):
        class_weights([{"label": str(tmp_path / "l.png")}], 2)


def test_one_named_label_is_nothing_to_segment(write):
    folder, items = write([0], [0])
    (folder / "dataset.json").write_text('{"labels": {"background": 0}}')
    with pytest.raises(ValueError, match=r"names one label, \{0: 'background'\}"):
        load_labels(folder)
    with pytest.raises(ValueError, match="None of 2 label maps"):
        class_weights(items, 1)
