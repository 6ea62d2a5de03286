# SPDX-License-Identifier: Apache-2.0
"""The overlay of VesselMNIST3D, on a small file of the same layout, and the weights that it made."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from monai_crossd.transfer import read_checkpoint

BUNDLE = Path(__file__).parents[2] / "bundles" / "crossd_3d_classification"
SHIPPED = BUNDLE / "models" / "vesselmnist3d"
COUNTS = {"train": (14, 4), "val": (5, 2), "test": (6, 3)}  # vessels, aneurysms


def shapes(vessels: int, aneurysms: int, size: int) -> np.ndarray:
    """Tubes along the last axis, those at the end with a ball at their side: 0 and 255."""
    x, y, z = np.meshgrid(*[np.arange(size)] * 3, indexing="ij")
    middle, radius = size / 2 - 0.5, size / 10
    volumes = []
    for i in range(vessels + aneurysms):
        inside = (x - middle + i % 3) ** 2 + (y - middle) ** 2 <= radius**2
        if i >= vessels:
            center = (middle - i % 3 + 2.5 * radius, middle, middle)
            inside |= sum((a - c) ** 2 for a, c in zip((x, y, z), center, strict=True)) <= (2.2 * radius) ** 2
        volumes.append(255 * inside)
    return np.stack(volumes).astype(np.uint8)


@pytest.fixture(scope="module")
def vessels(tmp_path_factory) -> Path:
    arrays = {}
    for part, (few, many) in COUNTS.items():
        labels = np.repeat([0, 1], [few, many])[:, None].astype(np.uint8)
        arrays |= {f"{part}_images": shapes(few, many, 12), f"{part}_labels": labels}
    path = tmp_path_factory.mktemp("data") / "vesselmnist3d.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def parse(tmp_path, vessels):
    def parse(*configs: str, **given) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config([str(next((BUNDLE / "configs").glob(f"{name}.*"))) for name in configs])
        given = {"bundle_root": str(BUNDLE), "output_dir": str(tmp_path), "device": torch.device("cpu"), **given}
        parser.update({"dataset_dir": str(vessels), **given})
        return parser

    return parse


SMALL = {"spatial_size": [12, 12, 12], "max_epochs": 1, "batch_size": 6, "network_def#widen_factor": 0.125}


def run(parser: ConfigParser) -> None:
    parser.get_parsed_content("initialize")
    try:
        parser.get_parsed_content("run")
    finally:
        parser.get_parsed_content("finalize")


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_classes_have_their_names_and_are_drawn_alike(parse):
    parser = parse("train", "vesselmnist3d", **SMALL)
    assert parser.get_parsed_content("labels") == {0: "vessel", 1: "aneurysm"}
    items = parser.get_parsed_content("train#dataset#data")
    weights = parser.get_parsed_content("train#sampler").weights
    shares = Counter()
    for item, weight in zip(items, weights.tolist(), strict=True):
        shares[item["label"]] += weight
    assert shares == pytest.approx({0: 0.5, 1: 0.5})
    assert parser.get_parsed_content("train#dataloader").sampler is parser.get_parsed_content("train#sampler")


def test_shapes_keep_their_two_values_and_the_strides_are_those_of_cubes(parse, vessels):
    parser = parse("train", "vesselmnist3d", **SMALL)
    validated = parser.get_parsed_content("validate#dataset")
    with np.load(vessels) as arrays:
        # the file's axes are depth, height, width, an item's channel, width, height, depth
        expected = arrays["val_images"].transpose(0, 3, 2, 1) / 127.5 - 1
    found = np.stack([item["image"][0].numpy() for item in validated])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert parser.get_parsed_content("network").conv1.stride == (2, 2, 2)
    for item in parser.get_parsed_content("train#dataset"):
        assert tuple(item["image"].shape) == (1, 12, 12, 12)
        assert -1 <= item["image"].min() <= item["image"].max() <= 1


def test_the_test_section_is_what_is_evaluated(parse, train_parsed, tmp_path, vessels):
    """By the overlay, without it as the weights know, and another section where it is named."""
    row = train_parsed(parse("train", "vesselmnist3d", weights_2d=None, conv="conv", **SMALL))
    assert 0 <= float(row["val_balanced_accuracy"]) <= 1
    assert (tmp_path / "curves.png").is_file()
    for overlay, given, section in (
        (["vesselmnist3d"], {}, "test"),
        ([], {}, "test"),
        (["vesselmnist3d"], {"section": "validation"}, "val"),
    ):
        out = tmp_path / f"scores_{len(overlay)}_{section}"
        run(parse("train", *overlay, "evaluate", ckpt_dir=str(tmp_path), output_dir=str(out), **given))
        cases = read(out / "metrics_per_case.csv")
        assert [case["case"] for case in cases] == [
            f"{vessels}#{section}_images/{i}" for i in range(sum(COUNTS[section]))
        ]
        labels = [case["label"] for case in cases]
        assert Counter(labels) == dict(zip(("vessel", "aneurysm"), COUNTS[section], strict=True))
        scores = {(s["metric"], s["label"]): float(s["estimate"]) for s in read(out / "metrics.csv")}
        predicted = [case["prediction"] for case in cases]
        assert scores["accuracy", "overall"] == pytest.approx(accuracy_score(labels, predicted))
        assert scores["balanced_accuracy", "overall"] == pytest.approx(balanced_accuracy_score(labels, predicted))
        auc = roc_auc_score(
            [label == "aneurysm" for label in labels], [float(case["probability/aneurysm"]) for case in cases]
        )
        assert scores["auc", "aneurysm"] == pytest.approx(auc)


def test_shipped_weights_tell_a_tube_from_one_with_a_ball(parse, tmp_path, vessels):
    """By inference.json alone: network, classes, size and intensities are those that lie beside the weights."""
    volumes = shapes(3, 3, 28)
    with np.load(vessels) as arrays:
        of_validation = {"val_images": volumes, "val_labels": np.repeat([0, 1], 3)[:, None].astype(np.uint8)}
        np.savez_compressed(tmp_path / "vesselmnist3d.npz", **{**arrays, **of_validation})
    given = {"dataset_dir": str(tmp_path / "vesselmnist3d.npz"), "output_dir": str(tmp_path / "out")}
    run(parse("inference", ckpt_dir=str(SHIPPED), **given))
    rows = read(tmp_path / "out" / "predictions.csv")
    assert rows[0].keys() == {"image", "prediction", "probability/vessel", "probability/aneurysm"}
    found = [float(row["probability/aneurysm"]) for row in rows]
    assert max(found[:3]) < 0.5
    assert max(found[:3]) < min(found[3:])
    for row, probability in zip(rows, found, strict=True):
        assert row["prediction"] == ("aneurysm" if probability > 0.5 else "vessel")


def test_shipped_weights_are_those_of_the_overlay(parse):
    parser = parse("train", "vesselmnist3d", conv="conv")
    trained = json.loads((SHIPPED / "model.json").read_text())
    for name in ("section", "modality", "intensity", "in_channels", "pixdim", "spatial_size", "conv", "seed"):
        assert trained[name] == parser.get_parsed_content(name), name
    assert trained["dataset_dir"] == "vesselmnist3d.npz"
    assert trained["labels"] == ["vessel", "aneurysm"]
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(read_checkpoint(SHIPPED / "model.pt"))
    assert (SHIPPED / "model.pt").stat().st_size <= 10e6
