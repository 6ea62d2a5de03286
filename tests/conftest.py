# SPDX-License-Identifier: Apache-2.0
"""What every test shares: a fixed seed, one thread, CUDA tests skipped without CUDA, other processes and run times."""

from __future__ import annotations

import csv
import locale
import os
import subprocess
import sys
import warnings
from pathlib import Path

# Tensors here are tiny: torch's threads wait for each other far longer than they work. Processes that a test starts are
# told so too, before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

# geometry is drawn, never timed: a busy machine must not fail a test, and each run draws the same examples
settings.register_profile("monai_crossd", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("monai_crossd")


def pytest_configure(config):
    # `pytest -n 2 --dist loadfile` takes the files in the order below, not those of most tests first
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    # files with slow tests first: the other ones fill up what a last long file would leave idle
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """Without the TF32 that cuDNN's convolutions take on a GPU by default: tests compare with double precision."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def _locale():
    """SimpleITK leaves the C locale behind when it writes DICOM, and torch's inductor cannot read its own files."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture
def run_without_package():
    """Run Python code in a new process that cannot import monai_crossd nor MONAI: what a scripted net is used in."""

    def run(code: str) -> str:
        blocked = "import sys\nsys.modules['monai_crossd'] = None\nsys.modules['monai'] = None\n"
        done = subprocess.run([sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def run_onnx(tmp_path):
    """Export a net with a dynamic batch and run the file through onnxruntime on each of the inputs."""

    def run(net: torch.nn.Module, example: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        path = tmp_path / "net.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's exporter warns about torch's own internals
            torch.onnx.export(
                net,
                (example,),
                str(path),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [torch.from_numpy(session.run(None, {"image": x.numpy()})[0]) for x in inputs]

    return run


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory):
    """Folder where embedded data are unpacked once for all processes of a run; read only."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "embedded"


@pytest.fixture(scope="session")
def demo_dir(demo_root):
    """Folder with the two sets of the chest CT; read only."""
    from monai_crossd.demo import prepare_demo  # SimpleITK, which most tests do without

    for task in ("segmentation", "classification"):
        prepare_demo(task, demo_root)
    return demo_root


OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # they are there as long as this is


@pytest.fixture(scope="session")
def torchvision():
    """A CUDA build of torchvision imports beside a CPU build of torch once its operators have names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass  # it has its own already
        return pytest.importorskip("torchvision")


@pytest.fixture
def train_parsed():
    """Trains what a parsed config of one epoch says, in this process: the row of its history.csv."""

    def train(parser) -> dict[str, str]:
        parser.get_parsed_content("initialize")
        try:
            parser.get_parsed_content("run")
        finally:
            parser.get_parsed_content("finalize")
        with Path(parser["output_dir"], "history.csv").open() as file:
            (row,) = csv.DictReader(file)
        return row

    return train
