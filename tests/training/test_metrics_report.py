# SPDX-License-Identifier: Apache-2.0
"""Metrics with confidence intervals: against slow literal forms, scikit-learn, MONAI, and with real evaluators."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from ignite.metrics import Precision, Recall
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import HausdorffDistance, MeanDice, from_engine
from monai.metrics import DiceMetric, compute_roc_auc
from monai.transforms import AsDiscreted, Compose
from PIL import Image
from processes import start

from monai_crossd.training import (
    BalancedAccuracy,
    ClassificationReport,
    MetricsReport,
    classification_scores,
    confusion_counts,
)
from monai_crossd.training.metrics_report import case_scores
from monai_crossd.training.scores import Score, bootstrap_mean, format_scores, percentile_interval, resampled_cases

LABELS = {0: "background", 1: "liver", 2: "tumour"}


def read(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def predictions(n: int, classes: int, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) and true classes (N,) of a classifier that is better than chance."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[truth]
    if ties:
        logits = np.rint(logits)
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(1, keepdims=True), truth


def by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.metric, score.label): score for score in scores}


def names(classes: int) -> dict[int, str]:
    return {i: f"class {i}" for i in range(classes)}


def test_mean_and_interval_are_those_of_a_literal_loop():
    values = np.random.default_rng(3).beta(8, 2, size=23)
    rng = np.random.default_rng(7)
    means = sorted(np.mean([values[rng.integers(23)] for _ in range(23)]) for _ in range(4000))
    mean, lower, upper, n = bootstrap_mean(np.append(values, math.nan), 4000, seed=1)
    assert mean == pytest.approx(values.mean())
    assert n == 23
    width = means[3900] - means[100]
    assert lower == pytest.approx(means[100], abs=0.06 * width)
    assert upper == pytest.approx(means[3900], abs=0.06 * width)


def test_interval_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).beta(8, 2, size=40)
    _, lower, upper, _ = bootstrap_mean(values, 5000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=0).confidence_interval
    assert (lower, upper) == pytest.approx(tuple(theirs), abs=0.05 * (theirs.high - theirs.low))


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.beta(8, 2, 60), 400)[1:3] for _ in range(300)]
    hits = [lower <= 0.8 <= upper for lower, upper in intervals]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_equal_seeds_draw_equally():
    values = np.random.default_rng(3).random(9)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (math.nan, math.nan, math.nan, 0)),
        ([math.nan], (math.nan, math.nan, math.nan, 0)),
        ([0.5], (0.5, math.nan, math.nan, 1)),
        ([0.5, math.nan, 0.7], (0.6, math.nan, math.nan, 2)),
        ([0.5, 0.5, 0.5], (0.5, 0.5, 0.5, 3)),
        ([1.0, 2.0, math.inf], (math.inf, 1.0, math.inf, 3)),  # a Hausdorff distance to an empty prediction
    ],
)
def test_few_and_odd_cases(values, expected):
    assert bootstrap_mean(np.array(values)) == pytest.approx(expected, nan_ok=True)


def test_interval_leaves_nan_out():
    samples = np.stack([np.arange(101.0), np.full(101, math.nan)], 1)
    samples[::2, 0] = math.nan  # 1, 3, ..., 99 stay
    lower, upper = percentile_interval(samples)
    np.testing.assert_array_equal(lower, [3, math.nan])
    np.testing.assert_array_equal(upper, [97, math.nan])


def test_many_cases_are_drawn_in_blocks():
    blocks = list(resampled_cases(5000, 1000, width=20000))
    assert len(blocks) > 1
    assert sum(map(len, blocks)) == 1000
    assert {block.shape[1] for block in blocks} == {5000}
    assert (blocks[0][0] != blocks[1][0]).any()


def test_dice_per_class_and_overall_are_monais():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(3, (2, 12, 6, 6), generator=generator)
    y, pred = torch.nn.functional.one_hot(maps).movedim(-1, 2)
    y[4:, 0] += y[4:, 2]
    y[4:, 2] = 0  # the tumour is in four cases only
    details = DiceMetric(include_background=False)(pred, y)
    scores = by_name(case_scores("dice", details.numpy(), ["liver", "tumour"]))
    for reduction, rows in (("mean", ["overall"]), ("mean_batch", ["liver", "tumour"])):
        metric = DiceMetric(include_background=False, reduction=reduction)
        metric(pred, y)
        expected = metric.aggregate().flatten().tolist()
        assert [scores["dice", row].estimate for row in rows] == pytest.approx(expected)
    assert [scores["dice", row].n for row in ("overall", "liver", "tumour")] == [12, 12, 4]
    assert all(s.lower < s.estimate < s.upper for s in scores.values())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), [(60, 2), (80, 5), (7, 5)])
def test_classification_scores_are_scikit_learns(n, classes, ties):
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, truth = predictions(n, classes, ties=ties)
    truth[truth == 1] = 0  # a class that is predicted only
    predicted = probabilities.argmax(1)
    scores = by_name(classification_scores(probabilities, truth, names(classes), resamples=10))
    expected = {"accuracy": metrics.accuracy_score(truth, predicted)}
    expected["balanced_accuracy"] = np.mean([np.mean(predicted[truth == c] == c) for c in set(truth)])
    for name in ("precision", "recall", "f1"):
        function = getattr(metrics, f"{name}_score")
        expected[f"macro_{name}"] = function(truth, predicted, average="macro", zero_division=0)
        each = function(truth, predicted, average=None, zero_division=0, labels=range(classes))
        for c in set(truth):
            assert scores[name, f"class {c}"].estimate == pytest.approx(each[c])
    aucs = [metrics.roc_auc_score(truth == c, probabilities[:, c]) for c in set(truth) if len(set(truth)) > 1]
    if aucs:
        expected["macro_auc"] = np.mean(aucs)
    for name, value in expected.items():
        assert scores[name, "overall"].estimate == pytest.approx(value), name
    assert (
        confusion_counts(predicted, truth, classes).tolist()
        == metrics.confusion_matrix(truth, predicted, labels=range(classes)).tolist()
    )
    assert math.isnan(scores["recall", "class 1"].estimate)
    assert scores["recall", "class 1"].n == 0


def test_classification_scores_are_monais_and_ignites():
    probabilities, truth = predictions(90, 4)
    scores = by_name(classification_scores(probabilities, truth, names(4), resamples=10))
    pair = torch.from_numpy(probabilities), torch.from_numpy(truth)
    one_hot = torch.nn.functional.one_hot(pair[1])
    assert scores["macro_auc", "overall"].estimate == pytest.approx(compute_roc_auc(pair[0], one_hot, "macro"))
    each = compute_roc_auc(pair[0], one_hot, "none")
    assert [scores["auc", f"class {c}"].estimate for c in range(4)] == pytest.approx(each)
    for name, metric in (("precision", Precision(average="macro")), ("recall", Recall(average="macro"))):
        metric.update(pair)
        assert scores[f"macro_{name}", "overall"].estimate == pytest.approx(metric.compute())


def test_intervals_are_of_resampled_cases():
    """Each resample is scored as if it were the data: a loop over the same cases gives the same interval."""
    probabilities, truth = predictions(40, 3, ties=True)
    scores = by_name(classification_scores(probabilities, truth, names(3), resamples=60, seed=5))
    again: dict[tuple[str, str], list[float]] = {}
    for cases in np.concatenate(list(resampled_cases(40, 60, 5))):
        for s in classification_scores(probabilities[cases], truth[cases], names(3), resamples=1):
            again.setdefault((s.metric, s.label), []).append(s.estimate)
    for key, values in again.items():
        lower, upper = percentile_interval(np.array(values))
        assert scores[key][3:5] == pytest.approx((lower, upper)), key


def test_a_perfect_classifier():
    scores = classification_scores(np.eye(3)[np.arange(30) % 3] * 0.94 + 0.02, np.arange(30) % 3, names(3))
    assert {s[2:5] for s in scores} == {(1, 1, 1)}


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        (np.full((4, 2), 0.5), [0, 1, 0], r"shape \(4, 2\); expected \(3, 3\)"),
        (np.full((3, 2), 0.5), [0, 1, 0], r"expected \(3, 3\)"),
        (np.zeros((0, 3)), [], "at least one case"),
        (np.array([[2.0, -1, 0]] * 3), [0, 1, 0], "apply softmax to logits"),
        (np.array([[0.5, 0.6, 0.5]] * 3), [0, 1, 0], "apply softmax to logits"),
        (np.full((3, 3), 1 / 3), [0, 1, 3], r"from 0 to 3, but the labels are 0\.\.2"),
        (np.full((3, 3), 1 / 3), [0, 1, -1], "from -1 to 1"),
    ],
)
def test_wrong_predictions(probabilities, truth, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(probabilities, np.array(truth, dtype=int), LABELS)


def test_the_table_says_what_it_cannot_say():
    nan = math.nan
    lines = format_scores(
        [Score("dice", "overall", 0.8, 0.7, 0.9, 3), Score("dice", "liver", 0.5, nan, nan, 2),
         Score("dice", "tumour", nan, nan, nan, 0), Score("auc", "liver", nan, nan, nan, 9)]
    ).splitlines()  # fmt: skip
    assert [line.split()[2:] for line in lines[1:]] == [
        ["0.800", "0.700", "to", "0.900", "3"],
        ["0.500", "too", "few", "cases", "2"],
        ["-", "too", "few", "cases", "0"],
        ["-", "-", "9"],
    ]
    assert len(set(map(len, lines))) == 1


def volumes(n: int) -> list[dict]:
    """Label maps with a liver, every other one with a tumour, and predictions that are shifted by one voxel."""
    items = []
    for i in range(n):
        label = torch.zeros(1, 12, 12, 12)
        label[0, 2 : 6 + i % 4, 2:9, 2:9] = 1
        if i % 2:
            label[0, 3:6, 3:6, 3:6] = 2
        image = MetaTensor(label.roll(1, 1), meta={"filename_or_obj": f"/data/a,b/case_{i}.nii.gz"})
        items.append({"image": image, "label": label})
    return items


def segmentation_evaluator(items, handlers, batch_size=2, **metrics) -> SupervisedEvaluator:
    chosen = from_engine(["pred", "label"])
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=batch_size),
        network=torch.nn.Identity(),
        postprocessing=Compose([AsDiscreted(["pred", "label"], to_onehot=3)]),
        key_val_metric={"val_mean_dice": MeanDice(include_background=False, output_transform=chosen, **metrics)},
        additional_metrics={
            "val_hd": HausdorffDistance(include_background=False, output_transform=chosen, **metrics)
        },
        val_handlers=handlers,
    )  # fmt: skip


def test_segmentation_report(tmp_path, capsys):
    evaluator = segmentation_evaluator(volumes(7), [MetricsReport(tmp_path, LABELS)])
    evaluator.run()
    rows = read(tmp_path / "metrics.csv")
    assert list(rows[0]) == ["metric", "label", "estimate", "lower", "upper", "n"]
    assert [(r["metric"], r["label"], r["n"]) for r in rows] == [
        (metric, *row) for metric in ("val_mean_dice", "val_hd")
        for row in (("overall", "7"), ("liver", "7"), ("tumour", "3"))
    ]  # fmt: skip
    assert float(rows[0]["estimate"]) == pytest.approx(evaluator.state.metrics["val_mean_dice"], abs=1e-6)
    assert float(rows[3]["estimate"]) == pytest.approx(evaluator.state.metrics["val_hd"], abs=1e-6)
    cases = read(tmp_path / "metrics_per_case.csv")
    assert [row["case"] for row in cases] == [f"/data/a,b/case_{i}.nii.gz" for i in range(7)]
    details = evaluator.state.metric_details["val_mean_dice"]
    for c, name in enumerate(("liver", "tumour")):
        column = [float(row[f"val_mean_dice/{name}"]) for row in cases]
        np.testing.assert_allclose(column, details[:, c], rtol=1e-6)
    assert cases[0]["val_mean_dice/tumour"] == "nan"
    assert float(cases[1]["val_mean_dice"]) == pytest.approx(details[1].mean().item(), rel=1e-6)
    out = capsys.readouterr().out
    assert out.count("val_mean_dice  overall") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv", "metrics_per_case.csv"]


def test_two_cases_have_no_interval(tmp_path, capsys):
    segmentation_evaluator(volumes(2), [MetricsReport(tmp_path, LABELS)]).run()
    assert all(row["lower"] == row["upper"] == "nan" for row in read(tmp_path / "metrics.csv"))
    assert capsys.readouterr().out.count("too few cases") == 6


def test_report_is_of_the_best_epoch(tmp_path):
    evaluator = segmentation_evaluator(volumes(3), [MetricsReport(tmp_path, LABELS)])
    evaluator.run(1)
    first = (tmp_path / "metrics.csv").read_text()
    evaluator.network = torch.nn.Threshold(9, 0)  # predicts background
    evaluator.run(2)
    assert (tmp_path / "metrics.csv").read_text() == first


@pytest.mark.parametrize(
    ("labels", "details", "message"),
    [
        (LABELS, False, "give MeanDice save_details=True"),
        ({0: "liver"}, True, r"scores of shape \(3, 2\); expected \(cases, 1\)"),
        ({i: str(i) for i in range(9)}, True, r"shape \(3, 2\); expected \(cases, 9\)"),
    ],
)
def test_metrics_that_do_not_fit(tmp_path, labels, details, message):
    evaluator = segmentation_evaluator(volumes(3), [MetricsReport(tmp_path, labels)], save_details=details)
    with pytest.raises(ValueError, match=message):
        evaluator.run()
    assert list(tmp_path.iterdir()) == []


class Classifier(torch.nn.Module):
    """Gives the logits that the image holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(x).flatten(1)


