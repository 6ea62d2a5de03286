# SPDX-License-Identifier: Apache-2.0
"""The bundles in a real MONAI Label server, over HTTP; `.ci/monailabel` runs this in an environment of its own."""

from __future__ import annotations

import csv
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from monai_crossd.transfer import read_checkpoint

pytest.importorskip("monailabel")
pytestmark = pytest.mark.slow

SEGMENTATION = "crossd_3d_segmentation"
CLASSES = [
    "ribs",
    "cervical vertebral column",
    "thoracic vertebral column",
    "lumbar vertebral column",
    "right lung",
    "left lung",
    "tissue",
]
TRAIN = {"max_epochs": 1, "device": "cpu", "val_split": 0.5, "multi_gpu": False}


def segment(server, image: str) -> bytes:
    return server("POST", f"/infer/{SEGMENTATION}", params={"image": image, "output": "image"}).content


@contextmanager
def logged(server, message: str):
    """The server's console names the reason of an error, just after the answer: uvicorn's errors go nowhere else."""
    start = len(server.log.read_text())
    yield
    for _ in range(100):
        if message in server.log.read_text()[start:]:
            return
        time.sleep(0.1)
    pytest.fail(f"the server did not log {message!r}")


def test_info_lists_the_bundles_with_their_labels(server):
    models = server("GET", "/info/").json()["models"]
    assert {name: (model["type"], model["dimension"]) for name, model in models.items()} == {
        SEGMENTATION: ("segmentation", 3),
        "crossd_3d_classification": ("classification", 3),
        "crossd_2d_classification": ("classification", 2),
    }
    for name, model in models.items():
        first = 1 if name == SEGMENTATION else 0  # the background has no label
        assert model["labels"] == {label: number for number, label in enumerate(CLASSES, start=first)}


def test_info_offers_the_networks_of_the_bundles_alone(server):
    info = server("GET", "/info/").json()
    assert info["models"].keys() == info["trainers"].keys()
    for kind in ("models", "trainers"):
        for name, part in info[kind].items():
            assert part["config"]["model_filename"] == ["model.pt"], name


def test_segmentation_is_that_of_bundle_run_on_the_images_own_grid(server, run_inference, read_nifti):
    name = next(iter(server.labels))
    image = server.studies / f"{name}.nii.gz"
    labels, affine = read_nifti(segment(server, name))
    expected, _ = read_nifti(run_inference(SEGMENTATION, image) / f"{name}_pred.nii.gz")
    voxels, image_affine = read_nifti(image)
    assert labels.shape == voxels.shape
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(affine, image_affine, atol=1e-4)
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(labels)) > 3


