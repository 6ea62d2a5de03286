# SPDX-License-Identifier: Apache-2.0
"""Every verb of `python -m monai.bundle`, as it is typed, on every bundle."""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exporters import run_onnx_file
from monai.bundle import ConfigWorkflow, create_workflow, load
from processes import run_module

from monai_crossd.transfer import read_checkpoint

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = ["crossd_2d_pretraining", "crossd_3d_classification", "crossd_3d_segmentation"]
SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")  # as MONAI publishes it
EXPORT = ("--ckpt_file", "models/model.pt", "--meta_file", "configs/metadata.json", "--config_file")
DEMO_DIR = {"train.yaml": "reading#demo_dir", "inference.json": "demo_dir"}

pytestmark = pytest.mark.slow


def verb(name: str, bundle: str, *arguments: str) -> str:
    done = run_module("monai.bundle", name, *arguments, folder=BUNDLES / bundle)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def example(bundle: str) -> torch.Tensor:
    """Two inputs of the size that the metadata name."""
    metadata = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    return torch.rand(2, image["num_channels"], *image["spatial_shape"]) * 2 - 1


def network(bundle: str) -> torch.nn.Module:
    workflow = ConfigWorkflow(config_file=str(BUNDLES / bundle / "configs" / "inference.json"), workflow_type="infer")
    net = workflow.parser.get_parsed_content("network_def")
    net.load_state_dict(read_checkpoint(BUNDLES / bundle / "models" / "model.pt"))
    return net.eval()


@pytest.mark.parametrize("bundle", NAMES)
def test_verify_metadata(bundle):
    output = verb("verify_metadata", bundle, "--meta_file", "configs/metadata.json", "--filepath", str(SCHEMA))
    assert "metadata is verified with no error" in output


@pytest.mark.parametrize("config", ["train.yaml", "inference.json"])
@pytest.mark.parametrize("bundle", NAMES)
def test_verify_net_in_out(bundle, config, tmp_path, demo_root):
    output = verb(
        "verify_net_in_out", bundle, "network_def", "--meta_file", "configs/metadata.json",
        "--config_file", f"configs/{config}", "--output_dir", str(tmp_path), f"--{DEMO_DIR[config]}", str(demo_root),
    )  # fmt: skip
    assert "data shape of network is verified with no error" in output


