# SPDX-License-Identifier: Apache-2.0
"""Every k-th axial slice of a volume, against nibabel's own way to cut."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_crossd.transforms import KeepSlices, KeepSlicesd

VOXELS = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("every", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LPI", "RSA", "SAR", "PIR"])
def test_slices_and_their_places(codes, every):
    order = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    affine = np.diag([1.5, 2.0, 4.0, 1]) @ nib.orientations.inv_ornt_aff(order, VOXELS.shape)
    image = nib.Nifti1Image(VOXELS, affine)
    axis = next(at for at, code in enumerate(nib.aff2axcodes(affine)) if code in "SI")
    expected = image.slicer[tuple(slice(None, None, every if at == axis else None) for at in range(3))]
    found = KeepSlices(every)(MetaTensor(torch.from_numpy(VOXELS)[None], affine=torch.from_numpy(affine)))
    np.testing.assert_array_equal(found[0].numpy(), expected.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(found.affine.numpy(), expected.affine)


def test_without_geometry_the_last_axis_is_cut_and_the_rest_of_an_item_stays():
    item = {"image": torch.from_numpy(VOXELS)[None], "label": torch.ones(1, 5, 6, 7), "other": "x"}
    found = KeepSlicesd(["image", "label"], 3)(item)
    assert torch.equal(found["image"], item["image"][..., ::3])
    assert found["label"].shape == (1, 5, 6, 3)
    assert found["other"] == "x"
    assert item["image"].shape == (1, 5, 6, 7)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2", None])
def test_wrong_numbers(every):
    with pytest.raises(ValueError, match=r"every is .*; expected a whole number of at least 1"):
        KeepSlices(every)


def test_an_image_is_no_volume():
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\); expected \(C, H, W, D\)"):
        KeepSlices(2)(torch.zeros(1, 4, 4))
