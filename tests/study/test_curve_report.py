# SPDX-License-Identifier: Apache-2.0
"""Intervals of a curve study against scipy's bootstrap and by their coverage; tables and figure by what is in them."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from monai_crossd.study import plot
from monai_crossd.study.curve import read_curve
from monai_crossd.study.curve_report import (
    Interval,
    compare_curves,
    curve_points,
    format_curve,
    write_curve_report,
)
from monai_crossd.study.plot import save_curve


def study(names=("scratch", "conv2d-i3d", "conv2d-acs", "crossd"), **values):
    return read_curve(
        {
            "task": "segmentation", "name": "livers", "data": "-", "modality": "ct", "spatial_size": [8, 8, 8],
            "network": {"_target_": "x"}, "initializations": {name: {} for name in names}, "iterations": 1,
            "batch_size": 1, "learning_rate": 1, "compare_with": ["scratch", "conv2d-*"], "train_cases": [2, "all"],
            **values,
        }
    )  # fmt: skip


def result(name, scores, seed=0, count=2):
    """A cell with a Dice per volume."""
    items = [f"v{at}" for at in range(len(scores))]
    return {
        "initialization": name, "train_cases": count, "volumes": 9 if count == "all" else count, "seed": seed,
        "seconds": 60, "items": items, "patients": items, "structures": ["liver"],
        "dice": [[float(s)] for s in scores], "surface_distance": [[1.0] for _ in scores],
    }  # fmt: skip


def drawn(name, mean, patients=40, seeds=(0, 1, 2), rng=None, seed_spread=0.0, count=2):
    """Cells whose patients are alike hard for every network."""
    rng = rng or np.random.default_rng(0)
    hard = np.random.default_rng(9).normal(0, 0.1, patients)
    return [
        result(name, mean + hard + rng.normal(0, 0.05, patients) + rng.normal(0, seed_spread), seed, count)
        for seed in seeds
    ]


def test_the_interval_of_a_score_is_scipys_bootstrap_of_the_mean_over_seeds():
    cells = drawn("scratch", 0.6)
    (point,) = curve_points(cells, "dice")
    mean = np.mean([np.array(c["dice"])[:, 0] for c in cells], axis=0)
    theirs = stats.bootstrap((mean,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert point.score.estimate == pytest.approx(mean.mean())
    assert (point.score.lower_patients, point.score.upper_patients) == pytest.approx(tuple(theirs), abs=0.002)
    assert (point.seeds, point.patients, point.volumes) == (3, 40, 2)
    # and the closed form: the mean of many is normal
    half = 1.96 * mean.std() / math.sqrt(40)
    assert point.score.upper_patients - point.score.lower_patients == pytest.approx(2 * half, rel=0.04)


def test_the_interval_of_a_difference_is_scipys_paired_bootstrap():
    rng = np.random.default_rng(4)
    cells = drawn("scratch", 0.6, rng=rng) + drawn("crossd", 0.61, rng=rng)
    shown = study(("scratch", "crossd"), compare_with=["scratch"])
    (found,) = compare_curves(shown, cells, "dice")
    own, other = (
        np.mean([np.array(c["dice"])[:, 0] for c in cells if c["initialization"] == n], axis=0)
        for n in ("crossd", "scratch")
    )
    theirs = stats.bootstrap(
        (own, other), lambda a, b, axis: (a - b).mean(axis), paired=True, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    assert found.difference.estimate == pytest.approx((own - other).mean())
    found_bounds = found.difference.lower_patients, found.difference.upper_patients
    assert found_bounds == pytest.approx(tuple(theirs), abs=0.002)
    assert found.ahead == sum(
        np.mean(a["dice"]) > np.mean(b["dice"]) for a, b in zip(cells[3:], cells[:3], strict=True)
    )
    # of one seed there is nothing else to draw, and p is near that of the t-test on the same pairs
    (found,) = compare_curves(shown, [cells[0], cells[3]], "dice")
    assert found.difference[1:3] == found.difference[3:]
    pairs = (np.array(cell["dice"])[:, 0] for cell in (cells[3], cells[0]))
    assert found.p == pytest.approx(stats.ttest_rel(*pairs).pvalue, abs=0.02)


def test_with_seeds_the_variance_is_that_of_patients_and_that_of_seeds():
    """Where patients do not differ the interval has the standard error of the seeds' mean."""
    values = 0.6 + 0.1 * np.random.default_rng(3).normal(size=12)
    cells = [result("scratch", [value] * 20, seed) for seed, value in enumerate(values)]
    (point,) = curve_points(cells, "dice")
    assert point.score.lower_patients == pytest.approx(point.score.upper_patients)
    half = 1.96 * values.std(ddof=1) / math.sqrt(12)
    assert point.score.upper - point.score.lower == pytest.approx(2 * half, rel=0.05)


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    """Over patients where seeds do not matter; over both where they do, and the first is far too narrow."""
    shown = study(("scratch", "crossd"), compare_with=["scratch"])
    held = {"patients": 0, "patients, seeds differ": 0, "both, seeds differ": 0}
    runs = 300
    for run in range(runs):
        rng = np.random.default_rng([run, 7])
        for spread in (0.0, 0.03):
            seeds = range(8)
            cells = drawn("scratch", 0.6, 30, seeds, rng, spread) + drawn("crossd", 0.65, 30, seeds, rng, spread)
            (found,) = compare_curves(shown, cells, "dice", resamples=600, seed=run)
            interval = found.difference
            if not spread:
                held["patients"] += interval.lower_patients <= 0.05 <= interval.upper_patients
            else:
                held["patients, seeds differ"] += interval.lower_patients <= 0.05 <= interval.upper_patients
                held["both, seeds differ"] += interval.lower <= 0.05 <= interval.upper
    share = {name: count / runs for name, count in held.items()}
    assert 0.90 <= share["patients"] <= 0.98
    assert 0.87 <= share["both, seeds differ"] <= 0.98
    assert share["patients, seeds differ"] < 0.6


