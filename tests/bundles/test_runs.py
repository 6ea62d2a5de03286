# SPDX-License-Identifier: Apache-2.0
"""Bundles run as their users run them, on files on disk."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_crossd.demo import prepare_demo
from monai_crossd.study.command import main as study

ROOT = Path(__file__).parents[2]
BUNDLES, README = ROOT / "bundles", (ROOT / "README.md").read_text("utf-8")
SHORT = ("--max_epochs", "1", "--iterations_per_epoch", "2")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """The embedded CT as a user's own folder: imagesTr and labelsTr without a dataset.json."""
    folder = prepare_demo("segmentation", tmp_path_factory.mktemp("volumes")).parent
    (folder / "dataset.json").unlink()
    return folder


def is_picture(path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and np.asarray(image.convert("L")).std() > 1


@pytest.mark.slow
def test_main_job(tmp_path, monkeypatch, caplog):
    """README's first command with fewer steps and volumes: scratch, and the shipped Conv2d and Cross-D weights."""
    pytest.importorskip("sklearn")
    try:
        distribution("TPTBox")
    except PackageNotFoundError:
        pytest.skip("needs `pip install --no-deps TPTBox==1.1.0`")
    (command,) = re.findall(r"python -m monai_crossd\.evaluate_transfer (configs/few_labels[^)]*)\)", README)
    arguments = shlex.split(command)
    monkeypatch.chdir(BUNDLES / "crossd_3d_classification")
    arguments[arguments.index("--output_dir") + 1] = str(tmp_path)
    arguments[arguments.index("--processes") + 1] = "1"
    study([*arguments, "--iterations", "1", "--train_cases", "[6]", "--seeds", "[0]"])
    report = (tmp_path / "report.md").read_text("utf-8")
    assert any(report in message for message in caplog.messages)  # printed at the end
    assert "over 150 test volumes" in report  # of one patient: they are no patients
    names = ("scratch", "conv2d-center", "crossd-center")
    for name in names:
        assert report.count(f"\n| {name} | 0.") >= 4, name  # scores by number of volumes
    assert "| conv2d-center | 6 | " in report.partition("against scratch")[2]
    assert is_picture(tmp_path / "curve.png")
    with (tmp_path / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["initialization"], row["volumes"]) for row in rows] == [(name, "6") for name in names]
    cells = [json.loads(path.read_text()) for path in (tmp_path / "cells").rglob("*.json")]
    carried = {cell["initialization"]: cell["carried"] for cell in cells}
    assert carried.pop("scratch") == ""
    assert all("100.0% of the values" in summary for summary in carried.values()), carried
    assert all(summary.endswith(", 20 kernels as large as new ones") for summary in carried.values()), carried


@pytest.mark.slow
def test_beside_scratch(run_bundle, tmp_path):
    """Segmentation from 2D beside from scratch: every file its page promises, on the image's own grid."""
    result = run_bundle(
        "crossd_3d_segmentation", "--output_dir", str(tmp_path), *SHORT, configs=("train", "compare_scratch")
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert "100.0% of the values" in result.stdout  # the whole encoder came from 2D
    assert "from 2D  from scratch" in result.stdout
    for structure in ("ribs", "cervical vertebral column", "left lung", "tissue"):
        assert f"\n{structure}" in result.stdout
    for name in ("chest_08-11_overlay.png", "chest_26-29_overlay.png", "curves.png", "comparison.png"):
        assert is_picture(tmp_path / name), name
    for name in ("chest_08-11", "chest_26-29"):
        image = nib.load(tmp_path / "demo" / "segmentation" / "imagesTr" / f"{name}.nii.gz")
        pred = nib.load(tmp_path / "predictions" / f"{name}_pred.nii.gz")
        assert pred.shape == image.shape
        np.testing.assert_allclose(pred.affine, image.affine, atol=1e-4)
        assert set(np.unique(np.asarray(pred.dataobj))) <= set(range(8))
    states = [torch.load(tmp_path / p / "model.pt", weights_only=True) for p in (".", "scratch")]
    assert states[0].keys() == states[1].keys()
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    from_2d, from_scratch = re.search(r"\nmean +(\S+) +(\S+)\n", result.stdout).groups()
    assert float(rows[0]["val_mean_dice"]) == pytest.approx(float(from_2d), abs=6e-4)
    with (tmp_path / "scratch" / "history.csv").open() as file:
        assert float(next(csv.DictReader(file))["val_mean_dice"]) == pytest.approx(float(from_scratch), abs=6e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "json"])
