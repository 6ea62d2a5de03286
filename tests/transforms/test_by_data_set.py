# SPDX-License-Identifier: Apache-2.0
"""Transforms by data set, and what an X-ray becomes."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import RandFlipd, ScaleIntensityRanged

from monai_crossd.transforms import (
    ByDataSet,
    RandByDataSet,
    augment_by_data_set,
    augmentation_transforms,
    intensity_transforms,
    scale_by_data_set,
)
from monai_crossd.transforms.intensity import xray_intensity

HEADS = {"chest": 2, "brain": 4, "breast": 2}


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


def test_random_transforms_by_data_set():
    transform = RandByDataSet({"a": [RandFlipd("x", prob=1.0, spatial_axis=0)], "b": []})
    image = torch.arange(6.0).view(1, 3, 2)
    assert torch.equal(transform({"x": image, "data_set": "a"})["x"], image.flip(1))
    assert torch.equal(transform({"x": image, "data_set": "b"})["x"], image)
    with pytest.raises(ValueError, match="expected one of"):
        transform({"x": image})


def test_each_data_set_is_seeded():
    (transform,) = augment_by_data_set(["ct", "mr", "us"], HEADS)
    image = torch.rand(1, 16, 16)

    def draw(seed: int, name: str) -> torch.Tensor:
        return transform.set_random_state(seed)({"image": image, "data_set": name})["image"]

    for name in HEADS:
        assert torch.equal(draw(3, name), draw(3, name))
        assert not all(torch.equal(draw(3, name), draw(seed, name)) for seed in (4, 5, 6))


def test_scaling_of_several_is_that_of_each():
    (transform,) = scale_by_data_set(["ct", "mr", "us"], {"window": [0, 255], "nonzero": False}, HEADS)
    image = torch.rand(1, 9, 9) * 255
    options = {"chest": ("ct", {"window": [0, 255]}), "brain": ("mr", {"nonzero": False}), "breast": ("us", {})}
    for name, (modality, option) in options.items():
        expected = {"image": image}
        for step in intensity_transforms(modality, **option):
            expected = step(expected)
        assert torch.equal(transform({"image": image, "data_set": name})["image"], expected["image"])
        found = {"image": image}  # of inference: no item says its data set
        for step in scale_by_data_set(["ct", "mr", "us"], {"window": [0, 255], "nonzero": False}, HEADS, head=name):
            found = step(found)
        assert torch.equal(found["image"], expected["image"])
    with pytest.raises(ValueError, match="chest"):
        scale_by_data_set(["ct", "mr", "us"], {}, HEADS, head="chests")


def test_one_data_set_and_one_modality_of_all():
    assert augment_by_data_set("ct", {}) == []
    kinds = [type(t) for t in scale_by_data_set("ct", {"window": "lung"}, {})]
    assert kinds == [type(t) for t in intensity_transforms("ct", window="lung")]
    (transform,) = scale_by_data_set("us", {}, HEADS)
    assert list(transform.transforms) == list(HEADS)


@pytest.mark.parametrize(
    ("modality", "intensity", "message"),
    [
        (["ct", "mr"], {}, r"modality is \['ct', 'mr'\] for the data sets \['chest', 'brain', 'breast'\]"),
        (["ct", "mr", "pet"], {}, "pet"),
        (["us", "mr", "us"], {"window": "lung"}, "window='lung' is no option of us, mr"),
        ("ct", {"windw": "lung"}, "windw='lung' is no option of ct"),
    ],
)
def test_wrong_modalities_of_several(modality, intensity, message):
    with pytest.raises(ValueError, match=message):
        scale_by_data_set(modality, intensity, HEADS)
