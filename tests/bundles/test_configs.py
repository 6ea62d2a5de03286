# SPDX-License-Identifier: Apache-2.0
"""What every bundle must have, read from its files."""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from PIL import Image

import monai_crossd
from monai_crossd.conv.factory import CONVOLUTIONS
from monai_crossd.training import start_from, trained_network
from monai_crossd.training.run_settings import describe
from monai_crossd.transfer import read_checkpoint
from monai_crossd.transforms import ReadClassd

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = ["crossd_2d_pretraining", "crossd_3d_classification", "crossd_3d_segmentation"]
SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")  # as MONAI publishes it
read = functools.cache(ConfigParser.load_config_file)  # YAML is slow to read, and each test needs the same files
COMPONENTS = ConfigParser().locator  # MONAI's table of its classes, made once
SHARED: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def _shared(demo_root):
    SHARED["demo_dir"] = SHARED["reading#demo_dir"] = str(demo_root)  # most of what is built asks for labels


def parse(name: str, *configs: str, **override) -> ConfigParser:
    parser = ConfigParser()
    parser.locator = COMPONENTS
    folder = BUNDLES / name / "configs"
    for config in configs:  # as `read_config` joins files
        for key, value in read(str(next(folder.glob(f"{config}.*")))).items():
            merge_kv(parser, key, copy.deepcopy(value))
    shared = {key: value for key, value in SHARED.items() if key in parser}
    parser.update({"bundle_root": str(BUNDLES / name), **shared, **override})
    return parser


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_model_zoo(name):
    for file in (
        "LICENSE",
        "configs/metadata.json",
        "configs/train.yaml",
        "configs/inference.json",
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.pt",
    ):
        assert (BUNDLES / name / file).is_file(), file
    assert (BUNDLES / name / "models" / "model.pt").stat().st_size <= 15 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_the_readme_are_there(name):
    docs = BUNDLES / name / "docs"
    figures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (docs / "README.md").read_text())
    assert figures
    for figure in figures:
        with Image.open(docs / figure) as image:
            image.verify()


@pytest.mark.parametrize("name", NAMES)
def test_metadata_fit_the_schema(name):
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]
    (image,) = metadata["network_data_format"]["inputs"].values()
    assert image["modality"] == "CT"
    assert image["modality"] in metadata["name"]  # the zoo shows names: of what data, for which task
    inference = parse(name, "inference", weights=str(BUNDLES / name / "models" / "model.pt"))
    assert inference.get_parsed_content("modality") == image["modality"].lower()


@pytest.mark.parametrize("name", NAMES)
def test_inference_begins_with_the_keys_of_the_model_zoo(name):
    inference = raw(name, "inference.json")
    keys = ["bundle_root", "image_key", "output_dir", "load_pretrain", "dataset_dir", "device"]
    if name.endswith("segmentation"):
        keys += ["output_ext", "output_postfix", "output_dtype"]
    assert set(keys) <= set(list(inference)[: list(inference).index("network_def")])
    used = json.dumps({key: value for key, value in inference.items() if key not in keys})
    for key in keys:
        assert f"@{key}" in used or f"@{key}" in json.dumps(inference["output_dir"]), key


@pytest.mark.parametrize("name", NAMES)
def test_inference_trt_changes_what_tensorrt_needs(name):
    overlay, inference = raw(name, "inference_trt.json"), raw(name, "inference.json")
    assert {key.partition("#")[0] for key in overlay} <= inference.keys()
    assert overlay["imports"] == [*inference["imports"], "$import torch_tensorrt"]
    merged = parse(name, "inference", "inference_trt")
    assert (merged["load_pretrain"], merged["evaluator#amp"]) == (False, False)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_fit_the_network_and_its_metadata(name, tmp_path):
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    network = parse(name, "train", output_dir=str(tmp_path)).get_parsed_content("network_def")
    network.load_state_dict(read_checkpoint(BUNDLES / name / "models" / "model.pt"))
    assert sum(p.numel() for p in network.parameters()) <= 3e6
    image, pred = (metadata["network_data_format"][k][v] for k, v in (("inputs", "image"), ("outputs", "pred")))
    out = network.eval()(torch.zeros(2, image["num_channels"], *image["spatial_shape"]))
    assert list(out.shape) == [2, pred["num_channels"], *pred["spatial_shape"]]
    assert sorted(map(int, pred["channel_def"])) == list(range(pred["num_channels"]))
    torch.jit.script(network).save(str(tmp_path / "model.ts"))


