# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_crossd.visualize import save_curves

HISTORY = {
    "train_loss": [(1, 0.9), (2, 0.5)],
    "val_mean_dice": [(2, 0.3)],
    "val_mean_dice/ribs": [(2, float("nan"))],
    "val_mean_dice/left lung": [(2, 0.3)],
}


def test_one_run(tmp_path, figures):
    assert save_curves(tmp_path / "c.png", HISTORY).stat().st_size > 1000
    assert [a.get_title() for a in figures[0].axes] == ["train loss", "val mean dice", "val mean dice per class"]
    assert figures[0].axes[0].lines[0].get_xydata().tolist() == [[1, 0.9], [2, 0.5]]
    assert [t.get_text() for t in figures[0].axes[2].get_legend().get_texts()] == ["ribs", "left lung"]
    assert all(a.get_xlabel() == "epoch" for a in figures[0].axes)


def test_several_runs(tmp_path, figures):
    save_curves(tmp_path / "c.png", {"from 2D": HISTORY, "from scratch": HISTORY})
    assert [a.get_title() for a in figures[0].axes] == ["train loss", "val mean dice"]
    for axes in figures[0].axes:
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["from 2D", "from scratch"]


@pytest.mark.parametrize("history", [{}, {"from 2D": {}}])
def test_nothing_to_draw(tmp_path, history):
    with pytest.raises(ValueError, match="history is empty"):
        save_curves(tmp_path / "c.png", history)
    assert list(tmp_path.iterdir()) == []
