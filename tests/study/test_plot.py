# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import numpy as np
import pytest
from monai.utils import OptionalImportError
from PIL import Image, ImageColor

from monai_crossd.study import plot
from monai_crossd.study.comparisons import resampled_t
from monai_crossd.study.plot import save_plot


def make_rows(datasets=("ct", "mr"), modes=("linear_probe", "full"), methods=("random", "acs"), seeds=3, folds=2):
    rng = np.random.default_rng(0)
    return [
        {"source": "slices", "dataset": d, "mode": m, "method": x, "seed": s, "fold": f, "n_train": 4, "n_test": 2,
         "f1": rng.uniform(0.4, 0.9)}
        for d in datasets for m in modes for x in methods for s in range(seeds) for f in range(folds)
    ]  # fmt: skip


@pytest.fixture
def figures(monkeypatch):
    """Every figure as it is written."""
    written = []
    save = plot.save_figure
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: (written.append(figure), save(figure, path))[1])
    return written


def drawn(axes, colour):
    """Points of the lines of a colour: those of the legend's, which are empty, left out."""
    lines = [line for line in axes.get_lines() if line.get_color() == colour]
    return [line.get_xydata() for line in lines if len(line.get_xdata())]


def test_every_seed_mean_and_interval_is_drawn(tmp_path, figures):
    rows = make_rows()
    save_plot(tmp_path / "transfer.png", rows, "f1")
    axes = figures[0].axes
    assert [a.get_title() for a in axes] == ["linear probe", "full"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["random", "acs"]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["ct", "mr"]
    for panel, mode in zip(axes, ("linear_probe", "full"), strict=True):
        heights = []
        for colour, dataset in zip(plot._COLOURS, ("ct", "mr"), strict=False):
            lines = drawn(panel, colour)
            assert len(lines) == 6  # interval, seeds and mean of two methods
            for at, method in enumerate(("random", "acs")):
                cells = [r for r in rows if (r["dataset"], r["mode"], r["method"]) == (dataset, mode, method)]
                values = np.array([r["f1"] for r in cells])
                interval, seeds, mean = lines[3 * at : 3 * at + 3]
                assert interval[:, 0] == pytest.approx(resampled_t(values, 0.5)[:2])
                assert sorted(seeds[:, 0]) == pytest.approx(sorted(values.reshape(3, 2).mean(1)))
                assert mean[0, 0] == pytest.approx(values.mean())
                assert len({*interval[:, 1], *seeds[:, 1], *mean[:, 1]}) == 1
                assert abs(mean[0, 1] - at) < 0.4
                heights.append(mean[0, 1])
        assert len(set(heights)) == 4  # none lies on another


def test_picture_shows_the_colours(tmp_path):
    path = save_plot(tmp_path / "new" / "transfer.png", make_rows(), "f1")
    assert [p.name for p in path.parent.iterdir()] == ["transfer.png"]
    image = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for colour in plot._COLOURS[:2]:
        assert (image == ImageColor.getrgb(colour)).all(1).sum() > 50
    assert not (image == ImageColor.getrgb(plot._COLOURS[2])).all(1).any()


def test_many_data_sets_differ_in_colour_or_marker(tmp_path, figures):
    save_plot(tmp_path / "a.png", make_rows(datasets=[f"set {n}" for n in range(17)], seeds=1), "f1")
    handles = figures[0].legends[0].legend_handles
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 17


def test_sources_are_named_where_there_are_several(tmp_path, figures):
    rows = make_rows(methods=["acs"])
    save_plot(tmp_path / "a.png", rows + [{**row, "source": "photos"} for row in rows], "f1")
    assert [t.get_text() for t in figures[0].axes[0].get_yticklabels()] == ["acs\n(slices)", "acs\n(photos)"]


@pytest.mark.parametrize("rows", [make_rows(seeds=1, folds=1), [{**row, "f1": 0.5} for row in make_rows()]])
def test_no_interval_without_spread(rows, tmp_path, figures):
    save_plot(tmp_path / "a.png", rows, "f1")
    assert len(drawn(figures[0].axes[0], plot._COLOURS[0])) == 4


def test_a_method_without_cells_in_a_mode_keeps_its_line_empty(tmp_path, figures):
    rows = [row for row in make_rows() if (row["mode"], row["method"]) != ("full", "random")]
    save_plot(tmp_path / "a.png", rows, "f1")
    assert {round(float(points[0, 1])) for points in drawn(figures[0].axes[1], plot._COLOURS[0])} == {1}


def test_wrong_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        save_plot(tmp_path / "a.png", [], "f1")
    with pytest.raises(ValueError, match="has None as 'recall'"):
        save_plot(tmp_path / "a.png", make_rows(), "recall")
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionalImportError, match="pip install"):
        save_plot(tmp_path / "a.png", make_rows(), "f1")
