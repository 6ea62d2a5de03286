# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import nibabel as nib
import numpy as np
import pytest
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose, LoadImaged

from monai_crossd.data import build_dataloader, build_dataset
from monai_crossd.training import SkippedReport


def folder_with_bad_files(path, bad):
    items = []
    for name in ("a", "b", "c"):
        file = path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), file)
        if name in bad:
            file.write_bytes(file.read_bytes()[:30])
        items.append({"image": str(file)})
    return build_dataset(items, Compose(LoadImaged("image")), on_error="skip-and-report")


@pytest.mark.parametrize("ended", ["completed", "terminated"])
def test_what_was_skipped_is_the_last_word(tmp_path, caplog, ended):
    (tmp_path / "v").mkdir()
    training, validation = folder_with_bad_files(tmp_path, "b"), folder_with_bad_files(tmp_path / "v", "ac")
    caplog.clear()
    engine = Engine(lambda engine, batch: engine.terminate() if ended == "terminated" else None)
    SkippedReport([training, validation, Dataset([1])]).attach(engine)
    with caplog.at_level(logging.WARNING, "monai_crossd"):
        engine.run(build_dataloader(training, batch_size=1), max_epochs=2)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    head, *lines = record.getMessage().splitlines()
    assert head == "3 items were skipped:"
    for line, name in zip(lines, ("b.nii.gz", "v/a.nii.gz", "v/c.nii.gz"), strict=True):
        assert str(tmp_path / name) in line.partition(": ")[2]


def test_nothing_skipped_nothing_said(tmp_path, caplog):
    engine = Engine(lambda *_: None)
    SkippedReport([folder_with_bad_files(tmp_path, "")]).attach(engine)
    engine.run([1])
    assert not [record for record in caplog.records if record.name.startswith("monai_crossd")]


def test_from_a_bundle(tmp_path):
    parser = ConfigParser({
        "data": folder_with_bad_files(tmp_path, "a"),
        "handler": {"_target_": "monai_crossd.training.SkippedReport", "datasets": ["@data"]},
    })  # fmt: skip
    ((item, cause),) = parser.get_parsed_content("handler").skipped
    assert "a.nii.gz" in item["image"]
    assert "a.nii.gz" in cause
