# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from monai_crossd.study.comparisons import compare_averages, compare_methods, make_tables
from monai_crossd.study.paper import read_published
from monai_crossd.study.report import format_cost, format_report, write_report

# data sets as they come, not by modality; scores by method are the sum of the data set's and the method's
DATASETS = {"chest": ("CT", 0.6), "spine": ("MR", 0.5), "organc": ("CT", 0.7)}
METHODS = {"conv2d-i3d": 0.0, "crossd-dynamic": 0.1, "random": -0.2, "acs": 0.001}


def make_rows(modes=("weak_probe",), sources=("slices",), datasets=DATASETS, methods=METHODS, seeds=3, folds=2):
    rng = np.random.default_rng(0)
    rows = []
    for mode in modes:
        for source in sources:
            for dataset in datasets:
                for method in methods:
                    for seed in range(seeds):
                        for fold in range(folds):
                            score = DATASETS[dataset][1] + METHODS[method] + rng.normal(0, 0.005)
                            name = {"source": source, "dataset": dataset, "modality": DATASETS[dataset][0]}
                            cell = {"method": method, "mode": mode, "seed": seed, "fold": fold}
                            sizes = {"n_train": 40, "n_test": 20, "seconds": 30.0}
                            rows.append({**name, **cell, **sizes, "balanced_accuracy": score})
    return rows


def parse(lines):
    """Rows of a Markdown table as dictionaries; the column "std" belongs to the one before."""
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    header = [f"{table[0][at - 1]} std" if name == "std" else name for at, name in enumerate(table[0])]
    assert {len(row) for row in table} == {len(header)}
    return [dict(zip(header, row, strict=True)) for row in table[2:]]


def tables_of(text):
    """Tables of a report, in order."""
    blocks = text.split("\n\n")
    return [parse(block.splitlines()) for block in blocks if block.startswith("|")]


def test_layout_is_that_of_table_two():
    rows = make_rows()
    scores, _ = tables_of(format_report(rows, "conv2d-i3d"))
    assert list(scores[0]) == [
        "Source", "Method",
        "chest (CT) mean", "chest (CT) mean std", "organc (CT) mean", "organc (CT) mean std",
        "spine (MR) mean", "spine (MR) mean std", "Average",
    ]  # fmt: skip
    assert [row["Method"] for row in scores] == list(METHODS)
    for row in scores:
        for dataset, (modality, _) in DATASETS.items():
            values = [r["balanced_accuracy"] for r in rows if (r["dataset"], r["method"]) == (dataset, row["Method"])]
            assert row[f"{dataset} ({modality}) mean"].rstrip(" ↑↓") == f"{np.mean(values):.3f}"
            assert row[f"{dataset} ({modality}) mean std"] == f"{np.std(values, ddof=1):.3f}"
        mean = np.mean([r["balanced_accuracy"] for r in rows if r["method"] == row["Method"]])
        assert row["Average"].strip("* ↑↓") == f"{mean:.3f}"


def test_arrows_show_what_the_corrected_tests_say():
    rows = make_rows()
    scores, comparisons = tables_of(format_report(rows, "conv2d-i3d"))
    found = compare_methods(rows, "conv2d-i3d") + compare_averages(rows, "conv2d-i3d")
    signs = {(c.dataset, c.method): "↑↓"[c.difference < 0] if c.p_holm < 0.05 else "" for c in found}
    for row in scores:
        columns = {dataset: f"{dataset} ({kind}) mean" for dataset, (kind, _) in DATASETS.items()}
        columns["Average"] = "Average"
        shown = {dataset: row[column].strip("*. 0123456789") for dataset, column in columns.items()}
        assert shown == {dataset: signs.get((dataset, row["Method"]), "") for dataset in columns}
        if row["Method"] in ("crossd-dynamic", "random"):  # 0.1 above and 0.2 below, of noise of 0.005
            assert set(shown.values()) == {"↑" if row["Method"] == "crossd-dynamic" else "↓"}
    assert "" in signs.values()
    assert len(comparisons) == len(found) == 12
    for row, c in zip(comparisons, found, strict=True):
        assert (row["Data set"], row["Method"], int(row["Pairs"])) == (c.dataset, c.method, c.pairs)
        assert float(row["Minus conv2d-i3d"]) == pytest.approx(c.difference, abs=6e-4)
        low, high = map(float, row["95 % interval"].split(" to "))
        assert (low, high) == pytest.approx((c.lower, c.upper), abs=6e-4)
        assert row["p (Holm)"] == (f"{c.p_holm:.3f}" if c.p_holm >= 0.001 else "< 0.001")


