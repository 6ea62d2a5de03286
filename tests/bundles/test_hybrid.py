# SPDX-License-Identifier: Apache-2.0
"""The overlay that trains on images and volumes: by one process and two, killed and resumed."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DistributedSampler
from processes import run_module, start_module
from torch.nn.parallel import DistributedDataParallel

from monai_crossd.demo import prepare_phantoms
from monai_crossd.networks import HybridNet
from monai_crossd.training.run_settings import describe
from monai_crossd.transfer import read_checkpoint
from monai_crossd.transforms import ReadClassd

BUNDLE = Path(__file__).parents[2] / "bundles" / "crossd_3d_classification"
SETTINGS = {
    "modality": "us", "spatial_size": [16, 16, 8], "batch_size": 2, "spatial_size_2d": [24, 24], "batch_size_2d": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    options = {"task": "classification", "subjects": 15, "val_fraction": 0.4}
    three = prepare_phantoms("us", folder / "3d", size=(24, 24, 12), file_format="nifti", **options)
    two = prepare_phantoms("us", folder / "2d", size=(24, 24), file_format="png", **options)
    return {"dataset_dir": str(three), "dataset_dir_2d": str(two)}


def parse(*configs: str, **override) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / f"{config}.yaml") for config in configs])
    parser.update({"bundle_root": str(BUNDLE), **SETTINGS, **override})
    return parser


def command(configs: list[str], out: Path, settings: dict) -> list[str]:
    files = str([f"configs/{config}.yaml" for config in configs])
    values = {"output_dir": out, "ckpt_dir": out, **SETTINGS, **settings}
    if "hybrid" not in configs:  # which has no such option
        values = {name: value for name, value in values.items() if not name.endswith("_2d")}
    return [
        "monai.bundle", "run", "--config_file", files,
        *(word for name, value in values.items() for word in (f"--{name}", str(value))),
    ]  # fmt: skip


def run(configs: list[str], out: Path, settings: dict, processes: int = 1) -> str:
    words = command(configs, out, settings)
    if processes == 1:
        done = run_module(*words, folder=BUNDLE, apart=True)
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        done = subprocess.run(
            [*launcher, "-m", *words], cwd=BUNDLE, capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("conv", ["crossd", "acs", "soft_acs", "mean_acs", "planar", "plane_cycle"])
def test_2d_form_follows_the_3d_one(conv, tmp_path, data):
    parser = parse("train", "hybrid", "resnet18", conv=conv, output_dir=str(tmp_path), **data)
    parser.update({"network_def#widen_factor": 0.125})
    net = parser.get_parsed_content("hybrid")
    assert isinstance(net, HybridNet)
    assert net.net3d is parser.get_parsed_content("network_def")
    assert set(net.apart.values()) <= {"a norm", "separate", "3D only"}
    assert [key for key, why in net.apart.items() if why == "3D only" and not key.endswith(".view_weight")] == []
    assert [tuple(out.shape) for out in net([torch.randn(2, 1, 24, 24), torch.randn(2, 1, 16, 16, 8)])] == [(2, 3)] * 2


def test_convolutions_with_kernels_of_their_own_in_3d_are_refused(tmp_path, data):
    parser = parse("train", "hybrid", conv="conv", output_dir=str(tmp_path), **data)
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("hybrid")
    assert "have no weight to share" in str(raised.value.__cause__)


def test_starts_as_the_2d_weights_do(tmp_path, data):
    """Everything but the heads: what the 3D network takes from the file, the norms in 2D too."""
    parser = parse("train", "hybrid", output_dir=str(tmp_path), **data)
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run#0")
    net, start = parser.get_parsed_content("hybrid"), read_checkpoint(BUNDLE / "models" / "model_2d.pth")
    for form in (net.net2d, net.net3d):
        state = {key: value for key, value in form.state_dict().items() if not key.startswith("fc.")}
        torch.testing.assert_close(state, {key: start[key] for key in state}, rtol=0, atol=0)
    parser.get_parsed_content("finalize")


def test_several_processes_train_one_network_on_parts_of_the_images(tmp_path, data):
    """Both follow from there being a process group, which multi_gpu_train.yaml makes first."""
    parser = parse("train", "hybrid", "multi_gpu_train", output_dir=str(tmp_path), schedule="alternate", **data)
    assert "init_process_group" in parser["initialize"][0]
    idist.initialize("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        trainer = parser.get_parsed_content("train#trainer")
        assert isinstance(trainer.network, DistributedDataParallel)
        assert isinstance(trainer.network.module, HybridNet)
        assert trainer.network.find_unused_parameters
        assert isinstance(trainer.data_loader_2d.sampler, DistributedSampler)
        validated = parser.get_parsed_content("validate#evaluator").network.module
        assert validated is trainer.network.module.net3d
    finally:
        idist.finalize()


def test_skipped_images_are_reported_too():
    handlers = parse("train", "hybrid")["train"]["handlers"]
    reports = [handler["datasets"] for handler in handlers if handler["_target_"].endswith(".SkippedReport")]
    assert reports == [["@train#dataset", "@validate#dataset"], ["@train_2d#dataset"]]


def test_images_go_the_way_of_the_pretraining_bundle(tmp_path, data):
    """Norms and shifts see the intensities that the 2D weights were trained on."""
    found = parse("train", "hybrid", output_dir=str(tmp_path), **data).get_parsed_content("train_2d#preprocessing")
    bundle = ConfigParser()
    bundle.read_config(str(BUNDLE.parent / "crossd_2d_pretraining" / "configs" / "train.yaml"))
    bundle.update(
        {"modality": "us", "spatial_size": SETTINGS["spatial_size_2d"], "dataset_dir": data["dataset_dir_2d"]}
    )
    expected = bundle.get_parsed_content("train#preprocessing").transforms
    assert describe(found.transforms) == describe([t for t in expected if not isinstance(t, ReadClassd)])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
def test_two_processes_train_what_evaluate_and_inference_load(tmp_path, data, schedule):
    out, settings = tmp_path / "two", {**data, "max_epochs": 2, "schedule": schedule}
    printed = run(["train", "hybrid", "multi_gpu_train"], out, settings, 2)
    assert printed.count("epoch 1/2") == printed.count("epoch 2/2") == 1  # one process speaks
    rows = table(out / "history.csv")
    assert len(rows) == 2
    parse("train", output_dir=str(out), **data).get_parsed_content("network_def").load_state_dict(
        read_checkpoint(out / "model.pt")
    )
    settings = {"dataset_dir": data["dataset_dir"], "weights": out / "model.pt"}
    run(["train", "evaluate"], tmp_path / "scores", settings)
    best = max(float(row["val_balanced_accuracy"]) for row in rows)
    scores = {row["metric"]: float(row["estimate"]) for row in table(tmp_path / "scores" / "metrics.csv")}
    assert any(score == pytest.approx(best, abs=1e-4) for score in scores.values()), scores
    volumes = sorted(Path(data["dataset_dir"]).parent.rglob("*.nii.gz"))
    done = run_module(
        "monai.bundle", "run", "--config_file", "configs/inference.json", "--weights", str(out / "model.pt"),
        "--dataset_dir", str(volumes[0].parent), "--output_dir", str(tmp_path / "said"), folder=BUNDLE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    said = table(tmp_path / "said" / "predictions.csv")
    assert len(said) == len(list(volumes[0].parent.glob("*.nii.gz")))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["mixed", "alternate"])
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(tmp_path, data, schedule):
    """SIGKILL after the first epoch's checkpoint, somewhere in an epoch after it."""
    settings, configs = {**data, "max_epochs": 4, "schedule": schedule}, ["train", "hybrid"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    run(configs, whole, settings)
    process = start_module(*command(configs, out, settings), folder=BUNDLE)
    while not (out / "last.pt").is_file():
        assert process.is_alive(), "ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.join()
    reached = read_last(out)["epoch"]
    assert 1 <= reached < 4
    printed = run(configs, out, {**settings, "resume": True})
    assert f"epoch {reached}/4" not in printed
    assert "epoch 4/4" in printed
    for name in ("network", "optimizer"):
        torch.testing.assert_close(read_last(out)[name], read_last(whole)[name], rtol=0, atol=0)
    torch.testing.assert_close(read_checkpoint(out / "model.pt"), read_checkpoint(whole / "model.pt"), rtol=0, atol=0)
    assert table(out / "history.csv") == table(whole / "history.csv")


def read_last(folder: Path) -> dict:
    state: dict = torch.load(folder / "last.pt", weights_only=True)
    return state
