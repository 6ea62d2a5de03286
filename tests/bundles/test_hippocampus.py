# SPDX-License-Identifier: Apache-2.0
"""The overlay of the decathlon's hippocampus, on a folder of the same layout."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import jsonschema
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_crossd.data import load_datalist
from monai_crossd.networks import ResNetUNet

SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")  # as MONAI publishes it
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


STUDY = BUNDLE.parents[1] / "docs" / "studies" / "hippocampus"
SHIPPED = BUNDLE / "models" / "hippocampus"
KNOWN = json.loads((SHIPPED / "model.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def shipped() -> torch.nn.Module:
    arguments = {name: value for name, value in KNOWN["network_def"].items() if name != "network"}
    net = ResNetUNet(**arguments)
    net.load_state_dict(torch.load(SHIPPED / "model.pt", weights_only=True), strict=True)
    return net.eval()


def prediction(net: torch.nn.Module, path: Path) -> np.ndarray:
    """Labels of a volume that is no larger than the window, by numpy and the network alone."""
    image = nib.load(path).get_fdata(dtype=np.float32)
    size = KNOWN["roi_size"]
    before = [(n - k) // 2 for n, k in zip(size, image.shape, strict=True)]
    pads = [(b, n - k - b) for b, n, k in zip(before, size, image.shape, strict=True)]
    image = image.clip(*np.percentile(image, [0.5, 99.5]).astype(np.float32))
    padded = np.pad((image - image.mean()) / image.std(), pads, mode="edge")
    with torch.no_grad():
        labels = net(torch.from_numpy(padded)[None, None]).argmax(1)[0].numpy()
    return labels[tuple(slice(b, b + k) for b, k in zip(before, image.shape, strict=True))]


def test_shipped_weights_are_those_of_the_overlay(parser, task04):
    parser.update({"roi_size": KNOWN["roi_size"]})
    for name in ("modality", "intensity", "in_channels", "pixdim"):
        assert KNOWN[name] == parser.get_parsed_content(name), name
    assert (
        list(parser.get_parsed_content("labels").values()) == KNOWN["labels"] == ["background", "anterior", "posterior"]
    )
    assert KNOWN["conv"] == KNOWN["network_def"]["conv"] == "conv"
    assert not Path(KNOWN["dataset_dir"]).is_absolute()
    assert (SHIPPED / "model.pt").stat().st_size <= 12e6


def test_no_held_out_patient_taught_the_shipped_weights_or_the_slices_they_started_from():
    lists = [BUNDLE / "docs" / "hippocampus_patients.json", *sorted(STUDY.glob("*.json"))]
    assert [path.stem for path in lists] == ["hippocampus_patients", "slices", "volumes"]
    patients, slices, volumes = (
        {part: {item["image"] for item in items} for part, items in json.loads(path.read_text("utf-8")).items()
         if part in ("training", "validation")} for path in lists
    )  # fmt: skip
    assert (len(patients["training"]), len(patients["validation"])) == (150, 50)
    assert not patients["training"] & patients["validation"]
    assert slices["training"] | slices["validation"] | volumes["training"] == patients["training"]
    assert volumes["validation"] == patients["validation"]


def test_metadata_of_the_shipped_weights_fit_the_schema():
    metadata = json.loads((SHIPPED / "metadata.json").read_text("utf-8"))
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text("utf-8")))
    image, pred = (metadata["network_data_format"][k][n] for k, n in (("inputs", "image"), ("outputs", "pred")))
    assert (image["modality"], image["spatial_shape"], pred["spatial_shape"]) == (
        "MR",
        KNOWN["roi_size"],
        KNOWN["roi_size"],
    )
    assert list(pred["channel_def"].values()) == KNOWN["labels"]
    assert "CC BY-SA 4.0" in metadata["license"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_shipped_weights_segment_and_are_scored_by_the_bundle(shipped, task04, tmp_path, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    expected = {path.name: prediction(shipped, path) for path in (task04 / "imagesTr").iterdir()}
    labelled = tmp_path / "data"  # the same images, of which the network is right but for one voxel's step
    shutil.copytree(task04 / "imagesTr", labelled / "imagesTr")
    (labelled / "labelsTr").mkdir()
    for name, labels in expected.items():
        nib.save(nib.Nifti1Image(np.roll(labels, 1, 0).astype(np.uint8), np.eye(4)), labelled / "labelsTr" / name)

    maps = {"dataset_dir": str(labelled / "imagesTr"), "output_dir": str(tmp_path / "maps")}
    monai.bundle.run(config_file="configs/inference.json", ckpt_dir="models/hippocampus", **maps)
    for name, labels in expected.items():
        (path,) = (tmp_path / "maps").rglob(name.replace(".nii.gz", "_pred.nii.gz"))
        assert np.unique(labels).tolist() == [0, 1, 2]
        assert np.mean(nib.load(path).get_fdata() == labels) > 0.999

    files = [f"configs/{name}.yaml" for name in ("train", "hippocampus", "evaluate")]
    scores = {"dataset_dir": str(labelled), "output_dir": str(tmp_path / "scores")}
    monai.bundle.run(config_file=files, ckpt_dir="models/hippocampus", **scores)
    with (tmp_path / "scores" / "metrics_per_case.csv").open() as file:
        rows = {Path(row["case"]).name: row for row in csv.DictReader(file)}
    assert len(rows) == 2
    for name, row in rows.items():
        for number, structure in ((1, "anterior"), (2, "posterior")):
            pred, label = expected[name] == number, np.roll(expected[name], 1, 0) == number
            dice = 2 * np.sum(pred & label) / (np.sum(pred) + np.sum(label))
            assert 0.1 < dice < 0.95
            assert float(row[f"val_mean_dice/{structure}"]) == pytest.approx(dice, abs=0.01)