@pytest.mark.parametrize(
    ("model", "image"), [("crossd_3d_classification", "block.nii.gz"), ("crossd_2d_classification", "patch.png")]
)
def test_scores_are_those_of_bundle_run(server, run_inference, model, image):
    answer = server("POST", f"/infer/{model}", params={"image": image.split(".")[0], "output": "json"}).json()
    scores = {entry["label"]: entry["score"] for entry in answer["prediction"]}
    with (run_inference(model, server.studies / image) / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert scores == pytest.approx({label: float(row[f"probability/{label}"]) for label in CLASSES}, abs=1e-5)
    assert list(scores) == CLASSES
    assert sum(scores.values()) == pytest.approx(1)


@pytest.mark.parametrize("model", [SEGMENTATION, "crossd_3d_classification"])
def test_a_broken_image_is_an_error_and_the_server_goes_on(server, model):
    output = "image" if model == SEGMENTATION else "json"
    with logged(server, "broken.nii.gz cannot be read as an image"):
        server("POST", f"/infer/{model}", expect=500, params={"image": "broken", "output": output})
    good = next(iter(server.labels)) if model == SEGMENTATION else "block"
    server("POST", f"/infer/{model}", params={"image": good, "output": output})


@pytest.mark.parametrize(
    ("model", "image"),
    [(SEGMENTATION, "patch"), ("crossd_3d_classification", "patch"), ("crossd_2d_classification", "block")],
)
def test_an_image_of_other_dimensions_is_refused(server, model, image):
    output = "image" if model == SEGMENTATION else "json"
    found, expected = ("2", "3") if image == "patch" else ("3", "2")
    with logged(server, f"has {found} dimensions"), logged(server, f"expected {expected} (spatial_dims={expected})"):
        server("POST", f"/infer/{model}", expect=500, params={"image": image, "output": output})


def test_a_broken_image_leaves_the_others_of_a_batch(server, read_nifti):
    first, second = list(server.labels)[:2]
    answer = server(
        "POST",
        f"/batch/infer/{SEGMENTATION}",
        params={"run_sync": True},
        json={"multi_gpu": False, "device": "cpu", "images": [first, "broken", "patch", second]},
    ).json()
    assert "broken.nii.gz cannot be read as an image" in answer["broken"]["error"]
    assert "has 2 dimensions" in answer["patch"]["error"]
    for name in (first, second):
        saved = server("GET", "/datastore/label", params={"label": name, "tag": "original"}).content
        np.testing.assert_array_equal(read_nifti(saved)[0], read_nifti(segment(server, name))[0])


def test_batch_inference_saves_a_label_of_each_image(server, read_nifti):
    names = list(server.labels)[:2]
    answer = server(
        "POST",
        f"/batch/infer/{SEGMENTATION}",
        params={"run_sync": True},
        json={"multi_gpu": False, "device": "cpu", "images": names},
    ).json()
    assert list(answer) == names
    for name in names:
        saved = server("GET", "/datastore/label", params={"label": name, "tag": "original"}).content
        np.testing.assert_array_equal(read_nifti(saved)[0], read_nifti(segment(server, name))[0])


def save_label(server, image: str, file: str, content: bytes) -> None:
    saved = server("PUT", "/datastore/label", params={"image": image, "tag": "final"}, files={"label": (file, content)})
    assert saved.json()["label"] == image
    assert server("GET", "/datastore/label", params={"label": image, "tag": "final"}).content == content


@pytest.mark.parametrize(
    ("model", "images"),
    [("crossd_3d_classification", ["block", "block2"]), ("crossd_2d_classification", ["patch", "patch2"])],
)
def test_classification_is_trained_from_files_that_name_a_class(server, model, images):
    def scores() -> list[float]:
        answer = server("POST", f"/infer/{model}", params={"image": images[0], "output": "json"}).json()
        return [entry["score"] for entry in answer["prediction"]]

    save_label(server, images[0], "class.json", b'{"label": "left lung"}')
    save_label(server, images[1], "class.txt", b"liver")
    weights = server.models / model / "models" / "model.pt"
    before, old = read_checkpoint(weights), scores()
    with logged(server, "names the class 'liver'; expected the name of a class"):
        server("POST", f"/train/{model}", expect=500, params={"run_sync": True}, json=TRAIN)
    assert scores() == old
    save_label(server, images[1], "class.txt", b"Tissue")
    server("POST", f"/train/{model}", params={"run_sync": True}, json=TRAIN)
    after = read_checkpoint(weights)
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert scores() != old
    for image in images:  # a datastore gives all its labels to every training
        server("DELETE", "/datastore/label", params={"id": image, "tag": "final"})
    for _ in range(50):  # it looks at its labels again when an image comes or goes
        (server.studies / "other.png").write_bytes((server.studies / "patch.png").read_bytes())
        time.sleep(0.2)
        (server.studies / "other.png").unlink()
        time.sleep(0.2)
        if not server("GET", "/datastore/", params={"output": "train"}).json():
            return
    pytest.fail("the labels are still there")


def test_training_from_saved_labels_changes_what_is_predicted(server, read_nifti):
    names = list(server.labels)[:2]
    for name in names:
        save_label(server, name, server.labels[name].name, server.labels[name].read_bytes())

    weights = server.models / SEGMENTATION / "models" / "model.pt"
    before, labels = read_checkpoint(weights), segment(server, names[0])
    with logged(server, "The validation has no batches"):  # MONAI Label's split of 0.2 leaves none of two labels
        request = TRAIN | {"val_split": 0.2}
        server("POST", f"/train/{SEGMENTATION}", expect=500, params={"run_sync": True}, json=request)
    server("POST", f"/train/{SEGMENTATION}", params={"run_sync": True}, json=TRAIN)
    after = read_checkpoint(weights)

    assert after.keys() == before.keys()
    assert any(not torch.equal(after[key], before[key]) for key in before)
    again, _ = read_nifti(segment(server, names[0]))
    assert not np.array_equal(again, read_nifti(labels)[0])
