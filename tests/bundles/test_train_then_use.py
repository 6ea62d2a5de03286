# SPDX-License-Identifier: Apache-2.0
"""Train with options of one's own, then evaluate, predict, export and load without saying them again."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_crossd.training import trained_network
from monai_crossd.transfer import read_checkpoint

BUNDLES = Path(__file__).parents[2] / "bundles"
SEGMENTATION, VOLUMES, IMAGES = "crossd_3d_segmentation", "crossd_3d_classification", "crossd_2d_pretraining"
OPTIONS = {
    IMAGES: {"conv": "conv", "modality": "us", "spatial_size": [16, 16], "in_channels": 3, "batch_size": 4},
    VOLUMES: {"conv": "acs", "modality": "mr", "spatial_size": [16, 16, 8], "pixdim": [1.0, 1.0, 2.0], "batch_size": 4},
    SEGMENTATION: {
        "conv": "acs", "modality": "mr", "roi_size": [16, 16, 8], "pixdim": [1.0, 1.0, 2.0], "iterations_per_epoch": 1,
        "network_def#decoder_channels": [16, 8, 8, 8, 4],
    },
}  # fmt: skip
LABELS = {IMAGES: ["benign", "malignant"], VOLUMES: ["benign", "malignant"], SEGMENTATION: ["background", "liver"]}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def write_data(bundle: str, folder: Path) -> Path:
    """Two classes, six items."""
    rng = np.random.default_rng(0)
    if bundle == SEGMENTATION:
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        training = []
        for i in range(6):
            label = np.zeros((16, 16, 8), np.uint8)
            label[4:10, 4 : 10 + i % 3, 2:6] = 1
            affine = np.diag([-1.0, -1, 2, 1])
            for part, array in (("imagesTr", rng.normal(label * 100, 20).astype(np.float32)), ("labelsTr", label)):
                nib.save(nib.Nifti1Image(array, affine), folder / part / f"case{i}.nii.gz")
            training.append({"image": f"imagesTr/case{i}.nii.gz", "label": f"labelsTr/case{i}.nii.gz"})
        names = dict(enumerate(LABELS[bundle]))
        (folder / "dataset.json").write_text(json.dumps({"labels": names, "training": training}))
        return folder
    for number, name in enumerate(LABELS[bundle]):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            if bundle == IMAGES:
                pixels = rng.normal(60 + 100 * number, 20, (18, 20, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i}.png")
            else:
                array = rng.normal(60 + 100 * number, 20, (16, 16, 8)).astype(np.float32)
                nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 2, 1])), folder / name / f"{i}.nii.gz")
    return folder


@pytest.fixture(scope="module", params=[IMAGES, VOLUMES, SEGMENTATION])
def bundle(request, tmp_path_factory) -> Path:
    """A copy of a bundle in which a training with other options than the shipped weights' has ended."""
    work = tmp_path_factory.mktemp("train_then_use")
    path = work / request.param
    shutil.copytree(BUNDLES / request.param, path, ignore=shutil.ignore_patterns("eval", "*.ts"))
    data = write_data(request.param, work / "data")
    before = listing(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        monai.bundle.run(
            config_file="configs/train.yaml", dataset_dir=str(data), max_epochs=1, **OPTIONS[request.param]
        )
    assert {name: content for name, content in listing(path).items() if not name.startswith("eval/")} == before
    return path


@pytest.fixture(autouse=True)
def _inside(bundle, monkeypatch):
    monkeypatch.chdir(bundle)


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def network(bundle: Path) -> torch.nn.Module:
    net = trained_network(bundle / "eval" / "model.pt", {})
    net.load_state_dict(read_checkpoint(bundle / "eval" / "model.pt"))
    return net.eval()


def example(bundle: Path) -> torch.Tensor:
    options = OPTIONS[bundle.name]
    size = options.get("roi_size") or options["spatial_size"]
    return torch.randn(1, options.get("in_channels", 1), *size, generator=torch.Generator().manual_seed(0))


def test_what_was_trained_is_beside_the_weights(bundle):
    known = json.loads((bundle / "eval" / "model.json").read_text())
    assert known["labels"] == LABELS[bundle.name]
    for name, value in OPTIONS[bundle.name].items():
        place = known
        if name.startswith("network_def#"):
            place, name = known["network_def"], name.partition("#")[2]
        if name in place:
            assert place[name] == value
    assert known["conv"] == OPTIONS[bundle.name]["conv"]
    pred = json.loads((bundle / "eval" / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert list(pred["channel_def"].values()) == LABELS[bundle.name]


def test_evaluation_gives_the_training_s_number(bundle, capsys):
    monai.bundle.run(config_file=["configs/train.yaml", "configs/evaluate.yaml"])
    assert capsys.readouterr().out.count("weights: eval/model.pt (trained here)") == 1
    metric = "val_mean_dice" if bundle.name == SEGMENTATION else "val_balanced_accuracy"
    with (bundle / "eval" / "history.csv").open() as file:
        trained = [float(row[metric]) for row in csv.DictReader(file)]
    with (bundle / "eval" / "metrics.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file) if row["label"] == "overall"}
    row = rows.get(metric) or rows[metric.removeprefix("val_")]
    assert float(row["estimate"]) == pytest.approx(trained[0], abs=1e-6)


def test_predictions_have_the_labels_names(bundle, tmp_path):
    images = bundle.parent / "data" / ("imagesTr" if bundle.name == SEGMENTATION else "")
    monai.bundle.run(config_file="configs/inference.json", dataset_dir=str(images), output_dir=str(tmp_path))
    if bundle.name == SEGMENTATION:
        assert json.loads((tmp_path / "labels.json").read_text()) == {"0": "background", "1": "liver"}
        assert len(list(tmp_path.glob("case*_pred.nii.gz"))) == 6
        assert nib.load(tmp_path / "case0_pred.nii.gz").shape == (16, 16, 8)
        return
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[1:] == ["prediction", *(f"probability/{name}" for name in LABELS[bundle.name])]
    assert len({row["image"] for row in rows}) == 12


def test_exports(bundle, tmp_path):
    options = {"net_id": "network_def", "ckpt_file": "eval/model.pt", "config_file": "configs/inference.json"}
    x = example(bundle)
    with torch.no_grad():
        expected = network(bundle)(x)
        monai.bundle.ckpt_export(filepath=str(tmp_path / "model.ts"), meta_file="eval/metadata.json", **options)
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts").eval()(x), expected, atol=1e-4, rtol=1e-3)
    onnxruntime = pytest.importorskip("onnxruntime")
    monai.bundle.onnx_export(filepath=str(tmp_path / "model.onnx"), meta_file="eval/metadata.json", **options)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("inside", [True, False])
def test_load(bundle, tmp_path, monkeypatch, inside):
    """Of the weights that it is asked for, from any folder."""
    if not inside:
        monkeypatch.chdir(tmp_path)
    options = {"bundle_dir": str(bundle.parent), "workflow_type": "inference", "device": "cpu"}
    net = monai.bundle.load(bundle.name, model_file="eval/model.pt", **options).eval()
    x = example(bundle)
    with torch.no_grad():
        assert torch.equal(net(x), network(bundle)(x))
    shipped = monai.bundle.load(bundle.name, **options)
    state = read_checkpoint(bundle / "models" / "model.pt")
    assert all(torch.equal(value, state[name]) for name, value in shipped.state_dict().items())
    assert shipped.state_dict().keys() == state.keys()


def test_served_by_monai_label(bundle, tmp_path):
    """As docs/monai_label.md has it; MONAI Label loads models/model.pt and reads these parts of the config."""
    served = tmp_path / "served"
    shutil.copytree(bundle, served)
    for name in ("model.pt", "model.json"):
        shutil.copy(bundle / "eval" / name, served / "models")
    shutil.copy(bundle / "eval" / "metadata.json", served / "configs")
    (served / "eval" / "model.json").unlink()  # it is not what counts
    parser = monai.bundle.ConfigParser()
    parser.read_config(served / "configs" / "inference.json")
    parser.config["bundle_root"] = str(served)
    variables = {"__name__": "monailabel.tasks.infer.bundle"}
    exec("def read(parser, key): return parser.get_parsed_content(key)", variables)
    net = variables["read"](parser, "network_def").eval()
    net.load_state_dict(read_checkpoint(served / "models" / "model.pt"))
    x = example(bundle)
    with torch.no_grad():
        assert torch.equal(net(x), network(bundle)(x))
    for key in ("preprocessing", "inferer", "postprocessing"):
        assert variables["read"](parser, key)


CONTRADICTIONS = {
    "conv": ("crossd", r"conv is crossd, but the weights of .*model\.pt were trained with (acs|conv)"),
    "labels": (["a", "b", "c"], r"labels is \['a', 'b', 'c'\], but the weights of .* were trained with"),
    "modality": ("ct", "modality is ct, but the weights of"),
}


@pytest.mark.parametrize("option", CONTRADICTIONS)
def test_contradiction_is_an_error_with_both(bundle, tmp_path, option):
    value, message = CONTRADICTIONS[option]
    data = str(bundle.parent / "data")
    for config in ("configs/inference.json", ["configs/train.yaml", "configs/evaluate.yaml"]):
        with pytest.raises((ValueError, RuntimeError)) as raised:
            monai.bundle.run(
                config_file=config, dataset_dir=data, output_dir=str(tmp_path), ckpt_dir="eval", **{option: value}
            )
        assert re.search(message, str(raised.value) + str(raised.value.__cause__))


def test_weights_of_another_folder(bundle, tmp_path):
    for name in ("model.pt", "model.json"):
        shutil.copy(bundle / "eval" / name, tmp_path)
    images = bundle.parent / "data" / ("imagesTr" if bundle.name == SEGMENTATION else "")
    (bundle / "eval" / "model.pt").rename(bundle / "eval" / "hidden.pt")
    try:
        monai.bundle.run(
            config_file="configs/inference.json", dataset_dir=str(images), output_dir=str(tmp_path / "out"),
            ckpt_dir=str(tmp_path),
        )  # fmt: skip
    finally:
        (bundle / "eval" / "hidden.pt").rename(bundle / "eval" / "model.pt")
    assert list((tmp_path / "out").iterdir())
    with pytest.raises(RuntimeError) as raised:
        monai.bundle.run(config_file="configs/inference.json", ckpt_dir="nowhere", output_dir=str(tmp_path / "out"))
    assert "There is no nowhere/model.pt" in str(raised.value.__cause__)