def test_p_values_without_a_difference_are_level():
    shown = study(("scratch", "crossd"), compare_with=["scratch"])
    p = []
    for run in range(200):
        rng = np.random.default_rng(1000 + run)
        cells = drawn("scratch", 0.6, 30, (0,), rng) + drawn("crossd", 0.6, 30, (0,), rng)
        p.append(compare_curves(shown, cells, "dice", resamples=400, seed=run)[0].p)
    assert np.mean(np.array(p) < 0.05) < 0.10
    assert stats.kstest(p, "uniform").pvalue > 0.01


def everything():
    """Two numbers of volumes; acs is the better plain inflation of few, i3d of all; crossd is ahead of both."""
    rng = np.random.default_rng(5)
    means = {"scratch": (0.4, 0.8), "conv2d-i3d": (0.5, 0.82), "conv2d-acs": (0.55, 0.81), "crossd": (0.6, 0.83)}
    return [
        cell
        for name, values in means.items()
        for count, mean in zip((2, "all"), values, strict=True)
        for cell in drawn(name, mean, rng=rng, count=count)
    ]


def test_what_is_compared_with_what():
    found = compare_curves(study(), everything(), "dice")
    assert [(d.initialization, d.best, d.train_cases) for d in found] == [
        *((name, "scratch", 2) for name in ("conv2d-i3d", "conv2d-acs", "crossd")),
        *((name, "scratch", "all") for name in ("conv2d-i3d", "conv2d-acs", "crossd")),
        ("crossd", "conv2d-acs", 2),
        ("crossd", "conv2d-i3d", "all"),
    ]
    for start in (0, 3):
        family = found[start : start + 3]
        assert all(d.p_holm >= d.p for d in family)
        assert max(d.p_holm for d in family) <= 3 * max(d.p for d in family)
    assert found[0].difference.estimate == pytest.approx(0.1, abs=0.02)
    assert found[0].ahead == found[0].seeds == 3


