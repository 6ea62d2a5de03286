# SPDX-License-Identifier: Apache-2.0
"""What pip users get: source archive and wheel are built, and the bundles run from the wheel, elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ["crossd_2d_pretraining", "crossd_3d_classification", "crossd_3d_segmentation"]
START = "models/model_2d.pth"  # of the 3D bundles, packed once

pytestmark = pytest.mark.slow


def without_pythonpath() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=without_pythonpath(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Built in a copy: a build leaves folders behind that would get into the next one."""
    folder = tmp_path_factory.mktemp("sdist")
    left_out = shutil.ignore_patterns(
        ".git", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "eval"
    )
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    run([sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')"], folder / "source")
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built as pip builds it from the source archive."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    run([sys.executable, "-m", "pip", "wheel", "-q", *options, str(sdist)], folder)
    (path,) = folder.glob("*.whl")
    return path


def test_source_archive_is_whole(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("monai_crossd", "tests", "docs", "bundles")
    wanted = {"CHANGELOG.md", "README.md", "LICENSE", "constraints.txt", "pyproject.toml", "setup.py"}
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and not {"__pycache__", "eval", "data"} & set(parts[2:-1]) and path.name[0] != ".":
                wanted.add("/".join(parts))
    assert {name for name in wanted if not name.endswith(".pyc")} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or "/eval/" in name]


def test_wheel_holds_the_bundles_with_weights_once(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.compress_size for entry in archive.infolist()}
        (described,) = (name for name in sizes if name.endswith(".dist-info/METADATA"))
        head = archive.read(described).decode()
    packed = {
        name.removeprefix("monai_crossd/bundle_files/"): size for name, size in sizes.items() if "_files/" in name
    }
    weights = [f"{name}/models/model.pt" for name in NAMES]
    weights.append(f"{NAMES[1]}/{START}")
    assert sorted(name for name in packed if name.endswith((".pt", ".pth"))) == sorted(weights)
    assert max(packed.values()) <= 12e6  # as docs/zoo.md says
    assert sum(packed.values()) <= 40e6
    for name in NAMES:
        configs = {f"{name}/configs/{path.name}" for path in (ROOT / "bundles" / name / "configs").iterdir()}
        assert configs | {f"{name}/LICENSE", f"{name}/docs/README.md"} <= packed.keys()
    assert {name.split("/")[0] for name in sizes} == {"monai_crossd", described.split("/")[0]}
    assert "Project-URL: " in head
    assert "License-Expression: Apache-2.0 AND CC-BY-SA-4.0" in head  # weights that learned from MedNIST
    assert re.search(r"^Requires-Dist: torch>=2\.4\.1$", head, re.MULTILINE)
    assert {"demo", "onnx", "study"} <= set(re.findall(r"^Provides-Extra: (\w+)$", head, re.MULTILINE))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Python of a user who ran `pip install monai-crossd` in a new environment."""
    folder = tmp_path_factory.mktemp("user")
    run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    run([str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)], folder)
    return python


PROGRAM = """
import logging, os, sys
from pathlib import Path
import monai_crossd
from monai.bundle import ckpt_export, onnx_export, run
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
from monai_crossd.bundles import copy_bundle
from monai_crossd.demo import prepare_phantoms

assert Path(sys.argv[1]) in Path(monai_crossd.__file__).parents, monai_crossd.__file__
home = Path.cwd()
small = {
    "2d": {"spatial_size": [24, 24]},
    "3d_c": {"spatial_size": [16, 16, 8]},
    "3d_s": {"roi_size": [16, 16, 8], "pixdim": "$None"},
}
for bundle in sys.argv[2:]:
    flat, segmentation = "2d" in bundle, bundle.endswith("segmentation")
    task = "segmentation" if segmentation else "classification"
    size = (24, 24) if flat else (24, 24, 12)
    data = prepare_phantoms("us", home / f"data_{bundle}", task, 6, size, file_format="png" if flat else "nifti")
    options = next(value for key, value in small.items() if f"crossd_{key}" in bundle)
    options = {"dataset_dir": str(data), "modality": "us", **options}
    training = {"max_epochs": 1, "batch_size": 2, **({"iterations_per_epoch": 1} if segmentation else {})}
    os.chdir(home / bundle)  # as its user does
    run(config_file="configs/train.yaml", **options, **training)
    assert Path("eval/curves.png").is_file() and list(Path("eval").glob("events.*"))
    run(config_file=["configs/train.yaml", "configs/evaluate.yaml"], **options)
    assert Path("eval/metrics.csv").is_file()
    found = [path for path in data.parent.rglob("*") if path.suffix in (".png", ".gz")]
    images = sorted(path for path in found if "label" not in str(path))
    new = home / f"new_{bundle}"
    new.mkdir()
    os.link(images[0], new / images[0].name)
    run(config_file="configs/inference.json", output_dir="predictions", dataset_dir=str(new))
    assert list(Path("predictions").iterdir())
    files = {"ckpt_file": "eval/model.pt", "meta_file": "eval/metadata.json", "config_file": "configs/inference.json"}
    ckpt_export(net_id="network_def", filepath="exported.ts", **files)
    assert Path("exported.ts").is_file()
os.chdir(home)
data = home / f"data_{sys.argv[2]}" / "dataset.json"
options = {"dataset_dir": str(data), "modality": "us", "spatial_size": [24, 24]}
root = copy_bundle(sys.argv[2], "site", federated=True)
client = MonaiAlgo(bundle_root=str(root), train_kwargs=options, eval_kwargs=dict(options))
client.initialize()
weights = {name: value.clone() for name, value in client.trainer.network.state_dict().items()}
for _ in range(2):
    client.train(ExchangeObject(weights={name: value.clone() for name, value in weights.items()}))
    changes = client.get_weights().weights
    weights = {name: value + changes[name] for name, value in weights.items()}
assert client.evaluate(ExchangeObject(weights=weights)).metrics and any(v.any() for v in changes.values())
client.finalize()
os.chdir(home / bundle)
try:
    onnx_export(net_id="network_def", filepath="exported.onnx", **files)
except Exception as error:
    while error.__cause__ is not None:
        error = error.__cause__
    assert 'pip install "monai-crossd[onnx]"' in str(error), error
else:
    raise AssertionError("onnx is not installed here")
"""


def test_all_bundles_run_from_the_wheel_on_own_data(python, tmp_path):
    command = [str(python), "-W", "ignore"]
    printed = run([*command, "-m", "monai_crossd.bundles"], tmp_path)
    assert [line.partition(":")[0] for line in printed.splitlines()] == NAMES
    run([*command, "-m", "monai_crossd.bundles", *NAMES], tmp_path)
    for name in NAMES[1:]:
        real = ROOT / "bundles" / NAMES[0] / "models" / "real_crossd" / "model.pt"
        assert (tmp_path / name / START).read_bytes() == real.read_bytes()
    run([*command, "-c", PROGRAM, str(python.parents[1]), *NAMES], tmp_path)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["explain"], "demo"), (["evaluate_transfer", "--config_file", "x.yaml", "--output_dir", "x"], "study")],
)
def test_commands_name_the_extra_that_is_not_installed(python, tmp_path, arguments, extra):
    done = subprocess.run(
        [str(python), "-W", "ignore", "-m", f"monai_crossd.{arguments[0]}", *arguments[1:]],
        cwd=tmp_path, env=without_pythonpath(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f'pip install "monai-crossd[{extra}]"' in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
