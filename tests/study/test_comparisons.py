# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from monai.utils import OptionalImportError
from scipy import stats

from monai_crossd.study.comparisons import (
    AVERAGE,
    compare_averages,
    compare_methods,
    holm,
    resampled_t,
    summarize,
)

METHODS = ("conv2d-i3d", "random", "crossd-dynamic", "crossd-bank")


def make_cells(datasets=("ct", "mr"), methods=METHODS, seeds=4, folds=3, n_test=20, n_train=40):
    """Made-up cells: a score per data set and method, with noise that a (seed, fold) shares and noise of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset in datasets:
        shared = rng.normal(0, 0.05, (seeds, folds))
        for at, method in enumerate(methods):
            own = rng.normal(0, 0.02, (seeds, folds))
            for seed in range(seeds):
                for fold in range(folds):
                    score = 0.6 + 0.03 * at + shared[seed, fold] + own[seed, fold]
                    name = {"source": "slices", "dataset": dataset, "mode": "full", "method": method}
                    cell = {"seed": seed, "fold": fold, "n_train": n_train, "n_test": n_test}
                    rows.append({**name, **cell, "balanced_accuracy": score, "f1": score / 2})
    return rows


def scores(rows, dataset, method):
    chosen = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
    return np.array([row["balanced_accuracy"] for row in sorted(chosen, key=lambda r: (r["seed"], r["fold"]))])


def literal_holm(values):
    """Step down through the sorted values as in Holm's paper: reject while p_(i) <= alpha / (m - i)."""
    result = []
    for p in values:
        # the smallest level at which the procedure gets as far as this value
        rejected_at = []
        for level in np.linspace(0, 1, 10001):
            for rank, q in enumerate(sorted(values)):
                if q > level / (len(values) - rank):
                    break
                if q == p:
                    rejected_at.append(level)
                    break
            if rejected_at:
                break
        result.append(rejected_at[0] if rejected_at else 1.0)
    return result


def test_no_correction_is_students_paired_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.7, 0.1, 15), rng.normal(0.65, 0.1, 15)
    lower, upper, p = resampled_t(a - b, ratio=0.0)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert (lower, upper, p) == pytest.approx((interval.low, interval.high, expected.pvalue), rel=1e-10)


def test_correction_by_hand():
    # mean 3, sample variance (4 + 0 + 1 + 9) / 3 = 14 / 3, and (1/4 + 1/2) 14/3 = 3.5
    lower, upper, p = resampled_t([1.0, 3.0, 2.0, 6.0], ratio=0.5)
    critical = 3.182446305284263  # of three degrees of freedom, from a table
    assert (lower + upper) / 2 == pytest.approx(3)
    assert (upper - lower) / 2 == pytest.approx(critical * math.sqrt(3.5))
    t = 3 / math.sqrt(3.5)
    # the closed form of the t distribution with three degrees of freedom
    cdf = 0.5 + (t / math.sqrt(3) / (1 + t * t / 3) + math.atan(t / math.sqrt(3))) / math.pi
    assert p == pytest.approx(2 * (1 - cdf), rel=1e-9)


def test_correction_holds_its_level_where_the_naive_test_does_not():
    """Overlapping training sets, as correlated differences: the corrected test must reject about 5 % of true nulls."""
    rng = np.random.default_rng(2)
    j, ratio = 15, 1 / 4
    rho = ratio / (1 + ratio)  # the correlation that Nadeau and Bengio's factor stands for
    shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, j))
    draws = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    corrected = np.mean([resampled_t(d, ratio)[2] < 0.05 for d in draws])
    naive = np.mean([resampled_t(d, 0.0)[2] < 0.05 for d in draws])
    assert 0.03 < corrected < 0.07
    assert naive > 0.2


@pytest.mark.parametrize("values", [[0.01], [0.01, 0.04, 0.03], [0.2, 0.9, 0.001, 0.013], [0.5, 0.6, 0.7]])
def test_holm_is_the_literal_procedure(values):
    assert holm(values) == pytest.approx(literal_holm(values), abs=1.01e-4)


def test_holm_leaves_out_what_was_not_tested():
    result = holm([0.02, math.nan, 0.01])
    assert math.isnan(result[1])
    assert [result[0], result[2]] == [0.02, 0.02]
    assert holm([]) == []


