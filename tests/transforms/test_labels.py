# SPDX-License-Identifier: Apache-2.0
"""Label maps as whole numbers, and classes that files name."""

from __future__ import annotations

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_crossd.transforms import ReadClassd, RoundLabelsd, modality_transforms
from monai_crossd.transforms.labels import RoundLabels


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0.0, 0.99999, 1.99998], [0, 1, 2]),
        ([0.988, 2.0039, 6.0118], [1, 2, 6]),
        ([1.04, 0.96, -0.04], [1, 1, 0]),
        ([0, 1, 7], [0, 1, 7]),
        ([0.0, 254.99, 255.0], [0, 1, 1]),
        ([0, 255, 1], [0, 255, 1]),
        ([255, 255, 255], [1, 1, 1]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int16, torch.int64])
def test_whole_numbers(found, expected, dtype):
    if not dtype.is_floating_point and any(value != int(value) for value in found):
        dtype = torch.float32
    result = RoundLabels()(torch.tensor([found], dtype=dtype))
    assert result.tolist() == [expected]
    assert result.dtype == dtype


@pytest.mark.parametrize("value", [0.5, 0.9, 1.3, -1.0, -0.5, math.nan, math.inf, -math.inf])
def test_no_label(value):
    label = MetaTensor(torch.tensor([[0.0, 1.0, value, value]]), meta={"filename_or_obj": "scan.nii"})
    with pytest.raises(ValueError, match=r"scan\.nii has 2 voxels that are no labels, \[.*\], \.\.\.; expected whole"):
        RoundLabelsd("label")({"label": label})


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64])
def test_negative_integers(dtype):
    with pytest.raises(ValueError, match=r"no labels, \[-3, -1\]"):
        RoundLabels()(torch.tensor([[0, -1, -3]], dtype=dtype))


@pytest.mark.parametrize(
    ("found", "classes", "message"),
    [
        ([0, 1, 2], 2, r"holds the label 2, but there are 2 classes \(0 to 1; found: \[0, 1, 2\]\)"),
        ([0, 255], 3, "holds the label 255, but there are 3 classes"),
        ([0, 1, 255], 2, "holds the label 255, but there are 2 classes"),
        ([0, 2, 7, 1000], 8, r"found: \[0, 2, 7, 1000\]"),
    ],
)
def test_more_labels_than_classes(found, classes, message):
    with pytest.raises(ValueError, match=message):
        RoundLabels(classes)(torch.tensor([found]))


def test_channels():
    with pytest.raises(ValueError, match=r"has 3 channels, shape \(3, 4, 4\); expected a label map of one channel"):
        RoundLabels()(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="num_classes is 0"):
        RoundLabels(0)


def save(path, array, slope=None):
    image = nib.Nifti1Image(array, np.eye(4))
    if slope:
        image.header.set_data_dtype(np.uint8)
    nib.save(image, path)
    return str(path)


@pytest.mark.parametrize("stage", ["train", "validate"])
def test_file_with_a_slope(tmp_path, stage):
    labels = np.arange(8.0).reshape(2, 2, 2).repeat(4, 0)
    path = save(tmp_path / "l.nii.gz", labels, slope=True)
    assert not np.array_equal(nib.load(path).get_fdata(), labels)  # nibabel scaled it into 8 bits
    item = {"image": save(tmp_path / "i.nii.gz", np.zeros((8, 2, 2), np.int16)), "label": path}
    still = {"augmentation": {"rotation": 0, "scaling": 0}} if stage == "train" else {}
    result = modality_transforms("mr", 3, stage, label_key="label", num_classes=8, **still)(item)["label"]
    assert result.unique(return_counts=True)[1].tolist() == [4] * 8


@pytest.mark.parametrize("value", [0.5, -1.0, math.nan, 8.0])
def test_files_that_are_no_label_maps_are_named(tmp_path, value):
    labels = np.zeros((4, 4, 4), np.float32)
    labels[0, 0, 0] = value
    item = {
        "image": save(tmp_path / "i.nii.gz", np.zeros_like(labels)),
        "label": save(tmp_path / "l.nii.gz", labels),
    }
    with pytest.raises(RuntimeError) as caught:
        modality_transforms("mr", 3, "validate", label_key="label", num_classes=8)(item)
    assert isinstance(caught.value.__cause__, ValueError)
    assert item["label"] in str(caught.value.__cause__)


def test_mask_of_a_picture_program(tmp_path):
    mask = np.zeros((8, 6), np.uint8)
    mask[2:4] = 255
    for name in ("i.png", "l.png"):
        Image.fromarray(mask).save(tmp_path / name)
    item = {"image": str(tmp_path / "i.png"), "label": str(tmp_path / "l.png")}
    result = modality_transforms("us", 2, "validate", label_key="label", num_classes=2)(item)["label"]
    np.testing.assert_array_equal(result[0].numpy(), mask.T // 255)


LABELS = {0: "ribs", 1: "Left lung", 2: "7"}
ANSWER = {"prediction": [{"idx": 0, "label": "ribs", "score": 0.2}, {"idx": 1, "label": "left lung", "score": 0.7}]}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "ribs", 0),
        ("a.txt", " Left Lung\n", 1),
        ("a.txt", "7\n", 2),
        ("a.TXT", "ribs", 0),
        ("a.json", '"ribs"', 0),
        ("a.json", "7", 2),
        ("a.json", '{"label": "LEFT LUNG"}', 1),
        ("a.json", json.dumps(ANSWER), 1),
        ("a.json", json.dumps({"prediction": ANSWER["prediction"][:1]}), 0),
    ],
)
@pytest.mark.parametrize("labels", [LABELS, list(LABELS.values())], ids=["numbered", "listed"])
def test_files_that_name_a_class(name, text, expected, labels, tmp_path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    item = {"image": "a.png", "label": str(path)}
    assert ReadClassd("label", labels)(item) == {"image": "a.png", "label": expected}
    assert ReadClassd("label", labels)({"label": path}) == {"label": expected}
    assert item["label"] == str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", ""),
        ("a.txt", "liver"),
        ("a.json", ""),
        ("a.json", "{"),
        ("a.json", "{}"),
        ("a.json", "[]"),
        ("a.json", "null"),
        ("a.json", '{"label": "liver"}'),
        ("a.json", '{"prediction": []}'),
        ("a.json", '{"prediction": [{"label": "ribs"}]}'),
        ("a.nii.gz", "ribs"),
        ("a.seg.nrrd", "ribs"),
    ],
)
def test_files_that_do_not_are_named_with_the_classes(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match="Left lung") as caught:
        ReadClassd("label", LABELS)({"label": str(path)})
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.txt names no class"):
        ReadClassd("label", LABELS)({"label": str(tmp_path / "a.txt")})


def test_numbers_stay():
    assert ReadClassd("label", LABELS)({"label": 2}) == {"label": 2}
