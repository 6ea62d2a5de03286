# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_crossd.data import prepare_demo


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory) -> Path:
    """Folder with both demo sets; read only."""
    root = tmp_path_factory.mktemp("demo")
    for task in ("segmentation", "classification"):
        prepare_demo(task, root)
    return root


@pytest.fixture
def write_nifti():
    def write(path: Path, shape=(6, 5, 4)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
        return path

    return write
