# SPDX-License-Identifier: Apache-2.0
"""The overlay that trains a 2D U-Net on annotated slices or images, and the 3D network that starts from it."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from monai_crossd.training import trained_network
from monai_crossd.transfer import read_checkpoint
from monai_crossd.transforms import intensity_transforms

BUNDLES = Path(__file__).parents[2] / "bundles"
IMAGES, SEGMENTATION = BUNDLES / "crossd_2d_pretraining", BUNDLES / "crossd_3d_segmentation"
LABELS = ["background", "liver", "spleen"]
EVERY = 3
CONFIGS = ["configs/train.yaml", "configs/segmentation.yaml"]
WIDTHS = [16, 8, 8, 8, 4]
OPTIONS = {
    "modality": "mr", "roi_size": [16, 18], "max_epochs": 2, "iterations_per_epoch": 2, "batch_size": 3, "seed": 3,
    "network_def#decoder_channels": WIDTHS,
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")


def write_volumes(folder: Path, codes: str = "LPS") -> Path:
    """Six volumes of 16x18x8; each third slice of the file is annotated, and the others say nonsense."""
    rng = np.random.default_rng(0)
    training = []
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)),
        (16, 18, 8),
    )
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(6):
        truth = np.zeros((16, 18, 8), np.uint8)
        truth[3:8, 4 : 9 + i % 3], truth[9:13, 6:12] = 1, 2
        label = np.where(np.arange(8) % EVERY == 0, truth, 2).astype(np.uint8)
        for part, array in (("imagesTr", rng.normal(truth * 100, 20).astype(np.float32)), ("labelsTr", label)):
            nib.save(nib.Nifti1Image(array, affine), folder / part / f"case{i}.nii.gz")
        training.append({"image": f"imagesTr/case{i}.nii.gz", "label": f"labelsTr/case{i}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"labels": dict(enumerate(LABELS)), "training": training}))
    return folder


def write_images(folder: Path) -> Path:
    """Six pictures with masks of 0 and 255."""
    rng = np.random.default_rng(0)
    lines = ["image,label"]
    folder.mkdir()
    for i in range(6):
        mask = np.zeros((20, 24), np.uint8)
        mask[5 : 12 + i % 3, 8:16] = 255
        for name, array in ((f"{i}.png", rng.normal(60 + mask / 2, 10).clip(0, 255)), (f"{i}_mask.png", mask)):
            Image.fromarray(array.astype(np.uint8)).save(folder / name)
        lines.append(f"{i}.png,{i}_mask.png")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


def parse(bundle: Path, configs: list[str], **override) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(bundle / config) for config in configs])
    parser.update({"bundle_root": str(bundle), "device": torch.device("cpu"), **override})
    return parser


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def causes(error: BaseException | None) -> list[str]:
    return [] if error is None else [str(error), *causes(error.__cause__)]


@pytest.mark.parametrize("codes", ["LPS", "RAI"])  # slices from the feet up, as they are turned to, and from the head
def test_only_annotated_slices_are_seen(codes, tmp_path):
    data = write_volumes(tmp_path / "data", codes)
    parser = parse(IMAGES, CONFIGS, output_dir=str(tmp_path), dataset_dir=str(data), slices_every=EVERY, **OPTIONS)
    item = parser.get_parsed_content("validate#dataset")[0]
    assert item["label"].shape == item["image"].shape == (1, 16, 18, 3)
    assert item["image"].pixdim.tolist() == [1, 1, EVERY]
    for depth in range(3):  # where nonsense would be all 2
        assert torch.equal(item["label"][..., depth], item["label"][..., 0])
        assert set(item["label"][..., depth].unique().tolist()) == {0, 1, 2}
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape == batch["label"].shape == (3, 1, 16, 18)
    assert all(set(label.unique().tolist()) == {0, 1, 2} for label in batch["label"])
    assert parser.get_parsed_content("train#slices") == [8] * len(parser.get_parsed_content("train#dataset").data)


def test_the_2d_network_is_the_form_of_the_3d_one():
    shapes = []
    for bundle, configs in ((IMAGES, CONFIGS), (SEGMENTATION, CONFIGS[:1])):
        network = parse(bundle, configs, conv="crossd", labels=dict(enumerate(LABELS))).get_parsed_content(
            "network_def"
        )
        shapes.append({key: tuple(value.shape) for key, value in network.state_dict().items()})
    assert shapes[0].keys() == shapes[1].keys()
    for key, shape in shapes[0].items():
        assert shapes[1][key][: len(shape)] == shape, key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices_every": -2}, "every is -2; expected a whole number of at least 1"),
        ({"slices_every": "x"}, "every is 'x'; expected a whole number"),
        ({"slices_every": 0}, r"has 3 dimensions.*Save its slices one by one"),
        ({"pixdim": [1.0, 0.0]}, r"pixdim is \[1\.0, 0\.0, -1\.0\]; expected 3 numbers above 0"),
    ],
)
def test_wrong_options(options, message, tmp_path):
    data = write_volumes(tmp_path / "data")
    parser = parse(IMAGES, CONFIGS, output_dir=str(tmp_path), dataset_dir=str(data), **(OPTIONS | options))
    with pytest.raises((ValueError, RuntimeError)) as raised:
        parser.get_parsed_content("validate#dataset")
    assert re.search(message, "\n".join(causes(raised.value)))


@pytest.fixture(scope="module", params=["conv", "crossd"])
def trained(request, tmp_path_factory) -> Path:
    """A copy of the bundle in which a training on slices has ended."""
    work = tmp_path_factory.mktemp("segmentation_2d")
    bundle = work / IMAGES.name
    shutil.copytree(IMAGES, bundle, ignore=shutil.ignore_patterns("eval", "*.ts", "real_*"))
    data = write_volumes(work / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bundle)
        monai.bundle.run(config_file=CONFIGS, dataset_dir=str(data), slices_every=EVERY, conv=request.param, **OPTIONS)
    return bundle


def network_2d(bundle: Path) -> torch.nn.Module:
    weights = bundle / "eval" / "segmentation" / "model.pt"
    net = trained_network(weights, {})
    net.load_state_dict(read_checkpoint(weights))
    return net.eval()


@pytest.mark.slow
def test_it_trains_and_is_used(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    out = trained / "eval" / "segmentation"
    assert {"model.pt", "model.json", "history.csv", "curves.png"} <= {path.name for path in out.iterdir()}
    assert list(out.glob("*_overlay.png"))
    known = json.loads((out / "model.json").read_text())
    assert (known["labels"], known["slices_every"], known["roi_size"]) == (LABELS, EVERY, [16, 18])
    history = rows(out / "history.csv")
    assert {"val_mean_dice", *(f"val_mean_dice/{name}" for name in LABELS[1:])} <= history[0].keys()
    pred = json.loads((out / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert (pred["format"], pred["spatial_shape"]) == ("segmentation", [16, 18])

    monai.bundle.run(config_file=[*CONFIGS, "configs/segmentation_evaluate.yaml"])
    scores = {row["label"]: float(row["estimate"]) for row in rows(out / "metrics.csv")}
    best = max(float(row["val_mean_dice"]) for row in history)
    assert scores["overall"] == pytest.approx(best, abs=1e-6)
    assert set(scores) == {"overall", *LABELS[1:]}

    images = trained.parent / "data" / "imagesTr"
    monai.bundle.run(
        config_file="configs/segmentation_inference.json", dataset_dir=str(images), output_dir=str(tmp_path)
    )
    found = nib.load(tmp_path / "case2_pred.nii.gz")
    image = nib.load(images / "case2.nii.gz")
    assert found.shape == image.shape  # every slice, annotated or not
    voxels = torch.from_numpy(image.get_fdata(dtype=np.float32))[None]
    scaled = Compose(intensity_transforms("mr"))({"image": MetaTensor(voxels)})["image"]
    with torch.no_grad():  # turned to RAS and back
        labels = network_2d(trained)(scaled.as_tensor().flip(1, 2).movedim(-1, 0)).argmax(1).flip(1, 2)
    np.testing.assert_array_equal(found.get_fdata(), labels.movedim(0, -1).numpy())
    np.testing.assert_allclose(found.affine, image.affine)
    assert json.loads((tmp_path / "labels.json").read_text()) == {str(i): name for i, name in enumerate(LABELS)}

    parser = parse(trained, ["configs/inference.json"], ckpt_dir=str(out))  # the classifier's config
    with pytest.raises((ValueError, RuntimeError)) as raised:
        parser.get_parsed_content("network_def")
    assert "those of a monai_crossd.networks.ResNetUNet" in "".join(causes(raised.value))


@pytest.mark.slow
def test_export(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    monai.bundle.ckpt_export(
        net_id="network_def", filepath=str(tmp_path / "model.ts"), ckpt_file="eval/segmentation/model.pt",
        meta_file="eval/segmentation/metadata.json", config_file="configs/segmentation_inference.json",
    )  # fmt: skip
    x = torch.randn(2, 1, 24, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network_2d(trained)(x)
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts").eval()(x), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_images_with_masks(tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    shutil.copytree(IMAGES, bundle, ignore=shutil.ignore_patterns("eval", "models", "docs"))
    monkeypatch.chdir(bundle)
    data = write_images(tmp_path / "images")
    options = OPTIONS | {"modality": "us"}
    monai.bundle.run(config_file=CONFIGS, dataset_dir=str(data), slices_every=0, conv="conv", **options)
    monai.bundle.run(config_file=[*CONFIGS, "configs/segmentation_evaluate.yaml"])  # knows that they are images
    out = bundle / "eval" / "segmentation"
    assert [row["label"] for row in rows(out / "metrics.csv")] == ["overall", "label 1"]
    assert len(list(out.glob("*_overlay.png"))) == 1
    one = tmp_path / "images" / "3.png"
    monai.bundle.run(
        config_file="configs/segmentation_inference.json", dataset_dir=str(one), output_dir=str(tmp_path / "out"),
        output_ext=".png",
    )  # fmt: skip
    with Image.open(tmp_path / "out" / "3_pred.png") as found:
        assert found.size == (24, 20)
        assert set(np.unique(np.asarray(found))) <= {0, 1}


def start_3d(conv: str, folder: Path, labels: list[str], ours: list[str]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A 2D network with weights in a file, and the 3D bundle's default network after its `start`."""
    torch.manual_seed(0)
    options = {"conv": conv, "modality": "mr", "output_dir": str(folder), "network_def#decoder_channels": WIDTHS}
    two = parse(IMAGES, CONFIGS, labels=dict(enumerate(labels)), **options).get_parsed_content("network_def")
    for _ in range(3):  # norms and shifts are no longer what they were built as
        two(torch.randn(4, 1, 32, 32))
    torch.save(two.state_dict(), folder / "model.pt")
    (folder / "model.json").write_text(json.dumps({"labels": labels}))
    options |= {"labels": dict(enumerate(ours)), "weights_2d": str(folder / "model.pt")}
    parser = parse(SEGMENTATION, CONFIGS[:1], **options)
    three = parser.get_parsed_content("network_def")
    three.initial = {key: value.clone() for key, value in three.state_dict().items()}
    parser.get_parsed_content("start")
    return two.eval(), three.eval()


