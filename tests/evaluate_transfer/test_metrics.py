# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from monai_crossd.evaluate_transfer.metrics import table1_metrics


def scikit_learn(predicted, truth):
    options = {"average": "macro", "zero_division": 0}
    return {
        "precision": metrics.precision_score(truth, predicted, **options),
        "recall": metrics.recall_score(truth, predicted, **options),
        "f1": metrics.f1_score(truth, predicted, **options),
        "balanced_accuracy": metrics.recall_score(truth, predicted, labels=np.unique(truth), **options),
        "accuracy": metrics.accuracy_score(truth, predicted),
    }


@pytest.mark.parametrize(
    ("predicted", "truth", "classes"),
    [
        pytest.param([0, 1, 2, 1], [0, 1, 2, 2], 3, id="all classes"),
        pytest.param([0, 0, 0, 0], [0, 1, 2, 2], 3, id="two classes are never predicted"),
        pytest.param([0, 1, 3, 3], [0, 1, 1, 0], 4, id="one is predicted and has no case, one has neither"),
        pytest.param([1, 1], [0, 0], 2, id="all wrong"),
        pytest.param([2], [2], 5, id="one case"),
    ],
)
def test_scores_are_scikit_learns(predicted, truth, classes):
    assert table1_metrics(np.array(predicted), np.array(truth), classes) == pytest.approx(
        scikit_learn(predicted, truth)
    )


@pytest.mark.parametrize("classes", [2, 11])
def test_scores_of_many_cases_are_scikit_learns(classes):
    rng = np.random.default_rng(classes)
    for _ in range(20):
        truth = rng.integers(classes, size=40)
        predicted = np.where(rng.random(40) < 0.6, truth, rng.integers(classes - 1, size=40))
        assert table1_metrics(predicted, truth, classes) == pytest.approx(scikit_learn(predicted, truth))


def test_balanced_accuracy_is_scikit_learns_own_where_it_takes_the_cases():
    truth, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    assert table1_metrics(predicted, truth, 3)["balanced_accuracy"] == metrics.balanced_accuracy_score(truth, predicted)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([0, 1], [0], r"predicted has shape \(2,\), truth \(1,\)"),
        ([], [], "at least one case"),
        ([0, 2], [0, 1], "predicted holds int64 from 0 to 2; expected class numbers, integers 0 to 1"),
        ([0, 1], [0, -1], "truth holds int64 from -1 to 0"),
        ([0.2, 0.9], [0, 1], "Apply argmax"),
    ],
)
def test_what_are_no_classes_is_refused(predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        table1_metrics(np.array(predicted), np.array(truth), 2)
