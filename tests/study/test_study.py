# SPDX-License-Identifier: Apache-2.0
"""A study run as a user does: by a config and a command, in processes, killed and gone on with."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
import yaml
from filelock import FileLock
from torch import nn

from monai_crossd.demo import prepare_phantoms
from monai_crossd.study.command import main
from monai_crossd.study.methods import METHODS, build_2d, initialize
from monai_crossd.study.study import cell_path, list_cells, preset_studies, read_study, run_study

SMALL = {"model_name": "resnet10", "widen_factor": 0.125, "no_max_pool": True}
FLAT = {"dataset": "phantom", "modality": "us", "spatial_size": [16, 16], "phantom": {"subjects": 12, "size": [16, 16]}}
DEEP = {
    "dataset": "phantom", "modality": "us", "spatial_size": [16, 16, 4],
    "phantom": {"subjects": 12, "size": [16, 16, 4], "seed": 1},
}  # fmt: skip
CONFIG = {
    "source": {"name": "2D phantoms", "datasets": [{"name": "images", **FLAT}]},
    "datasets": [{"name": "volumes", "folds": 2, **DEEP}],
    "methods": ["conv2d-i3d", "crossd-dynamic-spread", "crossd-hybrid"],
    "reference": "conv2d-i3d",
    "modes": ["linear_probe", "full"],
    "seeds": [0, 1],
    "network": SMALL,
    "pretraining": {"epochs": 1, "learning_rate": 0.01, "batch_size": 4},
    "finetuning": {"epochs": 1, "learning_rate": 0.01, "batch_size": 4},
}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def _forked(monkeypatch):
    """Processes that are spawned import torch for six seconds each; some tests do without."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: processes.context)


def changed(**values):
    return {**CONFIG, **values}


@pytest.mark.parametrize("method", [name for name, recipe in METHODS.items() if recipe.conv])
def test_every_method_makes_a_network_that_keeps_the_depth(method):
    net2d = build_2d(METHODS[method].pretraining, SMALL, 1, 5)
    net = initialize(net2d, method, 3)
    seen = []
    net.layer4.register_forward_hook(lambda module, args, out: seen.append(out.shape[-1]))
    net(torch.randn(2, 1, 16, 16, 6)).sum().backward()
    assert seen == [6]
    assert net.fc.out_features == 3
    assert net2d.fc.out_features == 5
    if METHODS[method].pretraining is None:  # new weights, not the 2D network's
        kernel = net.conv1.weight.detach()
        assert not torch.equal(kernel[..., 0], kernel[..., 1])


def test_random_weights_are_drawn_as_monai_draws_them():
    torch.manual_seed(0)
    net = initialize(build_2d(None, {"model_name": "resnet10"}, 1, 2), "random", 2)
    for conv in (m for m in net.modules() if isinstance(m, nn.Conv3d) and m.weight.numel() > 1e5):
        fan_out = conv.out_channels * conv.weight[0, 0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)


@pytest.mark.slow
def test_a_study_by_the_command_and_again(tmp_path, caplog):
    """Two processes; a second call computes nothing and reports the same; another seed comes on top."""
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    out = tmp_path / "out"
    arguments = ["--config_file", str(file), "--output_dir", str(out), "--device", "cpu", "--seeds", "[0]"]
    main([*arguments, "--processes", "2"])
    cells = sorted(out.glob("cells/**/*.json"))
    assert len(cells) == (2 * 2 + 1) * 2  # methods and modes, the hybrid in one, by folds
    rows = [json.loads(path.read_text()) for path in cells]
    assert {(row["n_train"], row["n_test"]) for row in rows} == {(6, 6)}
    # of three items of each of two classes, so many are right
    assert all((row["balanced_accuracy"] * 6) == pytest.approx(round(row["balanced_accuracy"] * 6)) for row in rows)
    report = (out / "report.md").read_text()
    with (out / "table.csv").open() as opened:
        table = list(csv.DictReader(opened))
    assert "crossd-hybrid" in report
    assert len(table) == 2 + 3
    assert (out / "plot.png").stat().st_size > 5000
    times = {path: path.stat().st_mtime_ns for path in [*cells, *out.glob("pretrained/*")]}
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (out / "report.md").read_text() == report
    assert "crossd-dynamic-spread" in caplog.text
    study = read_study(changed(seeds=[0, 1]))
    assert len(run_study(study, out)) == 2 * len(cells)
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
def test_one_process_gives_what_two_give(tmp_path):
    study = read_study(changed(seeds=[0], modes=["full"], methods=["conv2d-i3d", "crossd-dynamic-spread"]))
    one, two = (run_study(study, tmp_path / str(n), n) for n in (1, 2))
    for row in (*one, *two):
        del row["seconds"]
    assert one == two


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "monai_crossd.evaluate_transfer", "--config_file", file, "--output_dir", out]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([*map(str, command), "--processes", "2"], env=environment, start_new_session=True)
    while len(done := list(out.glob("cells/**/*.json"))) < 3:
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    for lock in out.glob("**/*.lock"):
        with FileLock(lock, timeout=60):  # its processes are gone too
            pass
    times = {path: path.stat().st_mtime_ns for path in done}
    study = read_study(CONFIG)
    rows = run_study(study, out)
    assert len(rows) == len(list_cells(study))
    assert {path: path.stat().st_mtime_ns for path in times} == times
    fresh = run_study(study, tmp_path / "fresh")
    for row in (*rows, *fresh):
        del row["seconds"]
    assert rows == fresh