@pytest.mark.parametrize("conv", ["conv", "crossd"])
def test_a_volume_of_equal_slices_gives_the_2d_output(conv, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    two, three = start_3d(conv, tmp_path, LABELS, ["background", "Liver", "SPLEEN"])  # the same
    x = torch.randn(2, 1, 33, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = two(x), three(x[..., None].repeat(1, 1, 1, 1, 5))
    for depth in range(5):
        torch.testing.assert_close(found[..., depth], expected, atol=1e-4, rtol=1e-4)
    changed = {
        key.partition(".")[0] for key, value in three.state_dict().items() if not value.equal(three.initial[key])
    }
    assert changed == {"encoder", "decoder", "head"}
    assert f"from {tmp_path / 'model.pt'}: " in caplog.text
    assert "100.0%" in caplog.text


@pytest.mark.parametrize("ours", [["background", "tumor", "spleen"], ["background", "liver"]], ids=["others", "fewer"])
def test_a_head_of_other_classes_is_new(ours, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    two, three = start_3d("conv", tmp_path, LABELS, ours)
    for key, value in three.head.state_dict().items():
        assert torch.equal(value, three.initial[f"head.{key}"])
    for key, value in two.decoder.state_dict().items():
        mine = three.decoder.state_dict()[key]
        assert torch.equal(mine if mine.ndim < 5 else mine[..., 1], value), key
    assert f"{tmp_path / 'model.pt'} of other classes: new weights in head.weight, head.bias" in caplog.text
