# SPDX-License-Identifier: Apache-2.0
"""Lists within a list of transforms."""

from __future__ import annotations

import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.data import CacheDataset
from monai.transforms import Compose, RandShiftIntensityd, ScaleIntensityRanged

from monai_crossd.transforms import intensity_transforms, join_transforms, noise_transforms


@pytest.mark.parametrize(
    ("entries", "expected"),
    [([], ""), (["a"], "a"), (["a", ["b", "c"], "d"], "abcd"), ([[], ("a", "b")], "ab"), ([["a"], ["b"]], "ab")],
)
def test_order(entries, expected):
    def make(name):
        return [make(part) for part in name] if isinstance(name, (list, tuple)) else lambda text: text + name

    found = join_transforms([make(entry) for entry in entries])
    assert type(found) is Compose
    assert found("") == expected


def test_in_a_config_cached_up_to_the_first_random_one():
    config = {"imports": ["$import monai_crossd"], "modality": "ct", "all": {
        "_target_": "monai_crossd.transforms.join_transforms",
        "transforms": [
            "$monai_crossd.transforms.intensity_transforms(@modality, window=[0, 10])",
            {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x + 1"},
            {"_target_": "RandFlipd", "keys": "image", "_disabled_": "$@modality != 'us'"},
            {"_target_": "monai_crossd.transforms.noise_transforms", "modality": "@modality"},
        ],
    }}  # fmt: skip
    joined = ConfigParser(config).get_parsed_content("all")
    kinds = [type(transform) for transform in joined.transforms]
    assert kinds == [ScaleIntensityRanged, kinds[1], *map(type, noise_transforms("ct"))]
    assert joined.get_index_of_first(lambda t: isinstance(t, type(noise_transforms("ct")[0]))) == 2
    dataset = CacheDataset([{"image": np.array([[0.0, 5, 20]])}], joined, progress=False)
    np.testing.assert_allclose(dataset._cache[0]["image"], [[0.0, 1, 2]])
    assert RandShiftIntensityd in kinds
    assert len(intensity_transforms("mr")) == 2
