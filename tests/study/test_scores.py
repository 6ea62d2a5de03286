# SPDX-License-Identifier: Apache-2.0
"""Scores under weights against scikit-learn's, and of drawn patients against the items written out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from monai_crossd.study.scores import metric_names, patient_weights, table1_metrics, weighted_score


def drawn(classes, items=60, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.r_[np.arange(classes), rng.integers(classes, size=items - classes)]
    logits = rng.normal(size=(items, classes)) + 1.5 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {"truth": truth.tolist(), "probabilities": np.round(probabilities, 1).tolist()}  # rounded: there are ties


ORACLES = {
    "accuracy": lambda truth, p, w: metrics.accuracy_score(truth, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda truth, p, w: metrics.balanced_accuracy_score(truth, p.argmax(1), sample_weight=w),
    "macro_f1": lambda truth, p, w: metrics.f1_score(truth, p.argmax(1), average="macro", sample_weight=w),
    "auc": lambda truth, p, w: np.mean(
        [
            metrics.roc_auc_score(np.array(truth) == c, p[:, c], sample_weight=w)
            for c in range(p.shape[1] == 2, p.shape[1])
        ]
    ),
}


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("metric", ORACLES)
def test_scores_of_a_classification_are_those_of_scikit_learn(metric, classes):
    result = drawn(classes)
    weights = np.random.default_rng(1).integers(1, 4, size=(7, 60))
    ours = weighted_score(result, metric, weights)
    truth, probabilities = result["truth"], np.array(result["probabilities"])
    theirs = [ORACLES[metric](truth, probabilities, w) for w in weights]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert set(metric_names(result)) == set(ORACLES)


def test_a_class_that_was_not_drawn_does_not_count():
    result = {"truth": [0, 0, 1], "probabilities": [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]}
    weights = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1]])
    assert weighted_score(result, "balanced_accuracy", weights).tolist() == [0.5, 1, 0.75]
    assert np.isnan(weighted_score(result, "auc", weights)).tolist() == [True, True, False]


def test_dice_is_the_mean_over_volumes_of_the_mean_over_the_structures_they_have():
    result = {
        "structures": ["a", "b"],
        "dice": [[0.8, 0.6], [0.5, None], [None, None], [0.0, 0.9]],
        "surface_distance": [[1.0, 2.0], [4.0, None], [None, None], [None, 3.0]],
    }
    weights = np.array([[1, 1, 1, 1], [2, 0, 5, 1], [0, 0, 1, 0]])
    expected = {
        "dice": [(0.7 + 0.5 + 0.45) / 3, (2 * 0.7 + 0.45) / 3, np.nan],
        "dice/b": [(0.6 + 0.9) / 2, (1.2 + 0.9) / 3, np.nan],
        "surface_distance": [(1.5 + 4 + 3) / 3, (3 + 3) / 3, np.nan],
        "surface_distance/a": [2.5, 1, np.nan],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(weighted_score(result, metric, weights), values, rtol=1e-12)
    assert metric_names(result)[:4] == ["dice", "dice/a", "dice/b", "surface_distance"]


def test_all_items_of_a_patient_are_drawn_together():
    patients = ["p", "q", "p", "r", "q", "p"]
    weights = patient_weights(patients, 4000, seed=2)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    per_patient = weights[:, [0, 1, 3]]
    assert (per_patient.sum(1) == 3).all()
    # of multinomial draws: mean 1, variance 1 - 1/3
    np.testing.assert_allclose(per_patient.mean(0), 1, atol=0.05)
    np.testing.assert_allclose(per_patient.var(0), 2 / 3, atol=0.06)


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
