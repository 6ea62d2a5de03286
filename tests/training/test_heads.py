# SPDX-License-Identifier: Apache-2.0
"""A head for each data set: against separate linear layers of torch, and scikit-learn's scores of each set."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from ignite.metrics import Accuracy
from monai.handlers import from_engine
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score
from torch import nn

from monai_crossd.training import (
    BalancedAccuracy,
    ClassificationReport,
    HeadScores,
    HeadsLoss,
    by_head,
    head_labels,
    head_scores,
    head_slice,
)

HEADS = {"chest": 2, "breast": 3, "brain": 4}
LABELS = dict(enumerate(f"{name}/{letter}" for name, count in HEADS.items() for letter in "abcd"[:count]))
STARTS = {"chest": 0, "breast": 2, "brain": 5}


def predictions(items: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, 9, items))
    logits = torch.from_numpy(rng.normal(0, 3, (items, 9))).float() + 3 * nn.functional.one_hot(labels, 9)
    return logits, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("column", [False, True])
def test_loss_and_gradients_are_those_of_separate_layers(smoothing, column):
    torch.manual_seed(0)
    features, (_, labels) = torch.randn(90, 6), predictions()
    joined = nn.Linear(6, 9)
    loss = HeadsLoss(HEADS, smoothing)(joined(features), labels[:, None] if column else labels)
    loss.backward()
    total = torch.zeros(())
    layers = {}
    for name, count in HEADS.items():
        layer = layers[name] = nn.Linear(6, count)
        rows = slice(STARTS[name], STARTS[name] + count)
        with torch.no_grad():
            layer.weight.copy_(joined.weight[rows])
            layer.bias.copy_(joined.bias[rows])
        for feature, label in zip(features, labels, strict=True):
            if rows.start <= label < rows.stop:
                logits = layer(feature[None])
                total = total + nn.functional.cross_entropy(logits, label[None] - rows.start, label_smoothing=smoothing)
    (total / 90).backward()
    torch.testing.assert_close(loss, total / 90)
    torch.testing.assert_close(joined.weight.grad, torch.cat([layer.weight.grad for layer in layers.values()]))


def test_loss_of_one_head_is_torchs_and_a_head_without_items_learns_nothing():
    logits, labels = predictions()
    torch.testing.assert_close(HeadsLoss({})(logits, labels), nn.functional.cross_entropy(logits, labels))
    logits = logits.requires_grad_()
    chosen = labels < 2
    HeadsLoss(HEADS)(logits[chosen], labels[chosen]).backward()
    assert logits.grad[chosen][:, :2].abs().sum() > 0
    assert logits.grad[:, 2:].abs().sum() == 0


def expected_scores(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    found = {}
    for name, count in HEADS.items():
        rows = (labels >= STARTS[name]) & (labels < STARTS[name] + count)
        truth = (labels[rows] - STARTS[name]).numpy()
        predicted = logits[rows][:, STARTS[name] : STARTS[name] + count].argmax(1).numpy()
        found[f"val_balanced_accuracy/{name}"] = balanced_accuracy_score(truth, predicted)
        found[f"val_macro_precision/{name}"] = precision_score(truth, predicted, average="macro")
        found[f"val_macro_recall/{name}"] = recall_score(truth, predicted, average="macro")
        found[f"val_accuracy/{name}"] = accuracy_score(truth, predicted)
        found[f"val_macro_f1/{name}"] = f1_score(truth, predicted, average="macro")
    return found


@pytest.mark.parametrize("batch", [1, 7, 90])
def test_scores_are_scikit_learns_of_each_data_set(batch):
    logits, labels = predictions()
    metrics = HeadScores(HEADS), HeadScores(HEADS, "balanced_accuracy"), HeadScores(HEADS, "macro_f1")
    for start in range(0, 90, batch):
        for metric in metrics:
            metric.update((logits[start : start + batch], labels[start : start + batch]))
    expected = expected_scores(logits, labels)
    assert metrics[0].compute() == pytest.approx(expected, abs=1e-12)
    for metric, name in zip(metrics[1:], ("balanced_accuracy", "macro_f1"), strict=True):
        assert metric.compute() == pytest.approx(np.mean([v for k, v in expected.items() if name in k]), abs=1e-12)


def test_without_heads_the_scores_are_those_of_one_data_set():
    logits, labels = predictions()
    for score, of_sklearn in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        metric = HeadScores({}, score)
        metric.update((logits[:30], labels[:30]))
        metric.update((logits[30:], labels[30:]))
        assert metric.compute() == pytest.approx(of_sklearn(labels, logits.argmax(1)), abs=1e-12)


def test_a_data_set_without_items_is_left_out():
    metric = HeadScores(HEADS, "balanced_accuracy")
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update((torch.eye(9)[[0, 3, 3]], torch.tensor([0, 3, 4])))
    assert metric.compute() == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 8), torch.tensor([0, 1]), r"shape \(2, 8\); expected \(items, 9\)"),
        (torch.zeros(2, 9), torch.tensor([0, 9]), r"labels are \[0, 9\]; expected numbers from 0 to 8"),
        (torch.zeros(2, 9), torch.tensor([-1, 0]), "from 0 to 8"),
    ],
)
def test_wrong_batches(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        HeadScores(HEADS).update((logits, labels))


def test_unknown_score():
    with pytest.raises(ValueError, match="macro_f1"):
        HeadScores(HEADS, "macro-f1")


@pytest.mark.parametrize(
    ("heads", "head", "expected"),
    [(HEADS, "breast", slice(2, 5)), (HEADS, "chest", slice(0, 2)), ({}, None, slice(None))],
)
def test_slice_and_labels(heads, head, expected):
    assert head_slice(heads, head) == expected
    assert head_labels(LABELS, heads, head) == [
        name.removeprefix(f"{head}/") for name in list(LABELS.values())[expected]
    ]


@pytest.mark.parametrize(
    ("heads", "head", "message"),
    [
        (HEADS, None, "a head for each: say which one classifies, --head chest or breast or brain"),
        (HEADS, "liver", "chest"),
        ({}, "chest", "trained on one data set: leave the option out"),
    ],
)
def test_wrong_head(heads, head, message):
    with pytest.raises(ValueError, match=message):
        head_slice(heads, head)


def test_report_has_the_scores_of_each_data_set(tmp_path):
    logits, labels = predictions()
    expected = expected_scores(logits, labels)
    evaluator = Engine(lambda engine, batch: batch)
    evaluator.state.best_metric_epoch = -1
    ClassificationReport(tmp_path, LABELS, resamples=20, heads=HEADS).attach(evaluator)
    cases = [{"image": torch.zeros(1), "pred": p, "label": n} for p, n in zip(logits, labels, strict=True)]
    evaluator.run([cases[:50], cases[50:]])
    with (tmp_path / "metrics.csv").open() as file:
        rows = {(row["metric"], row["label"]): float(row["estimate"]) for row in csv.DictReader(file)}
    for name, value in expected.items():
        metric, _, data_set = name.removeprefix("val_").partition("/")
        assert rows[metric, data_set] == pytest.approx(value, abs=1e-9)
    mean = np.mean([value for name, value in expected.items() if "balanced" in name])
    assert rows["balanced_accuracy", "mean"] == pytest.approx(mean, abs=1e-9)
    assert ("recall", "brain/d") in rows
    with (tmp_path / "metrics_per_case.csv").open() as file:
        for row, number in zip(csv.DictReader(file), labels.tolist(), strict=True):
            own = LABELS[number].partition("/")[0]
            values = {n: float(row[f"probability/{n}"]) for n in LABELS.values()}
            assert sum(v for n, v in values.items() if n.startswith(f"{own}/")) == pytest.approx(1)
            assert all(v == 0 for n, v in values.items() if not n.startswith(f"{own}/"))


def test_scores_of_two_data_sets_out_of_three():
    logits, labels = predictions()
    rows = labels >= 2
    probabilities = np.zeros((int(rows.sum()), 9))
    for row, (values, label) in enumerate(zip(logits[rows], labels[rows], strict=True)):
        own = slice(2, 5) if label < 5 else slice(5, 9)
        probabilities[row, own] = values[own].softmax(0).numpy()
    scores = head_scores(probabilities, labels[rows].numpy(), LABELS, HEADS, resamples=5)
    assert {s.label.partition("/")[0] for s in scores} == {"mean", "breast", "brain"}


@pytest.mark.parametrize("heads", [{}, HEADS])
def test_metrics_of_a_config_become_those_of_the_data_sets(heads):
    """By an engine, as in the bundle; with one data set they stay as they are."""
    logits, labels = predictions()
    outputs = from_engine(["pred", "label"])
    given = {"val_balanced_accuracy": BalancedAccuracy(outputs), "val_accuracy": Accuracy(outputs)}
    given["val_scores"] = HeadScores(HEADS, output_transform=outputs)
    metrics = by_head(given, heads)
    assert list(metrics) == list(given)
    assert metrics["val_scores"] is given["val_scores"]
    engine = Engine(lambda _, rows: {"pred": logits[rows], "label": labels[rows]})
    for name, metric in metrics.items():
        metric.attach(engine, name)
    found = engine.run([slice(0, 40), slice(40, 90)]).metrics
    parts = [(rows, slice(STARTS[n], STARTS[n] + HEADS[n])) for n in heads for rows in [of_set(labels, n)]]
    for name, score in (("val_balanced_accuracy", balanced_accuracy_score), ("val_accuracy", accuracy_score)):
        expected = [
            score(labels[rows], logits[rows][:, columns].argmax(1) + columns.start)
            for rows, columns in parts or [(slice(None), slice(0, 9))]
        ]
        assert found[name] == pytest.approx(np.mean(expected))


def of_set(labels: torch.Tensor, name: str) -> torch.Tensor:
    return (labels >= STARTS[name]) & (labels < STARTS[name] + HEADS[name])


def test_a_metric_without_such_a_score_is_refused():
    with pytest.raises(ValueError, match="accurac"):
        by_head({"val_accurac": Accuracy()}, HEADS)
