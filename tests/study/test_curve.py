# SPDX-License-Identifier: Apache-2.0
"""A curve study as a user runs it: both tasks, several processes, killed and gone on with, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from monai_crossd.conv import ACSConv3d, CrossDConv3d
from monai_crossd.demo import prepare_phantoms
from monai_crossd.networks import ResNetUNet, build_resnet
from monai_crossd.study.command import main
from monai_crossd.study.curve import (
    _dice,
    _surface_distance,
    build_network,
    carry,
    crop,
    curve_cells,
    read_curve,
    read_curve_results,
    result_path,
    run_curve,
)

ROOT = Path(__file__).parents[2]
SMALL = {"model_name": "resnet10", "widen_factor": 0.125, "no_max_pool": True}
DECODER = {"decoder_channels": [8, 8, 4, 4, 4]}
NETWORKS = {
    "classification": {
        "_target_": "monai_crossd.networks.build_resnet", "spatial_dims": 3, "conv": "@conv", **SMALL,
        "n_input_channels": "@in_channels", "num_classes": "@num_classes",
    },
    "segmentation": {
        "_target_": "monai_crossd.networks.ResNetUNet", "spatial_dims": 3, "conv": "@conv", **SMALL, **DECODER,
        "in_channels": "@in_channels", "out_channels": "@num_classes",
    },
}  # fmt: skip
STARTS = {
    "scratch": {},
    "plain-i3d": {"weights": "plain", "inflate": "i3d"},
    "plain-acs": {"weights": "plain", "conv": "acs", "rescale": True, "carried_rate": 0.1, "frozen_steps": 1},
    "dynamic": {"weights": "banks", "conv": "crossd"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Phantoms of both tasks, and 2D weights of both kinds."""
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    for name, conv in (("plain", "conv"), ("banks", "crossd")):
        torch.save(build_resnet(**SMALL, conv=conv, num_classes=5).state_dict(), folder / f"{name}.pt")
    for task in NETWORKS:
        prepare_phantoms("us", folder / task, task, 12, (16, 16, 8), val_fraction=0.4)
    return folder


def config(folder, task, **values):
    return {
        "task": task, "name": "phantoms", "modality": "us", "spatial_size": [16, 16, 8],
        "data": str(folder / task / "dataset.json"),
        "source": {"plain": str(folder / "plain.pt"), "banks": str(folder / "banks.pt")}, "network": NETWORKS[task],
        "initializations": STARTS, "train_cases": [3, "all"], "seeds": [0, 1], "compare_with": ["scratch", "plain-*"],
        "iterations": 2, "batch_size": 2, "learning_rate": 0.01, **values,
    }  # fmt: skip


def read(data, task, section):
    return json.loads((data / task / "dataset.json").read_text())[section]


