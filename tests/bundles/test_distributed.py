# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation by torchrun with two processes, and a run that is killed and resumed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import run_module, start_module

from monai_crossd.demo import prepare_phantoms

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL = {
    "crossd_2d_pretraining": ["--spatial_size", "[24,24]", "--batch_size", "4"],
    "crossd_3d_classification": ["--spatial_size", "[16,16,8]", "--batch_size", "2"],
    "crossd_3d_segmentation": ["--roi_size", "[16,16,8]", "--pixdim", "$None", "--iterations_per_epoch", "3"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(params=SMALL)
def job(request, tmp_path):
    """Bundle, and the arguments of a small run on files on disk."""
    bundle = request.param
    task = "segmentation" if bundle.endswith("segmentation") else "classification"
    size, file_format = ((24, 24), "png") if "2d" in bundle else ((24, 24, 12), "nifti")
    dataset = prepare_phantoms("us", tmp_path / "set", task, 15, size, file_format=file_format, val_fraction=0.4)
    return bundle, ["--dataset_dir", str(dataset), "--modality", "us", *SMALL[bundle]]


def command(configs: list[str], out: Path, arguments: list[str]) -> list[str]:
    files = str([f"configs/{config}.yaml" for config in configs])
    return ["monai.bundle", "run", "--config_file", files, "--output_dir", str(out), "--ckpt_dir", str(out), *arguments]


def two_processes(bundle: str, *args) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONFAULTHANDLER": "1"}  # a process that aborts says where
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    return subprocess.run(
        [*launcher, *command(*args)], cwd=BUNDLES / bundle, env=environment, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip


def run(bundle: str, configs: list[str], out: Path, arguments: list[str], processes: int = 1) -> str:
    if processes == 1:
        done = run_module(*command(configs, out, arguments), folder=BUNDLES / bundle, apart=True)
    else:
        done = two_processes(bundle, configs, out, arguments)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_two_processes_train_and_evaluate_as_one(job, tmp_path):
    bundle, arguments = job
    out = tmp_path / "two"
    printed = run(bundle, ["train", "multi_gpu_train"], out, [*arguments, "--max_epochs", "2"], 2)
    assert printed.count("epoch 1/2") == printed.count("epoch 2/2") == 1  # one process speaks
    assert len(table(out / "history.csv")) == 2
    writers = 3 if bundle == "crossd_2d_pretraining" else 2  # trainer and evaluator; in 2D the shifts
    assert len(list(out.glob("events.*"))) == writers  # of one process
    assert not [key for key in torch.load(out / "model.pt", weights_only=True) if key.startswith("module.")]
    weights = ["--weights", str(out / "model.pt")]
    run(bundle, ["train", "evaluate"], tmp_path / "by_one", [*arguments, *weights])
    run(bundle, ["train", "evaluate", "multi_gpu_evaluate"], tmp_path / "by_two", [*arguments, *weights], 2)
    one, two = (table(tmp_path / name / "metrics.csv") for name in ("by_one", "by_two"))
    assert [(row["metric"], row["label"], row["n"]) for row in one] == [
        (row["metric"], row["label"], row["n"]) for row in two
    ]
    for a, b in zip(one, two, strict=True):
        assert float(a["estimate"]) == pytest.approx(float(b["estimate"]), abs=1e-4, nan_ok=True)
    best = max(
        float(row[next(k for k in row if k.startswith("val_") and "/" not in k)]) for row in table(out / "history.csv")
    )
    assert any(float(row["estimate"]) == pytest.approx(best, abs=1e-4) for row in one)


def keep(dataset: Path, training: int, validation: int) -> None:
    """Leaves the first cases of both sections in a list of phantoms."""
    config = json.loads(dataset.read_text())
    config["training"], config["validation"] = config["training"][:training], config["validation"][:validation]
    dataset.write_text(json.dumps(config))


def test_fewer_cases_than_processes_or_than_their_batches_train(job, tmp_path):
    bundle, arguments = job
    keep(Path(arguments[1]), 3 if bundle == "crossd_2d_pretraining" else 1, 2)
    arguments = [value.replace("[16,16,8]", "[32,32,8]") for value in arguments]  # one case has no norm over one voxel
    out = tmp_path / "out"
    printed = run(bundle, ["train", "multi_gpu_train"], out, [*arguments, "--max_epochs", "1"], 2)
    assert printed.count("epoch 1/1") == 1
    assert float(table(out / "history.csv")[0]["train_loss"]) > 0
    assert (out / "model.pt").is_file()


def test_fewer_validation_cases_than_processes_end_both_with_the_numbers(tmp_path):
    bundle = "crossd_2d_pretraining"
    dataset = prepare_phantoms("us", tmp_path / "set", "classification", 6, (24, 24), file_format="png")
    keep(dataset, 3, 1)
    arguments = ["--dataset_dir", str(dataset), "--modality", "us", *SMALL[bundle]]
    done = two_processes(bundle, ["train", "multi_gpu_train"], tmp_path / "out", arguments)
    assert done.returncode != 0
    assert "too few cases, 1 for 2 processes" in done.stderr
    assert not list((tmp_path / "out").glob("*.pt"))


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(job, tmp_path):
    """SIGKILL after the first epoch's checkpoint, somewhere in an epoch after it."""
    bundle, arguments = job
    arguments = [*arguments, "--max_epochs", "4"]
    run(bundle, ["train"], tmp_path / "whole", arguments)
    out = tmp_path / "killed"
    process = start_module(*command(["train"], out, arguments), folder=BUNDLES / bundle)
    while not (out / "last.pt").is_file():
        assert process.is_alive(), "ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.join()
    reached = torch.load(out / "last.pt", weights_only=True)["epoch"]
    assert 1 <= reached < 4
    printed = run(bundle, ["train"], out, [*arguments, "--resume", "True"])
    assert f"epoch {reached}/4" not in printed
    assert "epoch 4/4" in printed
    whole, resumed = (torch.load(folder / "last.pt", weights_only=True) for folder in (tmp_path / "whole", out))
    assert resumed.keys() == whole.keys()
    assert resumed.pop("lr_scheduler") == whole.pop("lr_scheduler")
    assert resumed.pop("classes") == whole.pop("classes")
    assert resumed.pop("settings") == whole.pop("settings")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    best, again = (torch.load(folder / "model.pt", weights_only=True) for folder in (tmp_path / "whole", out))
    torch.testing.assert_close(again, best, rtol=0, atol=0)
    histories = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in table(folder / "history.csv")]
        for folder in (tmp_path / "whole", out)
    ]
    assert histories[0] == histories[1]
