# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch):
    """The figures that were written."""
    written = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (written.append(self), save(self, *a, **k)))
    return written


@pytest.fixture
def sketches(monkeypatch):
    """The figures that would have been written: pixels take longer than all that a test of their content looks at."""
    written = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (written.append(self), path.touch()))
    return written
