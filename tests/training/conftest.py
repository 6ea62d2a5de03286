# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def no_curves(monkeypatch):
    """An empty file in place of each picture of curves: drawn by test_history, slower than a training of a test."""
    monkeypatch.setattr("monai_crossd.training.history.save_curves", lambda path, history: Path(path).touch())