WAYS = [("crossd", "center"), ("acs", "center"), ("conv", "i3d")]  # the others are slow tests
WAYS += [
    pytest.param(conv, inflate, marks=pytest.mark.slow)
    for conv, inflate in [*((conv, "center") for conv in CONVOLUTIONS), ("conv", "center"), ("conv", "bank")]
    if (conv, inflate) not in WAYS
]


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize(("conv", "inflate"), WAYS)
def test_every_way_into_3d_fills_the_whole_encoder(name, conv, inflate, tmp_path):
    network = parse(name, "train", output_dir=str(tmp_path), conv=conv).get_parsed_content("network_def")
    part = "encoder" if hasattr(network, "encoder") else None
    report = start_from(network, BUNDLES / name / "models" / "model_2d.pth", inflate=inflate, part=part)
    assert report is not None
    own = {"fc.bias", "fc.weight"} | {
        key for key in report.initial if key.endswith(".view_weight")
    }  # soft ACS weighs views
    assert not report.conflicts
    assert set(report.initial) <= own, report.summary()
    shift = (".predictor.", ".running_shift")  # a static kernel needs no more of it
    assert {key for key in report.skipped if not any(part in key for part in shift)} == {"fc.bias", "fc.weight"}


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_2d_weights_are_those_of_real_images(name):
    """And what they were trained with beside them: a head of other classes is known by its labels."""
    ours, theirs = BUNDLES / name / "models" / "model_2d", BUNDLES / NAMES[0] / "models" / "real_crossd" / "model"
    assert ours.with_suffix(".pth").read_bytes() == theirs.with_suffix(".pt").read_bytes()
    assert ours.with_suffix(".json").read_bytes() == theirs.with_suffix(".json").read_bytes()