@pytest.mark.slow
@pytest.mark.parametrize("task", NETWORKS)
def test_a_study_by_the_command_and_again(task, data, tmp_path):
    """Every cell, a table, differences and a figure; a second call computes nothing; another seed comes on top."""
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(config(data, task, data=None)))
    where = str(data / task / "dataset.json")
    arguments = [str(file), "--output_dir", str(out), "--data", where, "--device", "cpu", "--seeds", "[0]"]
    main(arguments)
    cells = sorted(out.glob("cells/**/*.json"))
    assert len(cells) == 4 * 2
    results = [json.loads(cell.read_text()) for cell in cells]
    assert {(r["train_cases"], r["volumes"]) for r in results} == {(3, 3), ("all", len(read(data, task, "training")))}
    assert all(set(r["trained_on"]).isdisjoint(r["items"]) for r in results)
    assert len({tuple(r["trained_on"]) for r in results}) == 2  # the same for every initialization
    with (out / "table.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    metric = {"classification": "balanced_accuracy", "segmentation": "dice"}[task]
    assert sum(row["metric"] == metric for row in rows) == 8
    with (out / "comparisons.csv").open() as opened:
        pairs = {(r["initialization"], r["against"]) for r in csv.DictReader(opened)}
    assert pairs == {*((name, "scratch") for name in STARTS if name != "scratch"), ("dynamic", "plain-*")}
    assert (out / "curve.png").stat().st_size > 5000
    report = (out / "report.md").read_text()
    assert "| plain-acs |" in report
    times = {path: path.stat().st_mtime_ns for path in cells}
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (out / "report.md").read_text() == report
    for name in ("report.md", "cells.csv", "curve.png"):
        (out / name).unlink()
    main([str(file), "--output_dir", str(out), "--seeds", "[0]", "--report_only"])  # asks for no data
    assert (out / "report.md").read_text() == report
    with (out / "cells.csv").open() as opened:
        lines = list(csv.DictReader(opened))
    assert [[row[key] for key in ("initialization", "train_cases", "seed")] for row in lines] == [
        [name, count, "0"] for count in ("3", "all") for name in sorted(STARTS)
    ]
    table = {(r["initialization"], r["train_cases"]): float(r["score"]) for r in rows if r["metric"] == metric}
    for row in lines:  # of the one seed
        assert float(row[metric]) == pytest.approx(table[row["initialization"], row["train_cases"]])
    study = read_curve(
        config(data, task, train_cases=[3], seeds=[0, 1], initializations={"scratch": {}}, compare_with=[])
    )
    assert len(run_curve(study, out)) == 2
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_structure_that_is_not_found_has_no_surface_and_a_dice_of_0(data, tmp_path):
    """After two steps at a learning rate of nearly nothing most of it is not found."""
    values = {"initializations": {"scratch": {}}, "compare_with": [], "train_cases": [3], "seeds": [0]}
    (result,) = run_curve(read_curve(config(data, "segmentation", **values, learning_rate=1e-6)), tmp_path)
    pairs = [
        pair
        for rows in zip(result["dice"], result["surface_distance"], strict=True)
        for pair in zip(*rows, strict=True)
    ]
    assert all(surface is None for dice, surface in pairs if dice is None)
    assert all(dice == 0 or surface is not None for dice, surface in pairs if dice is not None)


@pytest.mark.parametrize(("axis", "spacing"), [(0, (1.0, 1.0, 1.0)), (1, (1.0, 2.5, 1.0)), (2, (0.5, 1.0, 4.0))])
def test_scores_of_a_box_that_is_found_a_voxel_aside(axis, spacing):
    """Dice counted; the distance of every voxel of each surface to the other surface, searched one by one."""
    truth, found = torch.zeros(2, 12, 12, 12, dtype=torch.bool)
    truth[3:8, 3:8, 3:8] = True
    found[3:8, 3:8, 3:8] = True
    found = found.roll(1, axis)
    assert _dice(found, truth) == pytest.approx(2 * 4 * 25 / (2 * 125))

    def surface(box):
        inner = torch.zeros_like(box)
        low, high = box.nonzero().min(0).values + 1, box.nonzero().max(0).values
        inner[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = True
        return (box & ~inner).nonzero() * torch.tensor(spacing)

    between = torch.cdist(surface(found), surface(truth))
    nearest = torch.cat([between.min(0).values, between.min(1).values])
    assert _surface_distance(found, truth, spacing) == pytest.approx(nearest.mean().item(), rel=1e-5)
    nothing = torch.zeros_like(truth)
    assert (_dice(nothing, truth), _surface_distance(nothing, truth, spacing)) == (0, None)
    assert (_dice(found, nothing), _surface_distance(found, nothing, spacing)) == (None, None)


@pytest.mark.slow
def test_processes_share_the_cells_and_give_what_one_gives(data, tmp_path):
    values = {"train_cases": [3], "seeds": [0, 1], "compare_with": ["scratch"]}
    values["initializations"] = {name: STARTS[name] for name in ("scratch", "plain-i3d")}
    study = read_curve(config(data, "classification", **values))
    one, two = (run_curve(study, tmp_path / str(n), n, threads=1) for n in (1, 2))
    for result in (*one, *two):
        del result["seconds"]
    assert one == two


def test_a_cell_that_another_process_runs_is_left_to_it(data, tmp_path):
    values = {"train_cases": [3], "seeds": [0, 1], "initializations": {"scratch": {}}, "compare_with": []}
    study = read_curve(config(data, "classification", **values))
    first = result_path(tmp_path, curve_cells(study)[0])
    first.parent.mkdir(parents=True)
    with FileLock(first.with_suffix(".lock")):
        assert [r["seed"] for r in run_curve(study, tmp_path)] == [1]
    assert not first.exists()
    assert len(run_curve(study, tmp_path)) == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "4"}, (1, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
    ],
    ids=str,
)
def test_the_place_among_processes(environment, expected, monkeypatch):
    from monai_crossd.study.runner import _place

    for name in ("RANK", "WORLD_SIZE", *(n for n in os.environ if n.startswith("SLURM"))):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _place() == expected


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(data, tmp_path):
    values = config(data, "classification", train_cases=[3], seeds=[0, 1, 2])
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "monai_crossd.evaluate_transfer", str(file), "--output_dir", str(out)]
    run = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while len(done := list(out.glob("cells/**/*.json"))) < 3:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    times = {path: path.stat().st_mtime_ns for path in done}
    study = read_curve(values)
    results, fresh = run_curve(study, out), run_curve(study, tmp_path / "fresh")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for result in (*results, *fresh):
        del result["seconds"]
    assert results == fresh
    assert len(fresh) == len(curve_cells(study))


