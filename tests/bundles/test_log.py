# SPDX-License-Identifier: Apache-2.0
"""What a run on good data prints: nothing that is not about the run."""

from __future__ import annotations

import re

import numpy as np
import pytest

LINES = [
    r".*UserWarning: parsing config_file .*",  # MONAI's, before a line of ours is read
    r"  workflow = create_workflow\(",
    r"data: 2 classes, 8 items in training, 4 in validation",
    r"\d\d:\d\d:\d\d INFO no weights to start from: the network starts from scratch",
    r"\d\d:\d\d:\d\d INFO training on 8 items, validating on 4 items: 2 epochs of 2 iterations on \w+",
    r"epoch 1/2  train_loss \S+  val_balanced_accuracy \S+  val_accuracy \S+  .* s, about .* left",
    r"epoch 2/2  train_loss \S+  val_balanced_accuracy \S+  val_accuracy \S+  .* s",
    r"best validation balanced accuracy \S+ in epoch \d; weights in .*model\.pt",
]


@pytest.mark.slow
def test_every_line_is_about_the_run(run_bundle, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", 8), ("val", 4), ("test", 4)):
        arrays[f"{name}_images"] = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(tmp_path / "mine.npz", **arrays)
    options = {"dataset_dir": tmp_path / "mine.npz", "max_epochs": 2, "batch_size": 4, "output_dir": tmp_path / "out"}
    done = run_bundle(
        "crossd_2d_pretraining", *(str(part) for name in options for part in (f"--{name}", options[name]))
    )
    assert done.returncode == 0, done.stdout
    unknown = [line for line in done.stdout.splitlines() if line and not any(re.fullmatch(p, line) for p in LINES)]
    assert unknown == []
    for pattern in LINES[2:]:
        assert sum(bool(re.fullmatch(pattern, line)) for line in done.stdout.splitlines()) == 1, pattern