@pytest.mark.parametrize("conv", ["conv", "crossd"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_weights_of_real_images_start_3d_networks(name, conv, tmp_path):
    weights = BUNDLES / NAMES[0] / "models" / f"real_{conv}" / "model.pt"
    assert weights.stat().st_size <= 10e6
    kept = json.loads(weights.with_suffix(".json").read_text())
    assert sum(kept["heads"].values()) == len(kept["labels"]) == kept["network_def"]["num_classes"]
    assert len(kept["modality"]) == len(kept["dataset_dir"]) == len(kept["heads"])
    trained_network(weights, {}).load_state_dict(read_checkpoint(weights))
    network = parse(name, "train", output_dir=str(tmp_path), conv=conv).get_parsed_content("network_def")
    report = start_from(network, weights, inflate="i3d", part="encoder" if hasattr(network, "encoder") else None)
    assert report is not None
    assert not report.conflicts
    assert set(report.initial) <= {"fc.bias", "fc.weight"}, report.summary()


def raw(name: str, config: str) -> dict:
    return copy.deepcopy(read(str(BUNDLES / name / "configs" / config)))


@pytest.mark.parametrize("name", NAMES)
def test_what_must_be_equal_is(name):
    """train.yaml, inference.json and the overlays say the same network, data and steps."""
    train, inference = raw(name, "train.yaml"), raw(name, "inference.json")
    shipped = str(BUNDLES / name / "models" / "model.pt")
    one, two = (parse(name, config, weights=shipped) for config in ("train", "inference"))
    three = parse(name, "train", "evaluate", weights=shipped)
    for key in ("conv", "in_channels", "modality", "spatial_size", "pixdim", "roi_size", "dataset_dir"):
        assert (key in train) == (key in inference), key
        if key in train:
            assert one.get_parsed_content(key) == two.get_parsed_content(key) == three.get_parsed_content(key), key
    for key in ("seed", "reading#nested", "reading#patient_pattern"):
        if key in one:
            assert one.get_parsed_content(key) == three.get_parsed_content(key), key
    window = [config.get_parsed_content("intensity") for config in (one, two, three)]
    assert window == [{"window": [0, 255]} if name == NAMES[0] else {}] * 3
    networks = [config.get_parsed_content("network_def") for config in (one, two)]
    assert str(networks[0]) == str(networks[1])
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    assert train["validate"]["inferer"] == inference["inferer"]
    overlay = raw(name, "multi_gpu_train.yaml")
    assert overlay["initialize"][1:] == train["initialize"]
    evaluate, distributed = raw(name, "evaluate.yaml"), raw(name, "multi_gpu_evaluate.yaml")
    assert distributed["initialize"][1:] == evaluate["initialize"]
    for key in ("device", "validate#sampler", "finalize"):
        assert overlay[key] == distributed[key]
    assert overlay["network"] == {**distributed["network"], "module": train["network"]}
    assert distributed["network"]["module"] == evaluate["network"]


@pytest.mark.parametrize("modality", ["ct", "mr", "us"])
@pytest.mark.parametrize("name", NAMES)
def test_transforms_are_those_of_the_modality(name, modality, tmp_path):
    """Those that `modality_transforms` gives who writes Python, stage by stage; all but the crop and the class."""
    dims = 2 if name == NAMES[0] else 3
    options = {"modality": modality, "output_dir": str(tmp_path), "in_channels": 3}
    if dims == 3:
        options["pixdim"] = [1.0, 2.0, 3.0]
    for config, key, stage in (
        ("train", "train#preprocessing", "train"),
        ("train", "validate#preprocessing", "validate"),
        ("inference", "preprocessing", "infer"),
    ):
        weights = str(BUNDLES / name / "models" / "model.pt")
        parser = parse(name, config, weights=weights, **options)
        window = {"window": [0, 255]} if dims == 2 and modality == "ct" else {}
        segmentation = name == NAMES[2]
        expected = monai_crossd.transforms.modality_transforms(
            modality, dims, stage, label_key="label" if segmentation else None, channels=3, intensity=window,
            pixdim=options.get("pixdim"), num_classes=8 if segmentation else None,
            spatial_size=None if segmentation else parser.get_parsed_content("spatial_size"),
            roi_size=parser.get_parsed_content("roi_size") if segmentation else None,
        )  # fmt: skip
        found = [t for t in parser.get_parsed_content(key).transforms if not isinstance(t, ReadClassd)]
        assert describe(found) == describe(expected.transforms)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("interval", "expected"), [(1, 1), (3, 3), (9, 4)])
def test_a_short_training_is_validated_at_its_end(name, interval, expected, tmp_path):
    """Without a validation there would be no model.pt."""
    parser = parse(name, "train", output_dir=str(tmp_path), max_epochs=4, val_interval=interval)
    found = [at for at, h in enumerate(parser["train"]["handlers"]) if h["_target_"] == "ValidationHandler"]
    assert parser.get_parsed_content(f"train#handlers#{found[0]}#interval") == expected


def test_the_two_classifications_differ_only_where_their_dimension_does():
    two, three = raw(NAMES[0], "train.yaml"), raw(NAMES[1], "train.yaml")
    shifts = [h for h in two["train"]["handlers"] if h["_target_"].endswith(".ShiftHandler")]  # learned in 2D
    two["train"]["handlers"] = [handler for handler in two["train"]["handlers"] if handler not in shifts]
    assert len(shifts) == 1
    # images may be of several data sets
    assert two["train"].pop("loss")["_target_"].endswith(".HeadsLoss")
    three["train"].pop("loss")
    assert two["validate"]["additional_metrics"].pop("val_scores")["_disabled_"] == "$not @heads"
    text = re.sub(r"\$monai_crossd\.training\.by_head\((@[\w#]+), @heads\)", r"\1", json.dumps(two))
    two = json.loads(text.replace("spatial_dims=2", "spatial_dims=3"))
    differ = {"deterministic_transforms", "random_transforms", "preprocessing", "sampler", "dataloader"}
    for key in ("train", "validate"):
        for part in two[key].keys() - differ:
            assert two[key][part] == three[key][part], part


def test_a_cross_d_network_starts_from_a_plain_one_with_its_output(tmp_path):
    options = {"output_dir": str(tmp_path), "labels": ["a", "b"], "device": "cpu"}
    plain = parse(NAMES[0], "train", conv="conv", **options).get_parsed_content("network").eval()
    torch.save(plain.state_dict(), tmp_path / "model.pt")
    parser = parse(NAMES[0], "train", weights_2d=str(tmp_path / "model.pt"), **options)
    parser.get_parsed_content("start")
    images = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        found = parser.get_parsed_content("network").eval()(images)
        torch.testing.assert_close(found, plain(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_resnet18_overlay_is_the_papers(name, tmp_path):
    with torch.device("meta"):  # 33 million weights, of which only the shapes are asked
        network = parse(name, "train", "resnet18", output_dir=str(tmp_path)).get_parsed_content("network_def")
    encoder = getattr(network, "encoder", network)
    assert encoder.conv1.out_channels == 64
    assert encoder.layer4[1].conv2.out_channels == 512


def test_overlay_of_the_comparison_builds_a_network_of_its_own(tmp_path):
    parser = parse("crossd_3d_segmentation", "train", "compare_scratch", output_dir=str(tmp_path))
    first, second = parser.get_parsed_content("network"), parser.get_parsed_content("scratch#network")
    assert type(first) is type(second)
    assert [p.shape for p in first.parameters()] == [p.shape for p in second.parameters()]
    assert not set(first.parameters()) & set(second.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name):
    """What stands before the labels is for the user: a comment beside it or above it."""
    lines = (BUNDLES / name / "configs" / "train.yaml").read_text().splitlines()
    options = [
        (number, line)
        for number, line in enumerate(lines[: next(i for i, line in enumerate(lines) if line.startswith("labels:"))])
        if re.match(r" *[a-z]", line) and not line.startswith("imports:")
    ]
    assert len(options) >= 20
    assert [line for number, line in options if "  # " not in line and not lines[number - 1].startswith("# ")] == []


OVERLAYS = [path for path in sorted(BUNDLES.glob("*/configs/*")) if path.suffix in (".yaml", ".json")]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_nothing_is_named_by_its_place_in_a_list(path):
    assert not re.search(r"#\d|\.get\(", path.read_text())


def test_no_python_in_bundles():
    assert not [path for path in BUNDLES.rglob("*") if path.suffix in (".py", ".ipynb")]
