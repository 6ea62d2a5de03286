# SPDX-License-Identifier: Apache-2.0
"""What the model zoo's ci/unit_tests ask of a bundle: every config runs, on random images, and has all properties."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL = {
    "crossd_2d_pretraining": {"spatial_size": [16, 16], "batch_size": 4},
    "crossd_3d_classification": {"spatial_size": [16, 16, 8], "batch_size": 2},
    "crossd_3d_segmentation": {"roi_size": [16, 16, 8], "pixdim": None, "iterations_per_epoch": 2},
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def write_dataset(bundle: str, folder: Path) -> None:
    """Ten random images: volumes with label maps, or two classes."""
    rng = np.random.default_rng(0)
    for number in range(10):
        if bundle == "crossd_2d_pretraining":
            path = folder / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(path)
            continue
        segmentation = bundle.endswith("segmentation")
        for part in ("imagesTr", "labelsTr") if segmentation else (f"class{number % 2}",):
            path = folder / part / f"{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            # eight labels, as the shipped network has
            voxels = rng.integers(0, 8 if part == "labelsTr" else 1000, (20, 20, 8)).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def check_workflow(kind: str, root: Path, *configs: str, **override) -> None:
    workflow = ConfigWorkflow(
        workflow_type=kind,
        config_file=[str(root / "configs" / config) for config in configs],
        logging_file=str(root / "configs" / "logging.conf"),
        meta_file=str(root / "configs" / "metadata.json"),
        bundle_root=str(root),
        **override,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()


@pytest.mark.parametrize("bundle", SMALL)
def test_every_config_runs(bundle, tmp_path):
    root, dataset = tmp_path / bundle, tmp_path / "data"
    shutil.copytree(BUNDLES / bundle, root, ignore=shutil.ignore_patterns("eval", ".*"))
    write_dataset(bundle, dataset)
    train = {"dataset_dir": str(dataset), "max_epochs": 1, "num_workers": 0, **SMALL[bundle]}
    check_workflow("train", root, "train.yaml", **train)
    check_workflow("train", root, "train.yaml", "evaluate.yaml", **train)
    assert (root / "eval" / "metrics.csv").is_file()
    images = dataset / "imagesTr" if bundle.endswith("segmentation") else dataset / "class0"
    options = {key: value for key, value in SMALL[bundle].items() if key != "iterations_per_epoch"}
    # as the zoo's: random weights
    check_workflow("infer", root, "inference.json", dataset_dir=str(images), load_pretrain=False, **options)
    pattern = "**/*_pred.nii.gz" if bundle.endswith("segmentation") else "predictions.csv"
    assert list((root / "eval").glob(pattern))
