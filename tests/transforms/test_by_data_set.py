# SPDX-License-Identifier: Apache-2.0
"""Transforms by data set, and what an X-ray becomes."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import RandFlipd, ScaleIntensityRanged

from monai_crossd.transforms import ByDataSet, augmentation_transforms, intensity_transforms, xray_intensity


def test_each_item_gets_the_transforms_of_its_data_set():
    transform = ByDataSet({"a": [ScaleIntensityRanged("x", 0, 10, 0, 1)], "b": []})
    assert transform({"x": 5.0, "data_set": "a"}) == {"x": 0.5, "data_set": "a"}
    assert transform({"x": 5.0, "data_set": "b"}) == {"x": 5.0, "data_set": "b"}


@pytest.mark.parametrize("item", [{"x": 1}, {"x": 1, "data_set": "c"}])
def test_an_item_of_another_data_set(item):
    with pytest.raises(ValueError, match=r"expected one of \['a'\]"):
        ByDataSet({"a": []})(item)


def test_random_transforms_are_refused():
    with pytest.raises(ValueError, match=r"transforms of 'a' are random \(RandFlipd\)"):
        ByDataSet({"a": [RandFlipd("x")]})


def test_xray():
    (transform,) = intensity_transforms("xray")
    assert transform({"image": torch.tensor([[-5.0, 0, 127.5, 255, 300]])})["image"].tolist() == [[-1, -1, 0, 1, 1]]
    (transform,) = xray_intensity("x", (0, 4095))
    assert transform({"x": torch.tensor([[4095.0]])})["x"].item() == 1
    with pytest.raises(ValueError, match="value_range"):
        xray_intensity(value_range=(255, 0))
    kinds = [[type(t).__name__ for t in augmentation_transforms(word, 2)] for word in ("xray", "ct")]
    assert kinds[0] == kinds[1]  # no flip: the heart is on the left
    assert "RandFlipd" not in kinds[0]
