# SPDX-License-Identifier: Apache-2.0
"""Two clients, two rounds, by MONAI's client algorithm as NVFlare calls it and a server that averages differences."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo, MonaiAlgoStats
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from monai_crossd.bundles import copy_bundle
from monai_crossd.demo import prepare_phantoms
from monai_crossd.transfer import read_checkpoint

SMALL = {
    "crossd_2d_pretraining": {"spatial_size": [16, 16], "batch_size": 4},
    "crossd_3d_classification": {"spatial_size": [16, 16, 8], "batch_size": 2},
    "crossd_3d_segmentation": {"roi_size": [16, 16, 8], "pixdim": None, "iterations_per_epoch": 2},
}
KEY_METRIC = {
    "crossd_2d_pretraining": "val_balanced_accuracy",
    "crossd_3d_classification": "val_balanced_accuracy",
    "crossd_3d_segmentation": "val_mean_dice",
}
DOCUMENTED = {
    "config_train_filename": ["configs/train.yaml", "configs/federated.yaml"],
    "config_evaluate_filename": ["configs/train.yaml", "configs/evaluate.yaml", "configs/federated.yaml"],
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def make_client(bundle: str, number: int, folder: Path, federated: bool, **options) -> MonaiAlgo:
    """A client in a folder of its own: the bundle in app/, where NVFlare puts it, and its own data."""
    copy_bundle(bundle, folder / "app", federated=federated)
    task = "segmentation" if bundle.endswith("segmentation") else "classification"
    size, file_format = ((24, 24), "png") if "2d" in bundle else ((24, 24, 12), "nifti")
    dataset = prepare_phantoms("ct", folder / "set", task, 6, size, file_format=file_format, seed=number)
    kwargs = {"dataset_dir": str(dataset), **SMALL[bundle]}
    algo = MonaiAlgo(bundle_root=bundle, train_kwargs=dict(kwargs), eval_kwargs=dict(kwargs), **options)
    # the dictionary of NVFlare's ClientAlgoExecutor
    algo.initialize(
        extra={
            ExtraItems.CLIENT_NAME: f"site-{number}",
            ExtraItems.APP_ROOT: str(folder / "app"),
            ExtraItems.STATS_SENDER: None,
            ExtraItems.LOGGING_FILE: False,
        }
    )
    return algo


def to_client(weights: dict[str, np.ndarray]) -> ExchangeObject:
    """As they come off the wire: arrays of the client's own, of no weight type."""
    return ExchangeObject(weights={name: value.copy() for name, value in weights.items()})


def to_server(exchanged: ExchangeObject) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in exchanged.weights.items()}


# of the documented set one bundle is enough: tests/test_bundles.py shows that the files say the same
@pytest.mark.parametrize(
    ("bundle", "options"), [*((bundle, {}) for bundle in SMALL), ("crossd_3d_classification", DOCUMENTED)]
)
def test_two_clients_and_two_rounds(bundle, options, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    clients = [make_client(bundle, n, tmp_path / f"site-{n}", not options, **options) for n in (1, 2)]
    assert not list(elsewhere.iterdir())
    # the server starts from the weights that the bundle would start its own training from
    weights = {name: v.cpu().numpy().copy() for name, v in clients[0].trainer.network.state_dict().items()}
    if bundle != "crossd_2d_pretraining":
        start = read_checkpoint(tmp_path / "site-1" / "app" / bundle / "models" / "model_2d.pth")
        prefix = "encoder." if bundle.endswith("segmentation") else ""
        np.testing.assert_array_equal(weights[f"{prefix}conv1.weight"], start["conv1.weight"])
    for number in (1, 2):
        differences = []
        for algo in clients:
            score = algo.evaluate(to_client(weights)).metrics[KEY_METRIC[bundle]]
            assert 0 <= float(score) <= 1
            algo.train(to_client(weights), extra={})
            exchanged = algo.get_weights()
            assert exchanged.weight_type == WeightType.WEIGHT_DIFF
            assert exchanged.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] > 0
            assert algo.trainer.state.epoch == number
            differences.append(to_server(exchanged))
            local = algo.trainer.network.state_dict()
            assert differences[-1].keys() == local.keys() == weights.keys()
            for name, value in differences[-1].items():
                np.testing.assert_allclose(weights[name] + value, local[name].numpy(), rtol=1e-4, atol=1e-5)
        assert any((a != b).any() for a, b in zip(differences[0].values(), differences[1].values(), strict=True))
        before = weights
        # whole numbers become floats, as on a server that averages
        weights = {name: value + (differences[0][name] + differences[1][name]) / 2 for name, value in before.items()}
        assert any((before[name] != weights[name]).any() for name in weights)
    assert not list(elsewhere.iterdir())
    for number, algo in enumerate(clients, 1):
        best = algo.get_weights(extra={ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        root = tmp_path / f"site-{number}" / "app" / bundle
        torch.testing.assert_close(best, read_checkpoint(root / "models" / "model.pt"), rtol=0, atol=0)
        assert (root / "eval" / "history.csv").is_file()
        algo.finalize()


def test_a_federated_copy_trains_by_itself_too(tmp_path):
    """What MONAI Label and `python -m monai.bundle run` find under the name train.json."""
    bundle = "crossd_3d_classification"
    root = copy_bundle(bundle, tmp_path, federated=True)
    dataset = prepare_phantoms("ct", tmp_path / "set", "classification", 6, (24, 24, 12), file_format="nifti")
    workflow = ConfigWorkflow(
        config_file=str(root / "configs" / "train.json"), workflow_type="train", bundle_root=str(root),
        dataset_dir=str(dataset), max_epochs=1, **SMALL[bundle],
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    assert (root / "eval" / "last.pt").is_file()


def test_statistics_of_a_sites_data(tmp_path):
    """Of the data set in train.json; their numbers are those of the files."""
    root = copy_bundle("crossd_3d_segmentation", tmp_path / "app", federated=True)
    dataset = prepare_phantoms("ct", tmp_path / "set", "segmentation", 6, (24, 24, 12), file_format="nifti")
    train = root / "configs" / "train.json"
    train.write_text(json.dumps(json.loads(train.read_text()) | {"dataset_dir": str(dataset)}))
    algo = MonaiAlgoStats(bundle_root=str(root))
    algo.initialize(extra={ExtraItems.CLIENT_NAME: "site-1", ExtraItems.APP_ROOT: str(tmp_path)})
    options = {FlStatistics.HIST_BINS: 10, FlStatistics.HIST_RANGE: [-1000, 1000]}
    found = algo.get_data_stats(options).statistics
    items = json.loads(dataset.read_text())
    for ours, theirs in (("training", "train"), ("validation", "eval")):
        images = [nib.load(dataset.parent / item["image"]) for item in items[ours]]
        assert found[theirs][FlStatistics.DATA_COUNT] == len(images)
        stats = found[theirs][FlStatistics.DATA_STATS]["image_stats"]
        assert stats["shape"]["max"] == [24, 24, 12]
        highest = [image.get_fdata().max() for image in images]
        assert stats["intensity"]["max"] == pytest.approx(max(highest), rel=1e-5)