@pytest.mark.parametrize("bundle", NAMES)
def test_ckpt_export_gives_torchscript_that_needs_nothing_of_ours(bundle, tmp_path, run_without_package):
    path = tmp_path / "model.ts"
    verb("ckpt_export", bundle, "network_def", "--filepath", str(path), *EXPORT, "configs/inference.json")
    x = example(bundle)
    torch.save(x, tmp_path / "x.pt")
    run_without_package(
        f"import torch; x = torch.load({str(tmp_path / 'x.pt')!r}); net = torch.jit.load({str(path)!r}).eval()\n"
        f"with torch.no_grad(): torch.save(net(x), {str(tmp_path / 'y.pt')!r})"
    )
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt"), network(bundle)(x), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("bundle", NAMES)
def test_shipped_torchscript_is_of_the_shipped_weights(bundle):
    x = example(bundle)
    with torch.no_grad():
        found = torch.jit.load(str(BUNDLES / bundle / "models" / "model.ts")).eval()(x)
        torch.testing.assert_close(found, network(bundle)(x), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("bundle", NAMES)
def test_onnx_export_runs_elsewhere(bundle, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    verb("onnx_export", bundle, "network_def", "--filepath", str(path), *EXPORT, "configs/inference.json")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    x = example(bundle)[: entry.shape[0] if isinstance(entry.shape[0], int) else 2]
    (found,) = session.run(None, {entry.name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(bundle)(x), atol=1e-4, rtol=1e-3)


def documented(bundle: str, name: str, tmp_path: Path) -> list[str]:
    """Arguments of a verb as docs/README.md of a bundle gives them, but for the file to write."""
    text = (BUNDLES / bundle / "docs" / "README.md").read_text().replace("\\\n", " ")
    (files,) = re.findall('^FILES="(.*)"$', text, re.M)
    line = next(line for line in reversed(text.splitlines()) if line.startswith(f"python -m monai.bundle {name} "))
    arguments = shlex.split(line.replace("$FILES", files), comments=True)[4:]
    arguments[arguments.index("--filepath") + 1] = str(tmp_path / "model")
    return arguments


def check_any_batch_and_size(graph: Callable[[torch.Tensor], torch.Tensor], bundle: str) -> None:
    net, x = network(bundle), example(bundle)
    other = torch.rand(3, 1, *[n + 8 for n in x.shape[2:]])
    with torch.no_grad():
        for batch in (x[:1], x, torch.cat([x, x[:1]]), other):
            expected = torch.cat([net(sample.unsqueeze(0)) for sample in batch])
            torch.testing.assert_close(graph(batch), expected, atol=1e-4, rtol=1e-3)


# the other two take minutes; tests/networks/test_graphs.py has small networks like theirs
def test_onnx_export_as_documented_takes_any_batch_and_size(tmp_path):
    bundle = NAMES[0]
    arguments = documented(bundle, "onnx_export", tmp_path)
    verb("onnx_export", bundle, *arguments)
    check_any_batch_and_size(run_onnx_file(str(tmp_path / "model")), bundle)


def test_traced_export_as_documented_takes_any_batch_and_size(tmp_path):
    bundle = NAMES[0]
    verb("ckpt_export", bundle, *documented(bundle, "ckpt_export", tmp_path))
    assert "--use_trace" in documented(bundle, "ckpt_export", tmp_path)
    check_any_batch_and_size(torch.jit.load(str(tmp_path / "model.ts")).eval(), bundle)


@pytest.mark.parametrize("bundle", NAMES)
def test_every_bundle_documents_its_exports(bundle, tmp_path):
    dims = example(bundle).dim()
    arguments = documented(bundle, "onnx_export", tmp_path)
    options = ast.literal_eval(arguments[arguments.index("--converter_kwargs") + 1])
    assert list(options["dynamic_axes"]["image"]) == [0, *range(2, dims)]
    assert "--use_onnx" in documented(bundle, "trt_export", tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("bundle", NAMES)
def test_trt_export(bundle, tmp_path):
    pytest.importorskip("torch_tensorrt")
    path = tmp_path / "model_trt.ts"
    verb("trt_export", bundle, "network_def", "--filepath", str(path), "--precision", "fp32", *EXPORT,
         "configs/inference.json")  # fmt: skip
    assert path.is_file()


@pytest.mark.parametrize("bundle", NAMES)
def test_properties(bundle, tmp_path, demo_root):
    for config, kind in (("train.yaml", "train"), ("inference.json", "infer")):
        workflow = ConfigWorkflow(
            config_file=str(BUNDLES / bundle / "configs" / config),
            meta_file=str(BUNDLES / bundle / "configs" / "metadata.json"),
            workflow_type=kind,
            bundle_root=str(BUNDLES / bundle),
            output_dir=str(tmp_path),
            **{DEMO_DIR[config]: str(demo_root)},
        )
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.finalize()


@pytest.mark.parametrize("bundle", NAMES)
def test_load_gives_the_network_with_its_weights(bundle):
    x = example(bundle)
    net = load(bundle, bundle_dir=str(BUNDLES), workflow_type="inference", device="cpu").eval()
    with torch.no_grad():
        assert torch.equal(net(x), network(bundle)(x))
    assert load(bundle, bundle_dir=str(BUNDLES), device="cpu").keys() == net.state_dict().keys()  # without train.json


@pytest.mark.parametrize("bundle", NAMES)
def test_create_workflow(bundle, tmp_path, demo_root):
    workflow = create_workflow(
        config_file=str(BUNDLES / bundle / "configs" / "inference.json"), workflow_type="infer",
        bundle_root=str(BUNDLES / bundle), output_dir=str(tmp_path), demo_dir=str(demo_root),
    )  # fmt: skip
    workflow.run()
    assert list(tmp_path.glob("*_pred.nii.gz" if bundle.endswith("segmentation") else "predictions.csv"))
    workflow.finalize()


@pytest.mark.parametrize("bundle", NAMES)
def test_evaluate_gives_the_published_metric_with_intervals(bundle, run_bundle, tmp_path, demo_root):
    result = run_bundle(
        bundle, "--output_dir", str(tmp_path), "--weights", "models/model.pt", "--reading#demo_dir", str(demo_root),
        configs=("train", "evaluate"),
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:]
    metadata = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    overall = {row["metric"].removeprefix("val_"): float(row["estimate"]) for row in rows if row["label"] == "overall"}
    for metric, published in metadata["eval_metrics"].items():
        assert overall[metric.removeprefix("val_")] == pytest.approx(published, abs=0.005)
    assert (tmp_path / "metrics_per_case.csv").is_file()
    assert (tmp_path / "evaluate_config.yaml").is_file()


@pytest.mark.parametrize("bundle", NAMES)
@pytest.mark.parametrize("by", ["run", "run_workflow"])
def test_inference(bundle, by, tmp_path, demo_root):
    workflow = ("--workflow_type", "infer") if by == "run_workflow" else ()
    verb(by, bundle, *workflow, "--config_file", "configs/inference.json", "--output_dir", str(tmp_path / "out"),
         "--weights", "models/model.pt", "--demo_dir", str(demo_root))  # fmt: skip
    if bundle.endswith("segmentation"):
        assert len(list((tmp_path / "out").glob("*_pred.nii.gz"))) == 2
        return
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.reader(file))
    values = np.array([row[2:] for row in rows[1:]], float)
    assert values.shape[1] == 7
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)
    names = [column.partition("/")[2] for column in rows[0][2:]]
    assert [row[1] for row in rows[1:]] == [names[number] for number in values.argmax(1)]
