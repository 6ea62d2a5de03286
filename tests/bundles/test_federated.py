# SPDX-License-Identifier: Apache-2.0
"""Two clients, two rounds, by MONAI's client algorithm and a server that averages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from monai_crossd.data import prepare_phantoms

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL = {
    "crossd_2d_pretraining": {"spatial_size": [16, 16], "batch_size": 4},
    "crossd_3d_classification": {"spatial_size": [16, 16, 8], "batch_size": 2},
    "crossd_3d_segmentation": {"roi_size": [16, 16, 8], "pixdim": None, "iterations_per_epoch": 1},
}


def client(bundle: str, number: int, folder: Path) -> MonaiAlgo:
    task = "segmentation" if bundle.endswith("segmentation") else "classification"
    size, file_format = ((24, 24), "png") if "2d" in bundle else ((24, 24, 12), "nifti")
    dataset = prepare_phantoms("ct", folder / "set", task, 6, size, file_format=file_format, seed=number)
    options = {
        "bundle_root": str(BUNDLES / bundle),
        "dataset_dir": str(dataset),
        "output_dir": str(folder),
        "ckpt_dir": str(folder),
        "schedule_epochs": 2,
        **SMALL[bundle],
    }
    algo = MonaiAlgo(
        bundle_root=str(BUNDLES / bundle),
        local_epochs=1,
        send_weight_diff=False,
        config_train_filename="configs/train.yaml",
        train_kwargs=dict(options),
        config_evaluate_filename=["configs/train.yaml", "configs/evaluate.yaml"],
        eval_kwargs=dict(options, weights=str(folder / "model.pt")),
        best_model_filepath=str(folder / "model.pt"),
        final_model_filepath=None,
    )
    algo.initialize(extra={ExtraItems.CLIENT_NAME: f"client{number}"})
    return algo


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bundle", SMALL)
def test_two_clients_and_two_rounds(bundle, tmp_path):
    clients = [client(bundle, number, tmp_path / str(number)) for number in range(2)]
    weights = {k: v.clone() for k, v in clients[0].get_weights().weights.items()}
    for _ in range(2):
        local = []
        for algo in clients:
            algo.train(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS))
            local.append({k: torch.as_tensor(v) for k, v in algo.get_weights().weights.items()})
        assert any(not torch.equal(a, b) for a, b in zip(local[0].values(), local[1].values(), strict=True))
        before, weights = weights, {
            key: ((local[0][key].double() + local[1][key].double()) / 2).to(local[0][key].dtype) for key in local[0]
        }  # fmt: skip
        assert any(not torch.equal(torch.as_tensor(before[k]), weights[k]) for k in weights)
    scores = [
        algo.evaluate(ExchangeObject(weights=weights, weight_type=WeightType.WEIGHTS)).metrics for algo in clients
    ]
    assert all(score and all(0 <= float(v) <= 1 for v in score.values() if isinstance(v, float)) for score in scores)
    for algo in clients:
        algo.finalize()
