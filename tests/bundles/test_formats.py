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

from monai_crossd.demo import prepare_phantoms

BUNDLES = Path(__file__).parents[2] / "bundles"
MODALITIES = ["ct", "mr", "us"]
SMALL_2D = {"spatial_size": [24, 24], "batch_size": 4}
SMALL_3D = {"spatial_size": [16, 16, 8], "batch_size": 2}
SMALL_SEGMENTATION = {"roi_size": [16, 16, 8], "pixdim": None, "iterations_per_epoch": 1}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def accuracy(network, parser) -> float:
    """Share of the validation items that are given their class."""
    items = list(parser.get_parsed_content("validate#dataset"))
    return float(np.mean([int(network(item["image"][None]).argmax(1)) == int(item["label"]) for item in items]))


def mean_dice(network, parser) -> float:
    """Mean over the validation items of the mean over the structures that an item holds."""
    inferer, scores = parser.get_parsed_content("validate#inferer"), []
    for item in parser.get_parsed_content("validate#dataset"):
        pred = inferer(item["image"][None], network).argmax(1)[0].numpy()
        label = item["label"][0].numpy()
        present = [c for c in np.unique(label) if c > 0]
        dice = [2 * np.sum((pred == c) & (label == c)) / (np.sum(pred == c) + np.sum(label == c)) for c in present]
        scores += [np.mean(dice)] if dice else []
    return float(np.mean(scores))


@pytest.fixture
def train(tmp_path):
    """Train a bundle for an epoch; its score is made again item by item."""

    def run(bundle: str, dataset: Path, **overrides) -> None:
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
        network = workflow.parser.get_parsed_content("network").eval()
        name, score = ("val_mean_dice", mean_dice) if "val_mean_dice" in values else ("val_accuracy", accuracy)
        with torch.no_grad():
            assert values[name] == pytest.approx(score(network, workflow.parser), abs=1e-4)

    return run


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("file_format", ["png", "dicom", "nifti", "mha"])
def test_2d(train, tmp_path, modality, file_format):
    path = prepare_phantoms(modality, tmp_path / "set", "classification", 12, (32, 32), file_format=file_format)
    window = {"intensity": {"window": [-1000, 1000]}} if modality == "ct" and file_format != "png" else {}
    train("crossd_2d_pretraining", path, modality=modality, **SMALL_2D, **window)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("file_format", ["nifti", "nrrd", "mha", "dicom"])
def test_3d_classification(train, tmp_path, modality, file_format):
    path = prepare_phantoms(modality, tmp_path / "set", "classification", 8, (24, 24, 12), file_format=file_format)
    train("crossd_3d_classification", path, modality=modality, **SMALL_3D)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("file_format", ["nifti", "nrrd", "mha", "dicom"])
def test_3d_segmentation(train, tmp_path, modality, file_format):
    path = prepare_phantoms(modality, tmp_path / "set", "segmentation", 6, (24, 24, 12), file_format=file_format)
    train("crossd_3d_segmentation", path, modality=modality, **SMALL_SEGMENTATION)
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