def images(logits: np.ndarray, truth: np.ndarray, named: bool) -> list[dict]:
    wrap = (lambda x, i: MetaTensor(x, meta={"filename_or_obj": f"/d/{i}.png"})) if named else lambda x, i: x
    return [
        {"image": wrap(torch.tensor(row)[None, :, None], i), "label": int(t)}
        for i, (row, t) in enumerate(zip(logits, truth, strict=True))
    ]


@pytest.mark.parametrize("decollate", [False, True])
@pytest.mark.parametrize("form", ["logits", "probabilities"])
@pytest.mark.parametrize("named", [True, False])
def test_classification_report(tmp_path, capsys, decollate, form, named):
    probabilities, truth = predictions(23, 3)
    pred = np.log(probabilities) + 5 if form == "logits" else probabilities
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(images(pred, truth, named)), batch_size=5),
        network=Classifier(),
        postprocessing=Compose([AsDiscreted("label", to_onehot=3)]) if decollate and named else None,
        val_handlers=[ClassificationReport(tmp_path, LABELS)],
        decollate=decollate,
    ).run()
    expected = classification_scores(probabilities, truth, LABELS)
    rows = read(tmp_path / "metrics.csv")
    assert [(r["metric"], r["label"], int(r["n"])) for r in rows] == [(s.metric, s.label, s.n) for s in expected]
    for column in ("estimate", "lower", "upper"):
        assert [float(r[column]) for r in rows] == pytest.approx([getattr(s, column) for s in expected])
    cases = read(tmp_path / "metrics_per_case.csv")
    assert [row["case"] for row in cases] == [f"/d/{i}.png" if named else f"case{i}" for i in range(23)]
    assert [row["label"] for row in cases] == [LABELS[t] for t in truth]
    assert [row["prediction"] for row in cases] == [LABELS[p] for p in probabilities.argmax(1)]
    column = [float(row["probability/tumour"]) for row in cases]
    np.testing.assert_allclose(column, probabilities[:, 2], rtol=1e-6)
    matrix = read(tmp_path / "confusion_matrix.csv")
    counts = [[int(row[name]) for name in LABELS.values()] for row in matrix]
    assert counts == confusion_counts(probabilities.argmax(1), truth, 3).tolist()
    with Image.open(tmp_path / "confusion_matrix.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    assert "macro_auc          overall" in capsys.readouterr().out


def test_predictions_of_other_classes(tmp_path):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(images(*predictions(6, 4), True)), batch_size=5),
        network=Classifier(),
        val_handlers=[ClassificationReport(tmp_path, LABELS)],
    )
    with pytest.raises(ValueError, match=r"shape \(6, 4\); expected \(6, 3\)"):
        evaluator.run()
    assert list(tmp_path.iterdir()) == []


