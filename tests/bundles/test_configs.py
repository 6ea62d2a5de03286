# SPDX-License-Identifier: Apache-2.0
"""What every bundle must have, read from its files."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser

from monai_crossd.convert import read_checkpoint, transfer_weights

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = ["crossd_2d_pretraining", "crossd_3d_segmentation"]
SCHEMA = BUNDLES.parents[1] / "shared" / "data" / "meta_schema_20240725.json"


def parse(name: str, *configs: str, **override) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / name / "configs" / f"{config}.yaml") for config in configs])
    parser.update({"bundle_root": str(BUNDLES / name), **override})
    return parser


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_model_zoo(name):
    for file in ("LICENSE", "configs/metadata.json", "configs/train.yaml", "docs/README.md", "models/model.pt"):
        assert (BUNDLES / name / file).is_file(), file
    assert (BUNDLES / name / "models" / "model.pt").stat().st_size <= 15 * 2**20


@pytest.mark.skipif(not SCHEMA.is_file(), reason="MONAI's metadata schema is not at hand")
@pytest.mark.parametrize("name", NAMES)
def test_metadata_fit_the_schema(name):
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]


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


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_give_the_published_metric(name, tmp_path):
    """Validation of models/model.pt through the bundle's own config, on the embedded data."""
    metadata = json.loads((BUNDLES / name / "configs" / "metadata.json").read_text())
    parser = parse(name, "train", output_dir=str(tmp_path))
    parser.get_parsed_content("network_def").load_state_dict(read_checkpoint(BUNDLES / name / "models" / "model.pt"))
    evaluator = parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    for metric, published in metadata["eval_metrics"].items():
        assert evaluator.state.metrics[metric] == pytest.approx(published, abs=0.005)


def test_pretrained_weights_fill_the_whole_encoder(tmp_path):
    network = parse("crossd_3d_segmentation", "train", output_dir=str(tmp_path)).get_parsed_content("network_def")
    state = read_checkpoint(BUNDLES / "crossd_2d_pretraining" / "models" / "model.pt")
    report = transfer_weights(state, network.encoder, "crossd")
    assert report.share == 1.0
    assert sorted(report.skipped) == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize(("conv", "method"), [("acs", "acs"), ("conv", "i3d"), ("conv", "centre"), ("conv", "bank")])
def test_other_ways_into_3d(conv, method, tmp_path):
    parser = parse("crossd_3d_segmentation", "train", output_dir=str(tmp_path), conv=conv)
    state = read_checkpoint(BUNDLES / "crossd_2d_pretraining" / "models" / "model.pt")
    assert transfer_weights(state, parser.get_parsed_content("network_def").encoder, method).share == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_resnet18_overlay_is_the_papers(name, tmp_path):
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


def test_no_python_in_bundles():
    assert not [path for path in BUNDLES.rglob("*") if path.suffix in (".py", ".ipynb")]