def loaded(conv, made):
    """A 2D network of the segmentation's sizes, and the keys that it has in common with one of other classes."""
    torch.manual_seed(1)
    if made == "classifier":
        return build_resnet(**SMALL, conv=conv, num_classes=5).state_dict()
    state = ResNetUNet(2, 1, 7, conv=conv, **SMALL, **DECODER).state_dict()
    if made == "U-Net":
        return state
    return {key: value for key, value in state.items() if key.startswith("encoder.")}


@pytest.mark.parametrize("made", ["classifier", "U-Net", "encoder of a U-Net"])
@pytest.mark.parametrize(
    ("conv", "conv3d"), [("conv", "conv"), ("conv", "acs"), ("crossd", "conv"), ("crossd", "crossd")]
)
def test_2d_weights_fill_what_they_are_of(made, conv, conv3d, data, tmp_path):
    """A classifier the encoder of a U-Net; a U-Net the decoder too, but its head, whose classes are others."""
    state = loaded(conv, made)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "2d.pt")
    study = read_curve(config(data, "segmentation", source={"plain": str(tmp_path / "2d.pt"), "banks": ""}))
    start = study.initializations["plain-i3d"]._replace(conv=conv3d)
    network = build_network(study, start, 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    keys, _ = carry(network, study, start)
    after = network.state_dict()
    assert keys == {key for key in after if key.startswith(("encoder.", "decoder.") if made == "U-Net" else "encoder.")}
    assert all(torch.equal(before[key], after[key]) for key in after if key not in keys)
    norm = next(key for key in keys if key.startswith("decoder." if made == "U-Net" else "encoder.") and "weight" in key
                and after[key].dim() == 1)  # fmt: skip
    assert torch.equal(after[norm], state[norm.removeprefix("encoder.") if made == "classifier" else norm])
    if (conv, conv3d) == ("conv", "conv"):
        name = "decoder.0.conv_0.conv.weight" if made == "U-Net" else "encoder.conv1.weight"
        kernel = state[name.removeprefix("encoder.") if made == "classifier" else name]
        depth = after[name].shape[-1]
        assert torch.allclose(after[name], kernel[..., None].expand(*kernel.shape, depth) / depth)


@pytest.mark.parametrize(("conv", "kind"), [("acs", ACSConv3d), ("crossd", CrossDConv3d), ("conv", torch.nn.Conv3d)])
@pytest.mark.parametrize("network", ["of the package", "of MONAI"])
def test_a_network_is_built_with_the_convolution_of_the_initialization(conv, kind, network, data):
    values = config(data, "classification")
    if network == "of MONAI":
        values["network"] = {
            "_target_": "monai.networks.nets.resnet10", "spatial_dims": 3, "n_input_channels": "@in_channels",
            "num_classes": "@num_classes", "widen_factor": 0.125,
        }  # fmt: skip
    study = read_curve(values)
    net = build_network(study, study.initializations["plain-i3d"]._replace(conv=conv), 4)
    assert type(net.layer1[0].conv1) is kind
    assert net.fc.out_features == 4


def test_entries_of_an_initialization_come_over_those_of_the_network(data):
    starts = {"scratch": {"conv": "crossd", "network": {"conv_options": {"mode": "static"}}}}
    study = read_curve(config(data, "classification", initializations=starts, compare_with=[]))
    assert build_network(study, study.initializations["scratch"], 2).conv1.mode == "static"


def test_2d_weights_of_another_network_are_refused(data, tmp_path):
    torch.save(build_resnet("resnet18", "conv", widen_factor=0.25).state_dict(), tmp_path / "other.pt")
    source = {"plain": str(tmp_path / "other.pt"), "banks": ""}
    starts = {"plain-i3d": STARTS["plain-i3d"]}
    study = read_curve(config(data, "classification", source=source, initializations=starts, compare_with=[]))
    with pytest.raises(RuntimeError, match=r"4 cells failed \(3/plain-i3d-seed0; .*mend the cause") as error:
        run_curve(study, tmp_path / "out")
    assert "conv1.weight" in str(error.value)
    assert not read_curve_results(study, tmp_path / "out")


def test_cells_of_other_settings_are_not_mixed(data, tmp_path):
    values = {
        "initializations": {"plain-i3d": STARTS["plain-i3d"]},
        "compare_with": [],
        "train_cases": [3],
        "seeds": [0],
    }
    weights = tmp_path / "plain.pt"
    weights.write_bytes((data / "plain.pt").read_bytes())
    values["source"] = {"plain": str(weights)}
    run_curve(read_curve(config(data, "classification", **values)), tmp_path)
    with pytest.raises(ValueError, match="holds cells with iterations 2, and it is 3 now: name another output_dir"):
        run_curve(read_curve(config(data, "classification", **values, iterations=3)), tmp_path)
    kept = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(kept | {"initialisation plain-i3d": {}}))  # of version 0.1
    with pytest.raises(ValueError, match=r"holds cells with initialisation plain-i3d .*, and it is None now"):
        run_curve(read_curve(config(data, "classification", **values)), tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(kept))
    torch.save(build_resnet(**SMALL, conv="conv", num_classes=5).state_dict(), weights)
    with pytest.raises(ValueError, match=r"holds cells with initialization plain-i3d .*sha256"):
        run_curve(read_curve(config(data, "classification", **values)), tmp_path)


