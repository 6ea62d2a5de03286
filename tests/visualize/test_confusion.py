# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_crossd.visualize import save_confusion


def test_rows_are_true_classes(tmp_path, figures):
    counts = np.array([[3, 1, 0], [0, 5, 0], [0, 0, 0]])
    assert save_confusion(tmp_path / "new" / "c.png", counts, ["a", "b", "c"]).stat().st_size > 1000
    axes = figures[0].axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
        ((column, row), str(counts[row, column])) for row in range(3) for column in range(3)
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["c.png"]


def test_many_classes_have_no_numbers(tmp_path, figures):
    save_confusion(tmp_path / "c.png", np.eye(40, dtype=int), [f"class {i}" for i in range(40)])
    assert not figures[0].axes[0].texts
    assert max(figures[0].get_size_inches()) < 40


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (3,)])
def test_counts_of_other_classes(tmp_path, shape):
    with pytest.raises(ValueError, match=r"expected \(3, 3\) for the 3 names"):
        save_confusion(tmp_path / "c.png", np.zeros(shape, int), ["a", "b", "c"])
    assert list(tmp_path.iterdir()) == []
