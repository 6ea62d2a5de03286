# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_crossd.transforms import ReplaceNonFinite, ReplaceNonFinited

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "fill", "expected"),
    [
        ([NAN, -3.0, 4.0], None, [-3.0, -3.0, 4.0]),
        ([INF, -3.0, 4.0], None, [4.0, -3.0, 4.0]),
        ([-INF, -3.0, 4.0], None, [-3.0, -3.0, 4.0]),
        ([NAN, INF, -INF, 2.0], 0, [0.0, 0.0, 0.0, 2.0]),
        ([NAN, 7.0, 7.0], None, [7.0, 7.0, 7.0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values(values, fill, expected, dtype):
    image = torch.tensor([values], dtype=dtype)
    before = image.clone()
    bad = sum(not np.isfinite(v) for v in values)
    with pytest.warns(UserWarning, match=f"has {bad} NaN or infinite voxels of {len(values)}; they are replaced"):
        result = ReplaceNonFinite(fill)(image)
    assert result.tolist() == [expected]
    assert result.dtype == dtype
    assert torch.equal(image, before) or before.isnan().any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float64])
def test_finite_images_stay(dtype):
    image = MetaTensor(torch.arange(6).to(dtype).view(1, 2, 3), meta={"filename_or_obj": "a.nii"})
    result = ReplaceNonFinite()(image)
    assert result.dtype == dtype
    assert result.meta == image.meta
    assert result.tolist() == image.tolist()


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ((1, 4, 4), NAN, r"a\.nii has only NaN or infinite voxels: remove it"),
        ((1, 4, 4), INF, r"a\.nii has only NaN or infinite voxels"),
        ((1, 4, 0), 0.0, r"a\.nii has no voxels: its shape is \(1, 4, 0\)"),
    ],
)
def test_nothing_to_repair_from(shape, value, message):
    image = MetaTensor(torch.full(shape, value), meta={"filename_or_obj": "a.nii"})
    with pytest.raises(ValueError, match=message):
        ReplaceNonFinite()(image)


def test_dictionary():
    item = {"image": torch.tensor([[NAN, 1.0]]), "label": torch.tensor([[NAN, 3.0]]), "name": "x"}
    with pytest.warns(UserWarning, match="replaced"):
        result = ReplaceNonFinited(["label", "other"], fill=0, allow_missing_keys=True)(item)
    assert result["label"].tolist() == [[0.0, 3.0]]
    assert result["image"] is item["image"]
    assert result["name"] == "x"


@pytest.mark.parametrize("fill", [NAN, INF])
def test_fill_must_be_finite(fill):
    with pytest.raises(ValueError, match="expected a finite number"):
        ReplaceNonFinite(fill)