def test_own_volumes_are_one_argument(run_bundle, volumes, tmp_path, form):
    dataset = volumes
    if form == "json":
        items = [
            {"image": str(p), "label": str(volumes / "labelsTr" / p.name)} for p in (volumes / "imagesTr").iterdir()
        ]
        dataset = tmp_path / "lists" / "mine.json"
        dataset.parent.mkdir()
        labels = {str(i): f"structure {i}" for i in range(8)}
        dataset.write_text(json.dumps({"labels": labels, "training": items[:3], "validation": items[3:]}))
    result = run_bundle("crossd_3d_segmentation", "--dataset_dir", str(dataset), "--output_dir", str(tmp_path), *SHORT)
    assert result.returncode == 0, result.stdout[-3000:]
    assert list((tmp_path / "predictions").glob("*_pred.nii.gz"))
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.slow
def test_pretraining_on_own_class_folders_then_segmentation_from_it(run_bundle, tmp_path):
    """2D weights made on the user's own images go into the 3D encoder by one argument."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("bright", 180)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.normal(level, 20, (40, 44)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    out = tmp_path / "2d"
    result = run_bundle(
        "crossd_2d_pretraining",
        *(
            "--dataset_dir",
            str(tmp_path / "images"),
            "--output_dir",
            str(out),
            "--max_epochs",
            "2",
            "--batch_size",
            "4",
        ),
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert "best validation balanced accuracy" in result.stdout
    assert is_picture(out / "curves.png")
    result = run_bundle(
        "crossd_3d_segmentation", "--weights_2d", str(out / "model.pt"), "--output_dir", str(tmp_path / "3d"), *SHORT
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert f"from {out / 'model.pt'}" in result.stdout


BAD = {
    "missing data set": (["--dataset_dir", "/nowhere/at/all"], "/nowhere/at/all"),
    "missing 2D weights": (["--weights_2d", "/nowhere/model.pt"], "/nowhere/model.pt"),
    "unknown convolution": (["--conv", "crosd"], "crossd"),
    "unknown modality": (["--modality", "pet"], "mr"),
    "unknown fine-tuning": (["--finetune", "probe"], "linear_probe"),
    "unknown cache": (["--cache", "memory"], "smart"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_wrong_argument_is_named(run_bundle, tmp_path, case):
    arguments, expected = BAD[case]
    result = run_bundle("crossd_3d_segmentation", *arguments, "--output_dir", str(tmp_path / "out"), *SHORT)
    assert result.returncode != 0
    assert expected in result.stdout
    assert not (tmp_path / "out" / "model.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "truncated", "other shape"])
def test_damaged_volume_is_named_before_training(run_bundle, volumes, tmp_path, damage):
    folder = tmp_path / "volumes"
    shutil.copytree(volumes, folder)
    victim = folder / "labelsTr" / "chest_13-24.nii.gz"
    if damage == "missing":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:100])
    else:
        shutil.copy(folder / "labelsTr" / "chest_00-06.nii.gz", victim)
    result = run_bundle("crossd_3d_segmentation", "--dataset_dir", str(folder), "--output_dir", str(tmp_path / "out"))
    assert result.returncode != 0
    assert "chest_13-24" in result.stdout
    assert "train_loss" not in result.stdout


@pytest.mark.slow
def test_weights_of_another_network_are_refused(run_bundle, tmp_path):
    torch.save({"features.conv0.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "densenet.pt")
    result = run_bundle(
        "crossd_3d_segmentation", "--weights_2d", str(tmp_path / "densenet.pt"), "--output_dir", str(tmp_path / "out")
    )
    assert result.returncode != 0
    assert "nothing was loaded" in result.stdout
    assert "features.conv0.weight" in result.stdout