def report_on(folder, part: slice = slice(None)) -> float:
    """Both reports, of a part of the cases; returns the balanced accuracy."""
    segmentation_evaluator(volumes(7)[part], [MetricsReport(folder / "segmentation", LABELS)]).run()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(images(*predictions(7, 3), True)[part]), batch_size=2),
        network=Classifier(),
        key_val_metric={"balanced": BalancedAccuracy(from_engine(["pred", "label"]))},
        val_handlers=[ClassificationReport(folder / "classification", LABELS)],
    )
    evaluator.run()
    return evaluator.state.metrics["balanced"]


def report_of_rank(folder, rank):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    print("balanced", report_on(folder / "two", slice(4) if rank == 0 else slice(4, None)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_report_what_one_does(tmp_path):
    """Of 4 and 3 cases; the first writes and prints, the second is silent."""
    logs = [tmp_path / f"rank{rank}.log" for rank in (0, 1)]
    ranks = [start(report_of_rank, tmp_path, rank, log=log) for rank, log in enumerate(logs)]
    balanced = report_on(tmp_path / "one")
    for rank in ranks:
        rank.join(120)
    outputs = [log.read_text() for log in logs]
    assert [rank.exitcode for rank in ranks] == [0, 0], outputs
    assert [output.count("95 % interval") for output in outputs] == [2, 0]
    assert all(f"balanced {balanced}\n" in output for output in outputs)
    with (tmp_path / "one" / "classification" / "metrics.csv").open() as file:
        reported = {row["metric"]: float(row["estimate"]) for row in csv.DictReader(file) if row["label"] == "overall"}
    assert balanced == reported["balanced_accuracy"]
    written = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.csv"))
    assert len(written) == 5
    for path in written:
        assert (tmp_path / "one" / path).read_text() == (tmp_path / "two" / path).read_text(), path