def test_of_distances_the_smaller_is_the_better():
    cells = drawn("scratch", 0.5) + drawn("conv2d-i3d", 0.5) + drawn("conv2d-acs", 0.5) + drawn("crossd", 0.5)
    for cell in cells:
        value = {"scratch": 3.0, "conv2d-i3d": 1.0, "conv2d-acs": 2.0, "crossd": 0.5}[cell["initialization"]]
        cell["surface_distance"] = [[value] for _ in cell["items"]]
    found = compare_curves(study(), cells, "surface_distance")
    assert [(d.initialization, d.best, d.difference.estimate, d.ahead) for d in found][2:] == [
        ("crossd", "scratch", -2.5, 3),
        ("crossd", "conv2d-i3d", -0.5, 3),
    ]


def test_seeds_that_one_of_them_lacks_are_left_out():
    rng = np.random.default_rng(2)
    cells = drawn("scratch", 0.5, seeds=(0, 1), rng=rng) + drawn("crossd", 0.6, seeds=(1, 2), rng=rng)
    (found,) = compare_curves(study(("scratch", "crossd"), compare_with=["scratch"]), cells, "dice")
    assert found.seeds == 1
    assert found.difference.estimate == pytest.approx(np.mean(cells[2]["dice"]) - np.mean(cells[1]["dice"]))
    assert found.difference.lower == found.difference.lower_patients


def test_files_of_a_study(tmp_path):
    shown = study(published={"nnU-Net": {"dice/liver": 0.95}})
    paths = write_curve_report(tmp_path, shown, everything())
    assert [path.name for path in paths] == ["report.md", "cells.csv", "table.csv", "comparisons.csv", "curve.png"]
    report = paths[0].read_text()
    assert "| nnU-Net | - | 0.950 |" in report
    assert "against the best of conv2d-i3d, conv2d-acs" in report
    assert "24 cells, 24 min" in report
    with paths[1].open() as opened:
        lines = list(csv.DictReader(opened))
    assert list(lines[0])[:6] == ["initialization", "train_cases", "seed", "volumes", "dice", "dice/liver"]
    for cell, line in zip(everything(), lines, strict=True):
        assert [line[key] for key in list(line)[:4]] == [
            str(cell[key]) for key in ("initialization", "train_cases", "seed", "volumes")
        ]
        assert float(line["dice"]) == pytest.approx(np.mean(cell["dice"]), abs=1e-6)
        assert float(line["surface_distance"]) == 1
    with paths[2].open() as opened:
        table = list(csv.DictReader(opened))
    assert len(table) == 4 * 8
    (point,) = (p for p in curve_points(everything(), "dice") if (p.initialization, p.train_cases) == ("crossd", 2))
    (row,) = (r for r in table if (r["metric"], r["initialization"], r["train_cases"]) == ("dice", "crossd", "2"))
    assert [float(row[name]) for name in ("score", *Interval._fields[1:])] == pytest.approx(list(point.score), abs=1e-6)
    with paths[3].open() as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 4 * 8
    assert set(rows[0]) >= {
        "difference",
        "lower",
        "upper",
        "lower_patients",
        "upper_patients",
        "p",
        "p_holm",
        "ahead",
        "best",
    }


@pytest.mark.parametrize("named", [True, False])
def test_volumes_are_called_patients_only_where_patients_are_named(named, tmp_path):
    """Blocks of one patient are no patients."""
    cells = everything()
    for cell in cells:
        cell["patients"] = [f"P{at // 2}" for at in range(40)] if named else cell["items"]
    paths = write_curve_report(tmp_path, study(), cells)
    report, table = paths[0].read_text(), paths[2].read_text()
    expected, other = ("patients", "volumes") if named else ("volumes", "patients")
    assert f"over {20 if named else 40} test {expected} and the seeds" in report
    assert f"| {expected} alone |" in report
    assert f"test {other}" not in report
    assert {row["unit"] for row in csv.DictReader(table.splitlines())} == {expected}


