# SPDX-License-Identifier: Apache-2.0
"""The overlay of the decathlon's hippocampus, on a folder of the same layout."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_crossd.data import load_datalist

BUNDLE = Path(__file__).parents[2] / "bundles" / "crossd_3d_segmentation"


@pytest.fixture(scope="module")
def task04(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("Task04_Hippocampus")
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    for i in range(8):
        label = np.zeros((12 + i % 3, 14, 12), np.uint8)
        label[3:6, 3:9, 3:9], label[6:9, 3:9, 3:9] = 1, 2
        image = 10.0 ** (i % 4) * rng.normal(10 + 5 * label, 1)  # scales differ
        for part, array in (("imagesTr", image.astype(np.float32)), ("labelsTr", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / part / f"hippocampus_{i:03d}.nii.gz")
    return folder


@pytest.fixture
def parser(tmp_path, task04) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{name}.yaml") for name in ("train", "hippocampus")])
    parser.update({
        "bundle_root": str(BUNDLE), "output_dir": str(tmp_path), "dataset_dir": str(task04), "roi_size": [16, 16, 16],
        "max_epochs": 1, "iterations_per_epoch": 2, "device": torch.device("cpu"),
    })  # fmt: skip
    return parser


@pytest.mark.parametrize("seed", [0, 5])
def test_the_same_patients_are_held_out_whatever_the_seed(parser, task04, seed):
    parser.update({"seed": seed})
    held = [item["image"] for item in parser.get_parsed_content("validate#dataset#data")]
    learned = [item["image"] for item in parser.get_parsed_content("train#dataset#data")]
    assert held == [item["image"] for item in load_datalist(task04, "validation", val_fraction=0.25, seed=0)]
    assert len(held) == 2
    assert len(learned) == 6
    assert not set(held) & set(learned)


def test_each_volume_has_mean_0_and_deviation_1(parser):
    for item in parser.get_parsed_content("validate#dataset"):
        assert item["image"].mean().item() == pytest.approx(0, abs=1e-4)
        assert item["image"].std().item() == pytest.approx(1, abs=1e-2)
        assert item["label"].unique().tolist() == [0, 1, 2]


@pytest.mark.slow
def test_it_trains(parser, train_parsed, tmp_path):
    row = train_parsed(parser)
    assert float(row["train_loss"]) > 0
    assert {"val_mean_dice", "val_mean_dice/anterior", "val_mean_dice/posterior"} <= row.keys()
    assert (tmp_path / "model.pt").is_file()
    assert len(list((tmp_path / "predictions").glob("hippocampus_*_pred.nii.gz"))) == 2