@pytest.mark.slow
@pytest.mark.usefixtures("_forked")
def test_cells_of_other_settings_are_not_mixed(tmp_path):
    study = read_study(changed(seeds=[0], methods=["conv2d-i3d"], modes=["linear_probe"]))
    run_study(study, tmp_path)
    other = study._replace(finetuning=study.finetuning._replace(epochs=2))
    with pytest.raises(ValueError, match=r"holds cells with finetuning \[1, .*, and it is \[2, .*name another"):
        run_study(other, tmp_path)
    deeper = study._replace(datasets=[study.datasets[0]._replace(spatial_size=[16, 16, 8])])
    with pytest.raises(ValueError, match="holds cells with dataset volumes"):
        run_study(deeper, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_forked")
def test_a_cell_that_fails_is_named_and_the_others_are_kept(tmp_path):
    short = {"name": "three", "folds": 5, **DEEP}  # 12 subjects of three classes are too few for five folds
    study = read_study(
        changed(datasets=[*CONFIG["datasets"], short], seeds=[0], methods=["conv2d-i3d"], modes=["linear_probe"])
    )
    with pytest.raises(RuntimeError, match=r"5 cells failed \(three/.*mend the cause") as error:
        run_study(study, tmp_path)
    assert "class 0 has 4 patients, fewer than the 5 folds" in str(error.value)
    assert sum(cell_path(tmp_path, cell).exists() for cell in list_cells(study)) == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"methods": ["conv2d-i3"]}, "conv2d-i3d"),
        ({"modes": ["half"]}, "half"),
        ({"reference": "random"}, "random"),
        ({"seeds": [0, 0]}, r"seeds are \[0, 0\]; expected at least one, and none twice"),
        ({"epochs": 3}, "the study has the key 'epochs'"),
        ({"finetuning": {"epochs": 1}}, r"finetuning lacks \['learning_rate', 'batch_size'\]"),
        ({"datasets": []}, r"names of the datasets are \[\]"),
        ({"datasets": [{"name": "x", **FLAT}]}, r"x is 2D \(spatial_size \[16, 16\]\), and the methods"),
        ({"source": {"name": "none"}}, r"a hybrid method learns on"),
        ({"source": {"name": "none"}, "methods": ["conv2d-i3d"]}, r"no weights of \['conv2d'\]"),
        ({"metric": "auc"}, "auc"),
        ({"datasets": [{"name": "x", **DEEP, "modality": "pet"}]}, "pet"),
        ({"datasets": [{"name": "x", **DEEP, "channels": 3}]}, "x has 3 channels and the source 1"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_study_is_named_before_it_runs(values, says):
    with pytest.raises(ValueError, match=says):
        read_study(changed(**values))


@pytest.mark.slow
@pytest.mark.usefixtures("_forked")
def test_a_preset_runs_what_is_there_and_reports_what_is_missing(tmp_path):
    """Volumes in the paper's layout, weights of a file; BUSV lies there as class folders of small volumes."""
    set_ = prepare_phantoms("us", tmp_path / "made", "classification", 8, (16, 16, 8), num_classes=2)
    items = json.loads(set_.read_text())
    for item in [*items["training"], *items["validation"]]:
        target = tmp_path / "data" / "busv" / f"class{item['label']}" / Path(item["image"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(set_.parent / item["image"])
    weights = {}
    for name in ("conv2d", "crossd-paper"):
        weights[name] = str(tmp_path / f"{name}.pt")
        torch.save(build_2d(name, SMALL, 3, 7).state_dict(), weights[name])
    config = {
        "preset": "table2", "data_root": str(tmp_path / "data"), "folds": 2, "seeds": [0], "network": SMALL,
        "source": {"name": "RadImageNet", "weights": weights},
        "pretraining": CONFIG["pretraining"], "finetuning": CONFIG["finetuning"],
    }  # fmt: skip
    groups = preset_studies(config)
    assert [(group.title, group.study is not None, len(group.missing)) for group in groups] == [
        ("Image Datasets", False, 6),
        ("Volumetric Datasets", True, 5),
        ("Other Image Datasets", False, 3),
        ("Other Vol. Datasets", False, 2),
    ]
    study = groups[1].study
    assert (study.metric, study.modes, study.reference) == ("accuracy", ["weak_probe"], "conv2d-acs")
    assert "OrganC is missing" in groups[0].missing[0]
    small = study._replace(datasets=[study.datasets[0]._replace(paper=None, modality="us", spatial_size=[16, 16, 4])])
    rows = run_study(small, tmp_path / "out")
    assert [(row["dataset"], row["method"]) for row in rows] == [("busv", "conv2d-acs"), ("busv", "crossd-bank")] * 2
    with pytest.raises(ValueError, match="table1 of the paper compares 2D networks in pretraining"):
        preset_studies({**config, "preset": "table1"})