def test_summary_is_mean_and_sample_deviation():
    rows = make_cells()
    summary = {(s.dataset, s.method): s for s in summarize(rows)}
    assert list(summary) == [(d, m) for d in ("ct", "mr") for m in METHODS]
    for (dataset, method), s in summary.items():
        values = scores(rows, dataset, method)
        assert (s.mean, s.std, s.cells) == pytest.approx((values.mean(), values.std(ddof=1), 12))
    assert math.isnan(summarize(rows[:1])[0].std)
    assert summarize(rows, "f1")[0].mean == pytest.approx(summary["ct", METHODS[0]].mean / 2)


def test_comparisons_use_the_pairs_and_their_ratio():
    rows = make_cells()
    found = compare_methods(rows, "conv2d-i3d")
    assert [(c.dataset, c.method) for c in found] == [(d, m) for d in ("ct", "mr") for m in METHODS[1:]]
    for c in found:
        expected = resampled_t(scores(rows, c.dataset, c.method) - scores(rows, c.dataset, "conv2d-i3d"), 0.5)
        assert (c.lower, c.upper, c.p) == pytest.approx(expected)
        assert c.difference == pytest.approx((c.lower + c.upper) / 2)
        assert (c.pairs, c.reason) == (12, "")
    for dataset in ("ct", "mr"):  # a family each
        family = [c for c in found if c.dataset == dataset]
        assert [c.p_holm for c in family] == pytest.approx(holm([c.p for c in family]))


def test_without_test_cases_it_is_scipys_paired_test():
    rows = make_cells(n_test=0)
    for c in compare_methods(rows, "random"):
        expected = stats.ttest_rel(scores(rows, c.dataset, c.method), scores(rows, c.dataset, "random"))
        assert c.p == pytest.approx(expected.pvalue)


def test_order_and_text_of_the_rows_do_not_matter():
    rows = make_cells()
    texts = [{name: str(value) for name, value in row.items()} for row in rows]  # as read from a CSV file
    shuffled = [texts[at] for at in np.random.default_rng(3).permutation(len(texts))]
    whole = {c[:4]: c for c in compare_methods(rows, "random")}
    for c in compare_methods(shuffled, "random"):
        assert c[5:11] == pytest.approx(whole[c[:4]][5:11])


def test_missing_cells_leave_their_pair_out():
    rows = [r for r in make_cells() if not (r["method"] == "crossd-bank" and r["seed"] == 2)]
    rows = [r for r in rows if not (r["method"] == "random" and (r["seed"], r["fold"]) == (0, 1))]
    (c,) = [c for c in compare_methods(rows, "random") if (c.dataset, c.method) == ("ct", "crossd-bank")]
    a, b = ({(r["seed"], r["fold"]): r["balanced_accuracy"] for r in rows if (r["dataset"], r["method"]) == ("ct", m)}
            for m in ("crossd-bank", "random"))  # fmt: skip
    common = sorted(set(a) & set(b))
    assert c.pairs == len(common) == 8
    assert (c.lower, c.upper, c.p) == pytest.approx(resampled_t([a[x] - b[x] for x in common], 0.5))


@pytest.mark.parametrize(
    ("kept", "pairs", "reason"),
    [(0, 0, "0 cells in common with random"), (1, 1, "1 cell in common with random")],
)
def test_too_few_pairs_give_a_reason_and_no_number(kept, pairs, reason):
    rows = make_cells(datasets=["ct"], methods=["random", "acs"])
    rows = rows[:12] + rows[12 : 12 + kept] + [{**rows[12], "seed": 99}]
    (c,) = compare_methods(rows, "random")
    assert c.reason.startswith(reason)
    assert c.pairs == pairs
    assert math.isnan(c.p)
    assert math.isnan(c.p_holm)
    assert math.isnan(c.difference) == (pairs == 0)
    assert not c.significant


def test_equal_differences_give_a_reason_and_no_number():
    rows = make_cells(datasets=["ct"], methods=["random"])
    rows += [{**row, "method": "copy", "balanced_accuracy": row["balanced_accuracy"] + 0.1} for row in rows]
    (c,) = compare_methods(rows, "random")
    assert c.difference == pytest.approx(0.1)
    assert math.isnan(c.p)
    assert "all differences are equal" in c.reason


