# SPDX-License-Identifier: Apache-2.0
"""What weights say of themselves, and whose weights are taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from monai_crossd.training import BestCheckpoint, check_trained, describe_run, find_weights, trained, trained_network
from monai_crossd.training.trained import plain

KNOWN = {
    "conv": "acs",
    "labels": ["background", "liver"],
    "pixdim": [1.0, 1.0, 2.0],
    "patient_pattern": None,
    "network_def": {"network": "torch.nn.Linear", "in_features": 3, "out_features": 2},
}


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(KNOWN))
    return tmp_path / "model.pt"


def test_values(weights, tmp_path):
    assert trained(weights, conv="crossd") == "acs"
    assert trained(weights, patient_pattern="x") is None
    assert trained(weights, modality="ct") == "ct"  # it does not say
    assert trained(tmp_path / "other" / "model.pt", conv="crossd") == "crossd"


AGREES = [{"conv": "acs"}, {"pixdim": (1, 1, 2)}, {"labels": {0: "background", 1: "liver"}}, {"x": 1}]


@pytest.mark.parametrize("given", AGREES)
def test_what_agrees(weights, given):
    check_trained(weights, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"conv": "crossd"}, r"conv is crossd, but the weights of .*model\.pt were trained with acs"),
        ({"conv": "acs", "pixdim": None}, r"pixdim is None, but .* were trained with \[1\.0, 1\.0, 2\.0\]"),
        ({"labels": {0: "background", 1: "spleen"}}, "were trained with .*'liver'"),
        ({"patient_pattern": "P"}, "patient_pattern is P, but .* were trained with None"),
    ],
)
def test_what_contradicts(weights, given, message):
    with pytest.raises(ValueError, match=message):
        check_trained(weights, **given)


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_damaged(weights, content):
    weights.with_suffix(".json").write_text(content)
    with pytest.raises(ValueError, match=r"model\.json cannot be read"):
        trained(weights, conv="crossd")


def test_network(weights, tmp_path):
    assert trained_network(weights, {"network": "torch.nn.Linear"}).out_features == 2
    assert trained_network(weights, torch.nn.ReLU(), bias=False).bias is None
    other = tmp_path / "other" / "model.pt"
    net = trained_network(other, {"network": "torch.nn.Linear", "in_features": 5, "out_features": 1}, out_features=4)
    assert net.weight.shape == (4, 5)
    assert isinstance(trained_network(other, torch.nn.ReLU()), torch.nn.ReLU)
    with pytest.raises(ValueError, match=r"weights of .* are those of a torch.nn.Linear, and this .* torch.nn.Conv2d"):
        trained_network(weights, {"network": "torch.nn.Conv2d"})
    with pytest.raises(ValueError, match=r"out_features of the network is 3, but the weights of .* trained with 2"):
        trained_network(weights, {}, out_features=3)


def test_places(tmp_path):
    def put(folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "model.pt").touch()

    assert find_weights(tmp_path) == str(tmp_path / "models" / "model.pt")
    out, mine = (None, tmp_path / "out"), (tmp_path / "mine",)
    for folder, arguments in (("models", ()), ("eval", ()), ("out", out), ("mine", mine)):
        put(folder)
        assert find_weights(tmp_path, *arguments) == str(tmp_path / folder / "model.pt")
    assert find_weights(tmp_path, None, tmp_path / "nothing") == str(tmp_path / "eval" / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"There is no nowhere/model\.pt"):
        find_weights(tmp_path, "nowhere")


@pytest.mark.parametrize(
    ("folder", "whose"),
    [("models", "those that the bundle came with"), ("models/real", "those that the bundle came with"),
     ("eval", "trained here"), ("mine/models", "trained here")],
)  # fmt: skip
def test_the_log_says_whose_weights_they_are(folder, whose, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    path = Path(folder, "model.pt")
    path.parent.mkdir(parents=True)
    path.touch()
    caplog.set_level("INFO", "monai_crossd.training.trained")
    assert find_weights(".", folder) == str(path)
    assert caplog.messages == [f"weights: {path} ({whose})"]


def test_monai_label_loads_from_models(tmp_path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "model.pt").touch()
    variables = {"__name__": "monailabel.tasks.infer.bundle", "find_weights": find_weights}
    exec("def call(root): return find_weights(root)", variables)
    assert variables["call"](tmp_path) == str(tmp_path / "models" / "model.pt")


def test_plain():
    assert plain({0: "a", 1: "b"}) == ["a", "b"]
    assert plain({"window": (0, 255)}) == {"window": [0, 255]}
    assert plain({}) == {}
    with pytest.raises(TypeError, match="has no form in JSON"):
        plain({"x": torch.zeros(1)})


def test_description_of_a_running_bundle(tmp_path):
    parser = ConfigParser(
        {
            "imports": ["$import monai_crossd"],
            "labels": "${0: 'background', 1: 'liver'}",
            "conv": "acs",
            "in_channels": 3,
            "roi_size": "$(16, 16, 8)",
            "reading": {"nested": False},
            "dataset_dir": str(tmp_path),
            "network_def": {
                "_target_": "torch.nn.Linear", "in_features": "@in_channels", "out_features": "$len(@labels)"
            },
            "names": ["conv", "labels", "roi_size", "in_channels", "dataset_dir", "reading#nested"],
            "trained_as": "$monai_crossd.training.describe_run(*@names)",
        }
    )  # fmt: skip
    parser.read_meta({"network_data_format": {
        "inputs": {"image": {"num_channels": 1, "spatial_shape": [8, 8, 8]}},
        "outputs": {"pred": {"num_channels": 9, "spatial_shape": [8, 8, 8], "channel_def": {}}},
    }})  # fmt: skip
    found = parser.get_parsed_content("trained_as")
    metadata = found.pop("metadata")["network_data_format"]
    assert found == {
        "conv": "acs", "labels": ["background", "liver"], "roi_size": [16, 16, 8], "in_channels": 3,
        "dataset_dir": str(tmp_path), "nested": False,
        "network_def": {"network": "torch.nn.Linear", "in_features": 3, "out_features": 2},
    }  # fmt: skip
    assert metadata["inputs"]["image"] == {"num_channels": 3, "spatial_shape": [16, 16, 8]}
    assert metadata["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "liver"}
    assert parser.get("_meta_")["network_data_format"]["inputs"]["image"]["num_channels"] == 1  # the bundle's stays


def test_no_bundle_is_running():
    with pytest.raises(RuntimeError, match="No bundle is running"):
        describe_run("conv")


def test_weights_and_what_they_are_belong_together(tmp_path):
    """A run that says nothing of its weights leaves nothing of the run before."""

    class Evaluator:
        network = torch.nn.Linear(1, 1)

        class state:
            best_metric_epoch = epoch = 1

    BestCheckpoint(tmp_path, trained_as={**KNOWN, "metadata": {"name": "x"}})._save(Evaluator)
    assert json.loads((tmp_path / "model.json").read_text()) == KNOWN
    assert json.loads((tmp_path / "metadata.json").read_text()) == {"name": "x"}
    BestCheckpoint(tmp_path)._save(Evaluator)
    assert not (tmp_path / "model.json").exists()
