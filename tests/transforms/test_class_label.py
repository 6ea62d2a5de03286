# SPDX-License-Identifier: Apache-2.0
"""Classes read from the files that MONAI Label keeps beside images."""

from __future__ import annotations

import json

import pytest

from monai_crossd.transforms import ReadClassd

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
