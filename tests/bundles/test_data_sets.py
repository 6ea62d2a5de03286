# SPDX-License-Identifier: Apache-2.0
"""The 2D bundle with several data sets at once: train, go on, evaluate, predict, export, start a 3D network."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from monai_crossd.networks import ResNetUNet, build_resnet
from monai_crossd.training import start_from, trained_network
from monai_crossd.transfer import read_checkpoint

BUNDLE = Path(__file__).parents[2] / "bundles" / "crossd_2d_pretraining"
SIZES = {"brain": (3, (20, 20)), "breast": (2, (14, 18))}
LABELS = ["brain/class 0", "brain/class 1", "brain/class 2", "breast/class 0", "breast/class 1"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    for name, (classes, size) in SIZES.items():
        arrays = {}
        for part, count in (("train", 24), ("val", 12), ("test", 6)):
            labels = np.arange(count) % classes
            images = rng.normal(50 + 70 * labels[:, None, None], 20, (count, *size)).clip(0, 255)
            arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels[:, None].astype(np.uint8)}
        np.savez(folder / f"{name}.npz", **arrays)
    return [str(folder / f"{name}.npz") for name in SIZES]


@pytest.fixture(scope="module")
def bundle(sources, tmp_path_factory) -> Path:
    """A copy of the bundle in which such a training has ended."""
    path = tmp_path_factory.mktemp("bundle") / BUNDLE.name
    shutil.copytree(BUNDLE, path, ignore=shutil.ignore_patterns("eval", "*.ts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        train(sources)
    return path


@pytest.fixture(autouse=True)
def in_bundle(bundle, monkeypatch):
    monkeypatch.chdir(bundle)


def train(sources: list[str], **options) -> None:
    given = {"modality": ["mr", "us"], "spatial_size": [16, 16], "max_epochs": 2, "batch_size": 8, **options}
    monai.bundle.run(config_file="configs/train.yaml", dataset_dir=sources, **given)


def read(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_history_has_every_score_of_every_data_set(bundle):
    rows = read(bundle / "eval" / "history.csv")
    assert len(rows) == 2
    for row in rows:
        for name in SIZES:
            kinds = ("accuracy", "balanced_accuracy", "macro_recall", "macro_precision", "macro_f1")
            right, balanced, recall, precision, f1 = (float(row[f"val_{kind}/{name}"]) for kind in kinds)
            assert 12 * right == pytest.approx(round(12 * right), abs=1e-4)  # of 12 images, as many of each class
            assert right == pytest.approx(balanced) == pytest.approx(recall)
            assert (f1 > 0) == (precision > 0) == (right > 0)
            assert f1 <= (precision + recall) / 2 + 1e-6  # a harmonic mean of each class
        mean = np.mean([float(row[f"val_balanced_accuracy/{name}"]) for name in SIZES])
        assert float(row["val_balanced_accuracy"]) == pytest.approx(mean)
    kept = json.loads((bundle / "eval" / "model.json").read_text())
    assert kept["heads"] == {"brain": 3, "breast": 2}
    assert (kept["labels"], kept["modality"]) == (LABELS, ["mr", "us"])


def test_a_run_goes_on_as_if_it_had_not_stopped(sources, tmp_path, bundle):
    """Same draws of images and augmentation in the second epoch."""
    train(sources, max_epochs=1, output_dir=str(tmp_path), **{"train#lr_scheduler#epochs": 2})
    train(sources, resume=True, output_dir=str(tmp_path))
    ours, theirs = (torch.load(path / "last.pt", weights_only=True) for path in (tmp_path, bundle / "eval"))
    assert ours["epoch"] == theirs["epoch"] == 2
    assert all(torch.equal(ours["network"][key], value) for key, value in theirs["network"].items())


@pytest.mark.parametrize("section", ["validation", "test"])
def test_evaluation_scores_each_data_set(bundle, sources, section, tmp_path):
    monai.bundle.run(
        config_file=["configs/train.yaml", "configs/evaluate.yaml"],
        output_dir=str(tmp_path),
        ckpt_dir=str(bundle / "eval"),
        section=section,
    )
    cases = read(tmp_path / "metrics_per_case.csv")
    assert len(cases) == {"validation": 24, "test": 12}[section]
    scores = {(row["metric"], row["label"]): float(row["estimate"]) for row in read(tmp_path / "metrics.csv")}
    for name in SIZES:
        of_set = [row for row in cases if row["label"].startswith(f"{name}/")]
        assert all(row["prediction"].startswith(f"{name}/") for row in of_set)  # nothing of another data set
        truth, predicted = ([row[key] for row in of_set] for key in ("label", "prediction"))
        assert scores["balanced_accuracy", name] == pytest.approx(balanced_accuracy_score(truth, predicted))
        assert scores["macro_f1", name] == pytest.approx(f1_score(truth, predicted, average="macro"))


@pytest.mark.parametrize("number", [0, 1])
def test_inference_takes_the_head_that_is_named(bundle, sources, number, tmp_path):
    name = list(SIZES)[number]
    monai.bundle.run(
        config_file="configs/inference.json", dataset_dir=sources[number], head=name, output_dir=str(tmp_path)
    )
    monai.bundle.run(
        config_file=["configs/train.yaml", "configs/evaluate.yaml"],
        ckpt_dir=str(bundle / "eval"),
        output_dir=str(tmp_path / "scores"),
    )
    expected = {row["case"]: row for row in read(tmp_path / "scores" / "metrics_per_case.csv")}
    rows = read(tmp_path / "predictions.csv")
    assert len(rows) == 12
    for row in rows:
        assert f"{name}/{row['prediction']}" == expected[row["image"]]["prediction"]
        for column in (column for column in row if column.startswith("probability/")):
            other = f"probability/{name}/{column.removeprefix('probability/')}"
            assert float(row[column]) == pytest.approx(float(expected[row["image"]][other]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "--head brain or breast"), ({"head": "breasts"}, "breast")],
)
def test_inference_without_a_head_names_them(sources, options, message, tmp_path):
    with pytest.raises(RuntimeError) as info:  # MONAI's, around ours
        monai.bundle.run(
            config_file="configs/inference.json", dataset_dir=sources[0], output_dir=str(tmp_path), **options
        )
    assert re.search(message, str(info.value.__cause__))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": ["mr"]}, r"modality is \['mr'\] for the data sets \['brain', 'breast'\]"),
        ({"intensity": {"window": "lung"}}, "window='lung' is no option of mr, us"),
    ],
)
def test_options_that_do_not_fit_the_data_sets(sources, options, message, tmp_path):
    with pytest.raises(RuntimeError) as info:
        train(sources, output_dir=str(tmp_path), **options)
    assert re.search(message, str(info.value.__cause__))


def test_export_has_all_heads(bundle):
    monai.bundle.ckpt_export(
        "network_def",
        filepath=str(bundle / "model.ts"),
        ckpt_file=str(bundle / "eval" / "model.pt"),
        meta_file=str(bundle / "eval" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
    )
    network = trained_network(bundle / "eval" / "model.pt", {}).eval()
    network.load_state_dict(read_checkpoint(bundle / "eval" / "model.pt"))
    image = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(torch.jit.load(str(bundle / "model.ts"))(image), network(image))
    metadata = json.loads((bundle / "eval" / "metadata.json").read_text())
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == LABELS


def test_3d_networks_start_from_it(bundle):
    weights = bundle / "eval" / "model.pt"
    options = {"widen_factor": 0.25, "no_max_pool": True, "spatial_dims": 3}
    report = start_from(build_resnet(num_classes=7, **options), weights)
    assert report is not None
    assert set(report.initial) == {"fc.weight", "fc.bias"} == set(report.skipped) & {"fc.weight", "fc.bias"}
    unet = ResNetUNet(3, 1, 4, widen_factor=0.25, no_max_pool=True, decoder_channels=(16, 8, 8, 8, 4))
    report = start_from(unet, weights, part="encoder")
    assert report is not None
    assert not report.initial
