# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_nifti():
    def write(path: Path, shape=(6, 5, 4)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
        return path

    return write


@pytest.fixture
def volumes(tmp_path) -> list[dict]:
    """Items of three NIfTI volumes and a PNG, all with other voxels."""
    rng = np.random.default_rng(0)
    for i in range(3):
        volume = rng.integers(0, 999, (6, 5, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, np.diag([1, 2, 3, 1])), tmp_path / f"{i}.nii.gz")
    Image.fromarray(rng.integers(0, 255, (7, 8), dtype=np.uint8)).save(tmp_path / "3.png")
    names = ["0.nii.gz", "1.nii.gz", "2.nii.gz", "3.png"]
    return [{"image": str(tmp_path / name), "label": i} for i, name in enumerate(names)]


@pytest.fixture
def cut_off(tmp_path) -> dict:
    """An item whose file has a whole header and a part of its voxels."""
    path = tmp_path / "short.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:2000])
    assert nib.load(path).shape == voxels.shape
    return {"image": str(path), "label": 9}