def test_reference_is_that_of_the_same_source():
    rows = make_cells(datasets=["ct"])
    other = [{**row, "source": "photos", "balanced_accuracy": row["balanced_accuracy"] / 2} for row in rows]
    found = {(c.source, c.method): c for c in compare_methods(rows + other, "random")}
    for method in ("conv2d-i3d", "crossd-bank"):
        assert found["photos", method].difference == pytest.approx(found["slices", method].difference / 2)
    family = list(found.values())
    assert [c.p_holm for c in family] == pytest.approx(holm([c.p for c in family]))  # of one data set and mode
    without = [row for row in other if row["method"] != "random"]
    assert {c.pairs for c in compare_methods(rows + without, "random") if c.source == "photos"} == {0}


def test_averages_are_students_test_over_seeds():
    rows = make_cells()
    for c in compare_averages(rows, "conv2d-i3d"):
        # (data set, seed, fold) -> mean over data sets and folds, by seed
        a, b = (np.stack([scores(rows, d, m) for d in ("ct", "mr")]).reshape(2, 4, 3).mean((0, 2))
                for m in (c.method, "conv2d-i3d"))  # fmt: skip
        expected = stats.ttest_rel(a, b)
        assert (c.dataset, c.pairs) == (AVERAGE, 4)
        assert (c.difference, c.p) == pytest.approx(((a - b).mean(), expected.pvalue))


def test_averages_weigh_data_sets_equally_whatever_their_folds():
    rows = [r for r in make_cells(methods=["random", "acs"]) if r["dataset"] == "ct" or r["fold"] == 0]
    (c,) = compare_averages(rows, "random")
    ct = (scores(rows, "ct", "acs") - scores(rows, "ct", "random")).reshape(4, 3).mean(1)
    mr = scores(rows, "mr", "acs") - scores(rows, "mr", "random")
    assert c.difference == pytest.approx(((ct + mr) / 2).mean())


def test_averages_take_seeds_with_every_data_set():
    rows = [r for r in make_cells(methods=["random", "acs"]) if not (r["dataset"] == "mr" and r["seed"] == 1)]
    (c,) = compare_averages(rows, "random")
    assert c.pairs == 3
    rows = [r for r in rows if not (r["dataset"] == "mr" and r["method"] == "acs")]
    (c,) = compare_averages(rows, "random")
    assert (c.pairs, c.reason) == (0, "0 seeds in common with random, a test needs 2")


@pytest.mark.parametrize("compare", [compare_methods, compare_averages])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "Seed 0, fold 0 of slices, ct, full, conv2d-i3d is there twice"),
        (lambda rows: [{**rows[0], "balanced_accuracy": float("nan")}, *rows[1:]], "has nan as 'balanced_accuracy'"),
        (lambda rows: [{k: v for k, v in rows[0].items() if k != "balanced_accuracy"}], "has None as"),
    ],
)
def test_wrong_cells_are_named(compare, change, message):
    with pytest.raises(ValueError, match=message):
        compare(change(make_cells()), "conv2d-i3d")


@pytest.mark.parametrize("compare", [compare_methods, compare_averages])
def test_unknown_reference_is_named(compare):
    with pytest.raises(ValueError, match="reference is 'acs'; expected a method of the rows: conv2d-i3d, random"):
        compare(make_cells(), "acs")
    assert compare([], "acs") == []


def test_missing_scipy_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(OptionalImportError, match="pip install scipy"):
        resampled_t([0.1, 0.2], 0.0)


def test_a_split_that_never_changes_is_not_corrected():
    """Cells of an official split have one test set: Student's paired test over them."""
    rows = make_cells(datasets=("ct",), folds=1)
    corrected = compare_methods(rows, METHODS[0], "f1")
    plain = compare_methods([{**row, "resampled": False} for row in rows], METHODS[0], "f1")
    for one, other in zip(corrected, plain, strict=True):
        of = {
            method: np.array([row["f1"] for row in rows if row["method"] == method])
            for method in (one.method, METHODS[0])
        }
        assert other.p == pytest.approx(stats.ttest_rel(of[one.method], of[METHODS[0]]).pvalue)
        assert one.p > other.p
        assert one.difference == other.difference