def test_an_unfinished_study_is_reported_as_far_as_it_is(tmp_path):
    cells = [cell for cell in everything() if cell["initialization"] != "conv2d-acs" and cell["seed"] == 0][:3]
    report = write_curve_report(tmp_path, study(), cells)[0].read_text()
    assert "| conv2d-acs | - | - |" in report
    few = write_curve_report(tmp_path, study(), cells[:1])[0].read_text()
    assert "| initialization | 2 |\n" in few  # what has no cell is no column,
    shown = study(train_cases=[2, 4], published={"nnU-Net": {"dice": 0.95}})
    whole = write_curve_report(tmp_path, shown, cells[:1])[0].read_text()
    assert "| initialization | 2 | all |\n" in whole  # but for published scores, which are of all
    assert "| nnU-Net | - | 0.950 |" in whole
    assert "one seed" in report
    with pytest.raises(ValueError, match="no finished cell"):
        write_curve_report(tmp_path, study(), [])


def test_cells_that_were_tested_on_other_items_are_not_compared():
    cells = drawn("scratch", 0.5)
    cells[1]["items"] = cells[1]["items"][::-1]
    with pytest.raises(ValueError, match="scratch with 2 volumes, seed 1, was tested on other items"):
        curve_points(cells, "dice")


COLOURS = {"scratch": "#000000", "conv2d-i3d": "#0072B2", "conv2d-acs": "#56B4E9", "crossd": "#009E73"}


def near(path, colour):
    """Which pixels of a figure have a colour."""
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.abs(image - [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).max(2) < 12


def columns(path, colour):
    """Where a figure has a colour, as a part of its width."""
    found = near(path, colour)
    return np.flatnonzero(found.any(0)) / found.shape[1]


def test_the_figure_shows_every_line_and_its_legend_lies_beside_the_axes(tmp_path):
    path = save_curve(tmp_path / "curve.png", study(), curve_points(everything(), "dice"))
    for colour in COLOURS.values():
        assert columns(path, colour)[0] < 0.3  # the line begins at the left,
        assert columns(path, colour)[-1] > 0.8  # and its sample in the legend is at the right


def test_a_figure_of_one_number_of_volumes_and_one_seed_shows_what_there_is(tmp_path):
    cells = [cell for cell in everything() if (cell["train_cases"], cell["seed"]) == (2, 0)][1:]
    path = save_curve(tmp_path / "curve.png", study(), curve_points(cells, "dice"))
    left, middle, right = (columns(path, COLOURS[n])[0] for n in ("conv2d-i3d", "conv2d-acs", "crossd"))
    assert left < middle < right < 0.8  # beside each other


def test_published_scores_of_the_metric_are_lines_across_the_figure(tmp_path):
    points = curve_points(everything(), "dice")
    plain = save_curve(tmp_path / "plain.png", study(), points)
    other = save_curve(tmp_path / "other.png", study(published={"nnU-Net": {"surface_distance": 0.9}}), points)
    assert plain.read_bytes() == other.read_bytes()
    shown = save_curve(tmp_path / "shown.png", study(published={"nnU-Net": {"dice": 0.7}}), points)
    before, after = (np.asarray(Image.open(path).convert("L")).astype(int) for path in (plain, shown))
    rows = np.flatnonzero((before - after > 40).sum(1) > 250)  # dashes from side to side
    assert 1 <= len(rows) <= 2
    assert np.flatnonzero((before - after).any(1)).max() <= rows.max() + 1  # and its name above


def test_figure_shows_what_the_study_names(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    for figure in ([], ["conv2d-*", "scratch"]):
        save_curve(tmp_path / "curve.png", study(figure=figure), curve_points(everything(), "dice", 10))
    shown = [{text.get_text() for text in figure.legends[0].get_texts()} for figure in figures]
    assert shown == [{"scratch", "conv2d-i3d", "conv2d-acs", "crossd"}, {"scratch", "conv2d-i3d", "conv2d-acs"}]


def test_report_names_trainings_that_lost_a_structure():
    cells = [result("scratch", [0.0, 0.0], 1), result("scratch", [0.0, 0.3]), result("crossd", [0.5, 0.5], count="all")]
    cells[2]["dice"] = [[None], [0.0]]
    said = format_curve(study(), cells, curve_points(cells, "dice", 10), [])
    assert (
        "2 of 3 cells found a structure in no volume: liver by scratch of 2 volumes, seed 1; "
        "liver by crossd of all volumes, seed 0." in said
    )
    assert "in no volume" not in format_curve(study(), cells[1:2], curve_points(cells[1:2], "dice", 10), [])
