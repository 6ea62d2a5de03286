# SPDX-License-Identifier: Apache-2.0
"""A training step of every bundle from every format and modality, on files on disk, through the bundle's own config."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_crossd.data import prepare_phantoms

BUNDLES = Path(__file__).parents[2] / "bundles"
MODALITIES = ["ct", "mr", "us"]
SMALL_2D = {"spatial_size": [24, 24], "batch_size": 4}
SMALL_3D = {"spatial_size": [16, 16, 8], "batch_size": 2}
SMALL_SEGMENTATION = {"roi_size": [16, 16, 8], "pixdim": None, "iterations_per_epoch": 1}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def train(tmp_path):
    """Train a bundle for an epoch; returns the row of its history."""

    def run(bundle: str, dataset: Path, **overrides) -> dict[str, float]:
        out = tmp_path / "out"
        workflow = ConfigWorkflow(
            config_file=str(BUNDLES / bundle / "configs" / "train.yaml"), workflow_type="train",
            bundle_root=str(BUNDLES / bundle), dataset_dir=str(dataset), output_dir=str(out), ckpt_dir=str(out),
            max_epochs=1, **overrides,
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        assert torch.load(out / "model.pt", weights_only=True)
        with (out / "history.csv").open() as file:
            (row,) = csv.DictReader(file)
        values = {name: float(value) for name, value in row.items()}
        assert np.isfinite(values["train_loss"])
        return values

    return run


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("file_format", ["png", "dicom", "nifti", "mha"])
def test_2d(train, tmp_path, modality, file_format):
    path = prepare_phantoms(modality, tmp_path / "set", "classification", 12, (32, 32), file_format=file_format)
    window = {"intensity": {"window": [-1000, 1000]}} if modality == "ct" and file_format != "png" else {}
    assert 0 <= train("crossd_2d_pretraining", path, modality=modality, **SMALL_2D, **window)["val_accuracy"] <= 1


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("file_format", ["nifti", "nrrd", "mha", "dicom"])
def test_3d_classification(train, tmp_path, modality, file_format):
    path = prepare_phantoms(modality, tmp_path / "set", "classification", 8, (24, 24, 12), file_format=file_format)
    assert 0 <= train("crossd_3d_classification", path, modality=modality, **SMALL_3D)["val_accuracy"] <= 1


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("file_format", ["nifti", "nrrd", "mha", "dicom"])
def test_3d_segmentation(train, tmp_path, modality, file_format):
    path = prepare_phantoms(modality, tmp_path / "set", "segmentation", 6, (24, 24, 12), file_format=file_format)
    row = train("crossd_3d_segmentation", path, modality=modality, **SMALL_SEGMENTATION)
    assert 0 <= row["val_mean_dice"] <= 1
    assert list((tmp_path / "out" / "predictions").iterdir())


def medmnist(path: Path, *size: int) -> Path:
    rng = np.random.default_rng(0)
    sections = {"train": 12, "val": 6, "test": 6}
    images = {f"{s}_images": rng.integers(0, 255, (n, *size), dtype=np.uint8) for s, n in sections.items()}
    labels = {f"{s}_labels": (np.arange(n)[:, None] % 6).astype(np.uint8) for s, n in sections.items()}
    np.savez(path, **images, **labels)
    return path


def test_medmnist_2d_in_colour(train, tmp_path):
    path = medmnist(tmp_path / "mine.npz", 28, 28, 3)
    train("crossd_2d_pretraining", path, modality="us", in_channels=3, **SMALL_2D)


def test_medmnist_3d(train, tmp_path):
    path = medmnist(tmp_path / "mine.npz", 28, 28, 28)
    train("crossd_3d_classification", path, modality="us", **SMALL_3D)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "bmp"])
def test_pictures_in_class_folders(train, tmp_path, suffix):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(6):
            image = Image.fromarray(rng.integers(0, 255, (30, 34, 3), dtype=np.uint8))
            image.save(tmp_path / "set" / name / f"{i}.{suffix}")
    train("crossd_2d_pretraining", tmp_path / "set", modality="us", **SMALL_2D)


@pytest.mark.parametrize("cache", ["none", "disk", "smart"])
def test_caches(train, tmp_path, cache):
    path = prepare_phantoms("ct", tmp_path / "set", "segmentation", 6, (24, 24, 12))
    train("crossd_3d_segmentation", path, cache=cache, **SMALL_SEGMENTATION)
