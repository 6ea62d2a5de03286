# SPDX-License-Identifier: Apache-2.0
"""The config of a run beside its result: what the command line changed is in it, and it runs again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import monai
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from processes import run_module

from monai_crossd.training import print_best, save_run_config
from monai_crossd.training.history import write_history

BUNDLES = Path(__file__).parents[2] / "bundles"
BUNDLE = {
    "imports": ["$import monai_crossd"],
    "output_dir": "out",
    "width": 4,
    "net": {"_target_": "torch.nn.Linear", "in_features": "@width", "out_features": 2},
    "twin": "%net",
    "initialize": ["$monai_crossd.training.save_run_config(@output_dir)"],
    "run": ["$print('made', @twin)"],
}


@pytest.fixture
def bundle(tmp_path):
    """A tiny bundle with an overlay and metadata."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text(yaml.safe_dump(BUNDLE, sort_keys=False))
    (tmp_path / "configs" / "overlay.yaml").write_text("net#out_features: 5\n")
    (tmp_path / "configs" / "metadata.json").write_text('{"name": "tiny", "version": "0.3.1"}')
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    done = run_module("monai.bundle", "run", *arguments, folder=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def head(path: Path) -> dict[str, str]:
    lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    return dict(line.split(": ", 1) for line in lines)


def test_files_and_command_line_are_merged_and_run_again(bundle):
    made = "made Linear(in_features=7, out_features=5, bias=True)"
    files = "['configs/train.yaml', 'configs/overlay.yaml']"
    assert made in run(bundle, "--config_file", files, "--width", "7")
    path = bundle / "out" / "config.yaml"
    net = {**BUNDLE["net"], "out_features": 5}
    assert yaml.safe_load(path.read_text()) == {**BUNDLE, "width": 7, "net": net, "twin": net}
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]
    about = head(path)
    assert "-m monai.bundle run" in about["command"]
    assert about["command"].endswith("--width 7")
    assert about["bundle"] == "tiny 0.3.1"
    assert about["MONAI"] == monai.__version__
    assert about["Pytorch"] == torch.__version__
    assert made in run(bundle, "--config_file", "out/config.yaml", "--output_dir", "again")
    first, second = (yaml.safe_load((bundle / name / "config.yaml").read_text()) for name in ("out", "again"))
    assert second == {**first, "output_dir": "again"}


def test_a_program_that_runs_the_bundle(bundle, monkeypatch):
    """As MONAI Label and federated clients do: with values that no YAML can hold."""
    monkeypatch.chdir(bundle)
    workflow = ConfigWorkflow(
        "configs/train.yaml", logging_file=False, width=3, device=torch.device("cpu"), size=(8, 9)
    )
    workflow.initialize()
    values = yaml.safe_load((bundle / "out" / "config.yaml").read_text())
    assert (values["width"], values["device"], values["size"]) == (3, "cpu", [8, 9])


def test_a_config_that_is_given(tmp_path):
    values = {"epochs": 3, "name": "größe", "path": "@output_dir"}
    path = save_run_config(tmp_path / "a" / "b", values, filename="evaluate.yaml")
    assert path == tmp_path / "a" / "b" / "evaluate.yaml"
    assert yaml.safe_load(path.read_text("utf-8")) == values
    save_run_config(tmp_path, ConfigParser(values))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8")) == values


def test_the_commit_of_the_package_stands_in_the_head(tmp_path):
    package = Path(sys.modules["monai_crossd"].__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=package, capture_output=True, text=True)
    if commit.returncode:
        pytest.skip("the package is no git checkout")
    save_run_config(tmp_path, {})
    assert commit.stdout.strip() in head(tmp_path / "config.yaml")["monai_crossd"]


def test_a_package_inside_of_another_checkout_is_not_of_that(tmp_path, monkeypatch):
    module = sys.modules["monai_crossd.training.run_config"]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
        cwd=tmp_path,
        check=True,
    )
    monkeypatch.setattr(module, "__file__", str(tmp_path / "run_config.py"))
    save_run_config(tmp_path, {})
    assert "commit" not in head(tmp_path / "config.yaml")["monai_crossd"]


def test_outside_of_a_bundle(tmp_path):
    with pytest.raises(RuntimeError, match="No bundle is running"):
        save_run_config(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(p.parent.parent.name for p in BUNDLES.glob("*/configs/train.yaml")))
def test_the_config_of_a_real_bundle(tmp_path, name):
    """Without its training: nothing but the config is needed."""
    call = "['$monai_crossd.training.save_run_config(@output_dir)']"
    overrides = ["--output_dir", str(tmp_path), "--max_epochs", "1", "--train#trainer#max_epochs", "2"]
    arguments = [*overrides, "--initialize", call, "--run", "[]", "--finalize", "[]"]
    run(BUNDLES / name, "--config_file", "configs/train.yaml", *arguments)
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    source = yaml.safe_load((BUNDLES / name / "configs" / "train.yaml").read_text())
    assert list(values) == [*source, *(key for key in ("initialize", "run", "finalize") if key not in source)]
    assert (values["max_epochs"], values["train"]["trainer"]["max_epochs"]) == (1, 2)
    assert values["train"]["optimizer"] == source["train"]["optimizer"]


def test_best_epoch_in_one_line(tmp_path, capsys):
    rows = {e: {"train_loss": 1.0, "val_balanced_accuracy": v} for e, v in enumerate((0.5, 0.75, 0.6), 1)}
    write_history(tmp_path / "history.csv", rows)
    print_best(tmp_path, "val_balanced_accuracy", "eval/model.pt")
    assert capsys.readouterr().out == "best validation balanced accuracy 0.750 in epoch 2; weights in eval/model.pt\n"
    with pytest.raises(ValueError, match="no number for 'val_accuracy'"):
        print_best(tmp_path, "val_accuracy", "eval/model.pt")