def test_a_crop_is_a_block_of_image_and_label_map_alike():
    label = torch.arange(5 * 6 * 7).view(5, 6, 7)
    generator = torch.Generator().manual_seed(0)
    places = set()
    for _ in range(8):
        images, labels = crop([label[None] * 2.0] * 3, [label] * 3, (2, 6, 3), generator)
        assert images.shape == (3, 1, 2, 6, 3)
        assert torch.equal(images[:, 0], labels * 2.0)
        for block in labels:
            at = divmod(int(block[0, 0, 0]), 42)[0], int(block[0, 0, 0]) % 7
            assert torch.equal(block, label[at[0] : at[0] + 2, :, at[1] : at[1] + 3])
            places.add(at)
    assert len(places) > 8


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"task": "detection"}, "detection"),
        ({"epochs": 3}, "the study has the key 'epochs'"),
        ({"metric": "dice"}, "dice"),
        ({"train_cases": [2, 2]}, r"train_cases are \[2, 2\]"),
        ({"train_cases": [0]}, "an entry of train_cases is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"spatial_size": [16, 16]}, r"spatial_size is \[16, 16\]"),
        ({"network": {"spatial_dims": 3}}, "with _target_"),
        ({"initializations": {}}, r"initializations is \{\}"),
        ({"initializations": {"a": {"weights": "plane"}}}, "no weights 'plane' in source"),
        ({"initializations": {"a": {"conv": "i3d"}}}, "i3d"),
        ({"initializations": {"a": {"inflate": "i3"}}}, "i3d"),
        ({"initializations": {"a": {"method": "i3d"}}}, "initialization a has the key 'method'"),
        ({"initializations": {"a": {"inflate": "i3d"}}}, "initialization a has no weights, and inflate"),
        ({"initializations": {"a": {"rate": 1}}}, "initialization a has the key 'rate'"),
        ({"initializations": {"a": {"frozen_steps": 1}}}, "initialization a has no weights"),
        (
            {"initializations": {"a": {**STARTS["plain-i3d"], "frozen_steps": 2}}},
            "frozen_steps of a is 2; expected fewer",
        ),
        ({"initializations": {"a": {**STARTS["plain-i3d"], "carried_rate": -1}}}, "carried_rate of a is -1"),
        (
            {"initializations": {"a": {**STARTS["plain-i3d"], "rescale": 1}}},
            "rescale of a is 1; expected true or false",
        ),
        ({"initializations": {"a": {"rescale": True}}}, "initialization a has no weights, and rescale"),
        ({"initializations": {"a/b": {}}}, "without /"),
        ({"compare_with": ["conv2d-*"]}, r"compare_with has 'conv2d-\*', which no initialization fits"),
        ({"figure": ["scratch", "acs"]}, "figure has 'acs', which no initialization fits"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_study_is_named_before_it_runs(values, says, data):
    with pytest.raises(ValueError, match=says):
        read_curve({**config(data, "classification"), **values})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data": None}, "data is not given: add --data"),
        ({"source": {"plain": None, "banks": None}}, "source has no file for 'plain': add --source::plain FILE"),
    ],
    ids=str,
)
def test_where_data_and_weights_lie_is_asked_for_before_a_study_runs(values, says, data, tmp_path):
    study = read_curve({**config(data, "classification"), **values})
    with pytest.raises(ValueError, match=says):
        run_curve(study, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["crossd_3d_classification/configs/vesselmnist3d", "crossd_3d_segmentation/configs/hippocampus"]
)
def test_the_studies_of_the_bundles_are_read_and_their_networks_take_the_weights_of_the_2d_bundle(name, tmp_path):
    values = yaml.safe_load((ROOT / "bundles" / f"{name}_study.yaml").read_text())
    light = {"model_name": "resnet18", "widen_factor": 0.25, "no_max_pool": True, "num_classes": 6}
    for source, conv in (("conv2d", "conv"), ("crossd", "crossd")):
        values["source"][source] = str(tmp_path / f"{source}.pt")
        torch.save(build_resnet(conv=conv, **light).state_dict(), values["source"][source])
    for source in values["source"].keys() - {"conv2d", "crossd"}:  # whole U-Nets
        options = values["network"] | {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
        options["conv"] = "crossd" if source.startswith("crossd") else "conv"
        values["source"][source] = str(tmp_path / f"{source}.pt")
        del options["_target_"]
        torch.save(ResNetUNet(**options).state_dict(), values["source"][source])
    study = read_curve({**values, "data": "somewhere"})
    volume = torch.rand(2, 1, *study.spatial_size)
    for start in study.initializations.values():
        network = build_network(study, start, 3)
        if start.weights:
            filled = carry(network, study, start)[0]
            assert len(filled) > 80
            assert ("unet2d" in start.weights) == any("head" in key or "decoder" in key for key in filled)
        assert torch.isfinite(network(volume)).all()