def test_only_the_highest_average_of_each_source_is_bold():
    rows = make_rows(sources=("slices", "photos"))
    scores, _ = tables_of(format_report(rows, "conv2d-i3d"))
    assert [row["Source"] for row in scores] == ["slices"] * 4 + ["photos"] * 4
    assert [row["Method"] for row in scores if row["Average"].startswith("**")] == ["crossd-dynamic"] * 2


def test_a_mode_each_and_a_mode_without_the_reference():
    rows = make_rows(modes=("linear_probe", "full"))
    rows += make_rows(modes=("scratch2d",), methods=["random"])
    text = format_report(rows, "conv2d-i3d")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [f"## {mode}: balanced accuracy" for mode in ("linear probe", "full", "scratch2d")]
    assert len(tables_of(text)) == 5  # the last has no comparisons
    assert "Nothing is compared: conv2d-i3d has no cell" in text


def test_missing_cells_are_told_and_have_no_average():
    rows = [row for row in make_rows() if (row["method"], row["dataset"]) != ("acs", "spine")]
    rows = [row for row in rows if not (row["method"] == "random" and row["dataset"] == "chest" and row["seed"])]
    rows = [row for row in rows if not (row["method"] == "random" and row["dataset"] == "chest" and row["fold"])]
    text = format_report(rows, "conv2d-i3d")
    scores, comparisons = tables_of(text)
    by_method = {row["Method"]: row for row in scores}
    assert (by_method["acs"]["spine (MR) mean"], by_method["acs"]["Average"]) == ("-", "-")
    assert by_method["random"]["chest (CT) mean std"] == "-"
    assert "over 6 cells (seed × fold). Of fewer: slices, random, chest: 1." in text
    (one,) = [row for row in comparisons if (row["Data set"], row["Method"]) == ("chest", "random")]
    assert one["95 % interval"] == "n/a: 1 cell in common with conv2d-i3d, a test needs 2"
    assert (one["p"], one["p (Holm)"], one["Pairs"]) == ("n/a", "n/a", "1")


def test_published_rows_stand_below_on_data_sets_of_the_same_name():
    text = format_report(make_rows(modes=("weak_probe", "full")), "conv2d-i3d", published=read_published())
    weak, _, full, _ = tables_of(text)
    shown = [row for row in weak if "published" in row["Source"]]
    assert [(row["Source"].split(",")[0], row["Method"]) for row in shown] == [
        (source, method) for source in ("ImageNet", "RadImageNet") for method in ("conv2d", "crossd")
    ]
    assert [row["organc (CT) mean"] for row in shown] == ["0.862", "0.871", "0.842", "0.848"]
    assert {(row["chest (CT) mean"], row["Average"]) for row in shown} == {("-", "-")}
    assert not [row for row in full if "published" in row["Source"]]  # the paper has weak probing
    alone = format_report(make_rows(datasets=["organc"]), "conv2d-i3d", published=read_published())
    assert [row["Average"] for row in tables_of(alone)[0]][-4:] == ["0.862", "0.871", "0.842", "0.848"]


def test_names_do_not_break_the_table():
    rows = [{**row, "source": "a|b"} for row in make_rows()]
    assert "| a\\|b | random |" in format_report(rows, "conv2d-i3d")


