# SPDX-License-Identifier: Apache-2.0
"""A MONAI Label server with the three bundles and a study folder, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_crossd.demo import prepare_demo

BUNDLES = Path(__file__).parents[2] / "bundles"
# MONAI Label knows the task of a bundle by the name of its folder
MODELS = {
    "crossd_3d_segmentation": "crossd_3d_segmentation",
    "crossd_3d_classification": "crossd_3d_classification",
    "crossd_2d_classification": "crossd_2d_pretraining",
}
# without a GPU everywhere, so that the server's results are those of `bundle run` to the last digits
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the server's log below a failure."""
    report = yield
    server = getattr(item, "funcargs", {}).get("server")
    if report.failed and server:
        report.sections.append(("MONAI Label's log", server.log.read_text()[-6000:]))
    return report


@dataclass(frozen=True)
class Server:
    url: str
    log: Path
    models: Path
    """The bundles that it serves, copies."""
    labels: dict[str, Path]
    """Reference label maps of the CT sub-volumes in the study, by image ID."""
    studies: Path

    def __call__(self, method: str, path: str, expect: int = 200, **arguments):
        import requests

        response = requests.request(method, self.url + path, timeout=300, **arguments)
        assert response.status_code == expect, response.text
        return response


def _copy_bundles(models: Path) -> None:
    for name, bundle in MODELS.items():
        shutil.copytree(BUNDLES / bundle, models / name, ignore=shutil.ignore_patterns("eval"))
        train = models / name / "configs" / "train.yaml"
        text, changed = re.subn(r"(?m)^iterations_per_epoch: \d+", "iterations_per_epoch: 2", train.read_text())
        assert changed or "segmentation" not in name
        text, changed = re.subn(
            r"(?m)^ckpt_dir: .*", "ckpt_dir: \"$@bundle_root + '/models'\"", text
        )  # as the docs say
        assert changed
        train.write_text(text)


def _write_study(studies: Path, work: Path) -> dict[str, Path]:
    """CT sub-volumes as NIfTI, blocks, PNG patches and a truncated file. Returns the label maps of the sub-volumes."""
    studies.mkdir()
    segmentation = prepare_demo("segmentation", work).parent
    for image in (segmentation / "imagesTr").iterdir():
        shutil.copy(image, studies)
    for task, name in (("classification_3d", "block{}.nii.gz"), ("classification", "patch{}.png")):
        images = prepare_demo(task, work).parent / "images" / "validation"
        for label, number in (("left_lung", ""), ("tissue", "2")):
            shutil.copy(min((images / label).iterdir()), studies / name.format(number))
    (studies / "broken.nii.gz").write_bytes((studies / "block.nii.gz").read_bytes()[:200])
    return {path.name.removesuffix(".nii.gz"): path for path in sorted((segmentation / "labelsTr").iterdir())}


def _read_step(name: str) -> str:
    """A block of code of docs/monai_label.md, that a user would paste."""
    text = (BUNDLES.parent / "docs" / "monai_label.md").read_text()
    return text.split(f"<!-- {name} -->")[1].split("```")[1].partition("\n")[2]


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    import requests

    for _ in range(600):
        assert process.poll() is None, f"MONAI Label ended at once:\n{log.read_text()[-6000:]}"
        try:
            if requests.get(url + "/info/", timeout=60).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.5)
    raise TimeoutError(f"MONAI Label does not answer at {url}:\n{log.read_text()[-6000:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("monailabel")
    work = tmp_path_factory.mktemp("monailabel")
    download = ["monailabel", "apps", "--download", "--name", "monaibundle", "--output", str(work)]
    subprocess.run(download, env=ENVIRONMENT, check=True, capture_output=True)
    app, studies = work / "monaibundle", work / "studies"
    subprocess.run(["bash", "-euc", _read_step("batch")], cwd=work, check=True)
    _copy_bundles(app / "model")
    labels = _write_study(studies, work)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "monailabel",
        "start_server",
        "--app",
        str(app),
        "--studies",
        str(studies),
        "-i",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    command += ["--conf", "models", ",".join(MODELS), "--conf", "zoo_source", "ngc", "--conf", "sam2", "false"]
    log = work / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=ENVIRONMENT, cwd=work, stdout=file, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, log)
        yield Server(url, log, app / "model", labels, studies)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def run_inference(server, tmp_path):
    """`bundle run` of a served bundle's inference.json on one image of the study; returns the folder of its output."""

    def run(model: str, image: Path) -> Path:
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
        command += ["--dataset_dir", str(image), "--output_dir", str(tmp_path)]
        done = subprocess.run(command, cwd=server.models / model, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path

    return run


@pytest.fixture
def read_nifti(tmp_path):
    """Array and affine of a NIfTI file, or of the content of one."""

    def read(source: bytes | Path) -> tuple[np.ndarray, np.ndarray]:
        path = source if isinstance(source, Path) else tmp_path / "answer.nii.gz"
        if isinstance(source, bytes):
            path.write_bytes(source)
        image = nib.load(path)
        return np.asarray(image.dataobj), image.affine

    return read
