# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_crossd.visualize import draw_shifts, read_shifts

HEADER = "epoch,layer,axis,samples,mean,std,q05,q25,q50,q75,q95\n"


def table(layers, epochs):
    """Three rows per layer and epoch; their median tells them apart."""
    lines = [
        f"{epoch},{layer},{axis},10,1.0,0.1,0.8,0.9,{at + epoch / 10},1.1,1.2\n"
        for epoch in range(1, epochs + 1)
        for layer in layers
        for at, axis in enumerate(("depth", "row", "column"))
    ]
    return HEADER + "".join(lines)


@pytest.mark.parametrize("layers", [["conv1"], [""], [f"b{i}" for i in range(8)]])
def test_a_panel_per_layer(tmp_path, figures, layers):
    (tmp_path / "shifts.csv").write_text(table(layers, 2))
    assert draw_shifts(tmp_path / "shifts.csv", tmp_path / "s.png").stat().st_size > 1000
    panels = [axes for axes in figures[0].axes if axes.lines]
    assert [axes.get_title() for axes in panels] == [layer or "the network" for layer in layers]
    for axes in panels:
        curves = [line.get_xydata().tolist() for line in axes.lines[:3]]
        assert curves == [[[1, at + 0.1], [2, at + 0.2]] for at in range(3)]
        bands = [band.get_paths()[0].get_extents() for band in axes.collections[:2]]
        assert [(band.y0, band.y1) for band in bands] == [(0.8, 1.2), (0.9, 1.1)]
    assert [axes.get_title() for axes in panels if axes.get_xlabel() == "epoch"] == [
        axes.get_title() for axes in panels[-6:]
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "holds no shifts"),
        ("", "is no table of shifts"),
        ("epoch,train_loss\n1,0.5\n", r"is no table of shifts \(its columns are"),
        (HEADER + "1,conv1,depth,10,1.0\n", "is no table of shifts"),
        (HEADER + "1,conv1,depth,10,1.0,0.1,0.8,0.9,x,1.1,1.2\n", "is no table of shifts"),
    ],
)
def test_no_table(tmp_path, text, message):
    (tmp_path / "shifts.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        draw_shifts(tmp_path / "shifts.csv", tmp_path / "s.png")
    assert [path.name for path in tmp_path.iterdir()] == ["shifts.csv"]


def test_reading(tmp_path):
    (tmp_path / "shifts.csv").write_text(table(["a"], 1))
    rows = read_shifts(tmp_path / "shifts.csv")
    assert rows[1] == (1, "a", "row", 10, 1.0, 0.1, 0.8, 0.9, 1.1, 1.1, 1.2)