def test_cost_adds_cells_and_phases():
    rows = [{"mode": "full", "seconds": 50}] * 3 + [{"mode": "linear_probe", "seconds": "3600"}] * 2
    total = "Cost: 2.0 h of computing, 5 cells (full 3 cells, 2 min; linear probe 2 cells, 2.0 h)."
    assert format_cost(rows) == total
    assert format_cost(rows[:1], {"pretraining": 30}) == (
        "Cost: 80 s of computing, 1 cells (pretraining 30 s; full 1 cells, 50 s)."
    )
    assert format_cost([]) == "Cost: 0 s of computing, 0 cells (nothing yet)."


def test_files_hold_the_numbers(tmp_path):
    rows = make_rows(modes=("linear_probe", "full"))
    paths = write_report(tmp_path / "new", rows, "conv2d-i3d", phases={"pretraining": 60})
    assert [path.name for path in paths] == ["report.md", "table.csv", "comparisons.csv"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    assert paths[0].read_text("utf-8") == format_report(rows, "conv2d-i3d", phases={"pretraining": 60})
    with paths[1].open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["mode"], line["method"]) for line in lines] == [
        (m, x) for m in ("linear_probe", "full") for x in METHODS
    ]
    for table in make_tables(rows, "conv2d-i3d"):
        for line in (line for line in lines if line["mode"] == table.mode):
            by = table.scores["slices", line["method"]]
            assert float(line["spine mean"]) == by["spine"].mean
            assert (float(line["spine std"]), int(line["spine cells"])) == (by["spine"].std, 6)
            assert float(line["Average"]) == table.averages["slices", line["method"]]
            assert (line["Average p_holm"] == "") == (line["method"] == "conv2d-i3d")
    with paths[2].open(encoding="utf-8") as file:
        compared = list(csv.DictReader(file))
    assert len(compared) == 2 * 12
    comparisons = [c for table in make_tables(rows, "conv2d-i3d") for c in table.comparisons]
    assert [float(line["p_holm"]) for line in compared] == [c.p_holm for c in comparisons]


def test_csv_has_no_number_where_there_is_no_test(tmp_path):
    rows = make_rows(seeds=1, folds=1)
    _, table, comparisons = write_report(tmp_path, rows, "conv2d-i3d")
    with table.open(encoding="utf-8") as file:
        assert {(line["chest std"], line["chest p_holm"], line["Average p_holm"]) for line in csv.DictReader(file)} == {
            ("", "", "")
        }
    with comparisons.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(line["p"], line["lower"]) for line in lines} == {("", "")}
    assert all("in common with conv2d-i3d" in line["reason"] for line in lines)


def test_a_failed_report_leaves_the_old_one(tmp_path):
    rows = make_rows()
    (path, *_) = write_report(tmp_path, rows, "conv2d-i3d")
    before = path.read_text("utf-8")
    with pytest.raises(ValueError, match="reference is 'i3d'; expected a method of the rows: conv2d-i3d"):
        write_report(tmp_path, rows, "i3d")
    with pytest.raises(ValueError, match="is there twice"):
        write_report(tmp_path, [*rows, rows[0]], "conv2d-i3d")
    assert path.read_text("utf-8") == before


def test_no_rows_make_a_report_of_nothing():
    assert format_report([], "conv2d-i3d") == "Cost: 0 s of computing, 0 cells (nothing yet).\n"


def test_average_of_a_table_is_that_of_its_means():
    (table,) = make_tables(make_rows(), "conv2d-i3d")
    for name, by in table.scores.items():
        assert table.averages[name] == pytest.approx(np.mean([s.mean for s in by.values()]))
    assert table.cells == 6
    assert table.comparison("slices", "conv2d-i3d", "chest") is None
    assert not math.isnan(table.comparison("slices", "acs", "chest").p)
