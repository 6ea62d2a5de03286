# SPDX-License-Identifier: Apache-2.0
"""Balanced accuracy against scikit-learn, batch by batch, with classes that have no items."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ignite.exceptions import NotComputableError
from sklearn.metrics import balanced_accuracy_score

from monai_crossd.training import BalancedAccuracy, classification_scores, report_sections

LABELS = {0: "a", 1: "b", 2: "c", 3: "d"}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("present", [[0, 1, 2, 3], [1, 2, 3], [0, 3], [2]])
@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("form", ["numbers", "column", "one-hot"])
def test_is_scikit_learns_and_the_reports(present, batch, form):
    rng = np.random.default_rng(len(present) * 10 + batch)
    truth = torch.from_numpy(rng.choice(present, 33))
    logits = torch.from_numpy(rng.normal(size=(33, 4))).float() + 1.2 * torch.nn.functional.one_hot(truth, 4)
    labels = {"numbers": truth, "column": truth[:, None], "one-hot": torch.nn.functional.one_hot(truth, 4)}[form]
    metric = BalancedAccuracy()
    for start in range(0, 33, batch):  # the last batch is smaller
        metric.update((logits[start : start + batch], labels[start : start + batch]))
    expected = balanced_accuracy_score(truth, logits.argmax(1))
    assert metric.compute() == pytest.approx(expected, abs=1e-12)
    scores = classification_scores(logits.softmax(1).double().numpy(), truth.numpy(), LABELS, resamples=2)
    assert metric.compute() == next(s.estimate for s in scores if s.metric == "balanced_accuracy")


def test_reset_forgets():
    metric = BalancedAccuracy()
    metric.update((torch.eye(2), torch.tensor([1, 0])))
    assert metric.compute() == 0
    metric.reset()
    with pytest.raises(NotComputableError):
        metric.compute()
    metric.update((torch.eye(3), torch.tensor([0, 1, 2])))
    assert metric.compute() == 1


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (torch.zeros(4), torch.zeros(4), r"shape \(4,\); expected \(items, classes\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"labels are \[0, 3\]; expected 2 numbers from 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "expected 2 numbers from 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), "expected 2 numbers from 0 to 2"),
    ],
)
def test_wrong_shapes(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        BalancedAccuracy().update((predictions, labels))


def test_sections_are_reported(capsys, caplog):
    items = [{"image": "x", "label": number} for number in (0, 0, 1, 2)]
    with caplog.at_level(logging.WARNING):
        report_sections({"training": items, "validation": items[:3]}, LABELS)
    assert capsys.readouterr().out == "data: 4 classes, 4 items in training, 3 in validation\n"
    assert [record.message for record in caplog.records] == [
        "no items of 'd' in training: these classes are not learned",
        "no items of 'c', 'd' in validation: these classes are left out of balanced accuracy",
    ]


def test_classes_in_files_are_not_known_before_they_are_read(capsys, caplog):
    """As MONAI Label gives them."""
    items = [{"image": "x", "label": "/labels/x.json"}]
    with caplog.at_level(logging.WARNING):
        report_sections({"training": items, "validation": items}, LABELS)
    assert capsys.readouterr().out == "data: 4 classes, 1 items in training, 1 in validation\n"
    assert not caplog.records
