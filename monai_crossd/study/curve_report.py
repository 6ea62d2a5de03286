# SPDX-License-Identifier: Apache-2.0
"""A curve study as tables and one figure: scores by number of labelled volumes, differences, and their intervals.

All of it is computed from the files of finished cells. Intervals are 95 % percentile intervals of a paired bootstrap.
Test patients are drawn with replacement, the same ones for every cell, and the score of each seed on them is averaged
over seeds. The seeds, each with labelled volumes and new weights of its own, are drawn too: one fewer than there are,
which makes their variance right (Rao and Wu, 1988). A second interval keeps the seeds and draws patients alone: it says
what other patients would change, but not what other labelled volumes would, and is the narrower by far where volumes
are few.

References:
    B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993.
    J. N. K. Rao and C. F. J. Wu, Resampling Inference with Complex Survey Data, 1988.
    S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import PathLike

from .._replacing import replacing
from ..training.scores import write_csv
from .comparisons import holm
from .curve import CurveCell, CurveStudy, matching
from .load import ALL
from .plot import save_curve
from .report import markdown_table, plain, show_p
from .scores import Result, metric_names, patient_weights, weighted_score

__all__ = ["CurvePoint", "Difference", "compare_curves", "curve_points", "write_curve_report"]

RESAMPLES = 10_000

Count = int | str
Found = dict[tuple[str, Count], dict[int, Result]]  # results by seed, of an initialization and a number of volumes


class Interval(NamedTuple):
    """An estimate with two 95 % intervals: over test patients and seeds together, and over test patients alone.

    Of one seed they are the same.
    """

    estimate: float
    lower: float
    upper: float
    lower_patients: float
    upper_patients: float


class CurvePoint(NamedTuple):
    """A score of an initialization with a number of labelled volumes; `train_cases` as the study names it.

    `unit` says what was drawn again and again, "patients", or "volumes" where no patients are named.
    """

    metric: str
    initialization: str
    train_cases: Count
    volumes: int
    score: Interval
    seeds: int
    patients: int
    unit: str


class Difference(NamedTuple):
    """An initialization minus another on the same patients and seeds."""

    metric: str
    initialization: str
    against: str  # pattern of those it is compared with
    best: str  # the one of them with the best score at this number of volumes
    train_cases: Count
    difference: Interval
    p: float  # two-sided, of the bootstrap over patients and seeds
    p_holm: float  # corrected for all that are compared with the same at this number of volumes
    ahead: int  # seeds in which it is ahead
    seeds: int  # that both have


def _by_place(results: Sequence[Result]) -> Found:
    """Results by place and seed.

    Raises:
        ValueError: If they were not tested on the same items.
    """
    found: Found = {}
    for result in results:
        found.setdefault((result["initialization"], result["train_cases"]), {})[result["seed"]] = result
        if result["items"] != results[0]["items"]:
            raise ValueError(
                f"{result['initialization']} with {result['train_cases']} volumes, seed {result['seed']}, was tested "
                "on other items than the first cell: the data set has changed. Run the study in another folder."
            )
    return found


class _Bootstrap:
    """Resamples of the test patients, the same for every cell, and of the seeds."""

    def __init__(self, patients: Sequence[str], resamples: int, seed: int) -> None:
        self.weights = np.concatenate([np.ones((1, len(patients))), patient_weights(patients, resamples, seed)])
        self.resamples, self.seed = resamples, seed

    def scores(self, by_seed: Mapping[int, Result], metric: str) -> dict[int, np.ndarray]:
        """Of each seed the score itself, then those on the resamples."""
        return {seed: weighted_score(result, metric, self.weights) for seed, result in by_seed.items()}

    def interval(self, scores: np.ndarray) -> tuple[Interval, np.ndarray]:
        """Of the mean over seeds of (S, 1 + resamples) scores; and that mean where patients and seeds are drawn."""
        count, mean = len(scores), scores.mean(0)
        together = mean[1:]
        if count > 1:
            rng = np.random.default_rng((self.seed, count))
            drawn = rng.multinomial(count - 1, np.full(count, 1 / count), size=self.resamples)
            together = (drawn.T * scores[:, 1:]).sum(0) / (count - 1)
        return Interval(float(mean[0]), *_bounds(together), *_bounds(mean[1:])), together


def _bounds(samples: np.ndarray) -> tuple[float, float]:
    samples = samples[~np.isnan(samples)]  # without those that lack a class
    if not len(samples):
        return math.nan, math.nan
    lower, upper = np.quantile(samples, (0.025, 0.975))
    return float(lower), float(upper)


def curve_points(results: Sequence[Result], metric: str, resamples: int = RESAMPLES, seed: int = 0) -> list[CurvePoint]:
    """Scores of all initializations and numbers of volumes, means over their seeds.

    Args:
        results: of finished cells.
        metric: one of :func:`~monai_crossd.study.scores.metric_names`.
        resamples: of the patients.
        seed: of the resampling.

    Raises:
        ValueError: If cells were tested on different items.
    """
    if not results:
        return []
    bootstrap = _Bootstrap(results[0]["patients"], resamples, seed)
    patients = len(set(results[0]["patients"]))
    unit = "volumes" if results[0]["patients"] == results[0]["items"] else "patients"
    points = []
    for (name, count), by_seed in _by_place(results).items():
        interval, _ = bootstrap.interval(np.stack(list(bootstrap.scores(by_seed, metric).values())))
        volumes = next(iter(by_seed.values()))["volumes"]
        points.append(CurvePoint(metric, name, count, volumes, interval, len(by_seed), patients, unit))
    return points


def compare_curves(
    study: CurveStudy, results: Sequence[Result], metric: str, resamples: int = RESAMPLES, seed: int = 0
) -> list[Difference]:
    """Each initialization minus the best of each entry of `compare_with`, on the seeds that both have.

    Which is best is seen on the same test set, which is to the disadvantage of what is compared with it.

    Args:
        study: with `compare_with`; what fits an entry is not compared with a later one or its own.
        results: of finished cells.
        metric: as in :func:`curve_points`, like the others.
        resamples: of the patients.
        seed: of the resampling.
    """
    if not results:
        return []
    found, bootstrap = _by_place(results), _Bootstrap(results[0]["patients"], resamples, seed)
    scores = {place: bootstrap.scores(by_seed, metric) for place, by_seed in found.items()}
    sign = -1 if metric.startswith("surface_distance") else 1
    differences: list[Difference] = []
    left = list(study.initializations)
    for pattern in study.compare_with:
        members = matching(study, pattern)
        left = [name for name in left if name not in members]
        for count in study.train_cases:
            means = {m: np.mean([s[0] for s in scores[m, count].values()]) for m in members if (m, count) in scores}
            if not means:
                continue
            best = max(means, key=lambda name: -math.inf if math.isnan(means[name]) else sign * means[name])
            family = [
                _difference(
                    scores[name, count], scores[best, count], bootstrap, sign, (metric, name, pattern, best, count)
                )
                for name in left
                if (name, count) in scores and scores[name, count].keys() & scores[best, count].keys()
            ]
            corrected = holm([d.p for d in family])
            differences += [d._replace(p_holm=p) for d, p in zip(family, corrected, strict=True)]
    return differences


def _difference(
    own: Mapping[int, np.ndarray],
    other: Mapping[int, np.ndarray],
    bootstrap: _Bootstrap,
    sign: int,
    names: tuple[str, str, str, str, Count],
) -> Difference:
    seeds = [seed for seed in own if seed in other]
    pairs = np.stack([own[seed] - other[seed] for seed in seeds])
    interval, samples = bootstrap.interval(pairs)
    samples = samples[~np.isnan(samples)]
    tail = min((samples <= 0).sum(), (samples >= 0).sum())
    p = min(1.0, 2 * float(tail + 1) / (len(samples) + 1))
    ahead = int((sign * pairs[:, 0] > 0).sum())
    return Difference(*names, interval, p, math.nan, ahead, len(seeds))


def _digits(value: Any) -> Any:
    return plain(round(value, 6) if isinstance(value, float) else value)


def _flat(row: CurvePoint | Difference) -> list[Any]:
    parts = (value if isinstance(value, Interval) else (value,) for value in row)
    return [_digits(value) for part in parts for value in part]


def _columns(kind: type[CurvePoint] | type[Difference], interval: str) -> list[str]:
    return [
        column for name in kind._fields for column in ((name, *Interval._fields[1:]) if name == interval else (name,))
    ]


def cell_rows(results: Sequence[Result]) -> tuple[list[str], list[list[Any]]]:
    """Columns, and a row of each cell: its place, and its score by every metric; empty where there is none."""
    places, metrics = [*CurveCell._fields, "volumes"], metric_names(results[0])
    once = np.ones((1, len(results[0]["items"])))
    scores = [[float(weighted_score(result, metric, once)[0]) for metric in metrics] for result in results]
    rows = [[*(r[name] for name in places), *map(_digits, own)] for r, own in zip(results, scores, strict=True)]
    return [*places, *metrics], rows


def write_curve_report(folder: PathLike, study: CurveStudy, results: Sequence[Result]) -> list[Path]:
    """Writes report.md, cells.csv, table.csv, comparisons.csv and curve.png.

    cells.csv has a line per cell, table.csv one per metric and point of a curve, with its intervals. Each file is the
    old one or the new one, never a part.

    Args:
        folder: of the files.
        study: with the names of metric, data set and published scores.
        results: of finished cells, at least one.

    Returns:
        Paths of the files.

    Raises:
        ValueError: If there is no result, or cells were tested on different items.

    Example:
        .. code-block:: python

            write_curve_report("eval/few_labels", study, run_curve(study, "eval/few_labels"))
    """
    if not results:
        raise ValueError(f"{folder} has no finished cell of this study: run it without --report_only first.")
    folder, names = Path(folder), metric_names(results[0])
    points = [point for metric in names for point in curve_points(results, metric)]
    differences = [d for metric in names for d in compare_curves(study, results, metric)]
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(format_curve(study, results, points, differences), encoding="utf-8")
    return [
        folder / "report.md",
        write_csv(folder / "cells.csv", *cell_rows(results)),
        write_csv(folder / "table.csv", _columns(CurvePoint, "score"), map(_flat, points)),
        write_csv(folder / "comparisons.csv", _columns(Difference, "difference"), map(_flat, differences)),
        save_curve(folder / "curve.png", study, points),
    ]


def format_curve(
    study: CurveStudy, results: Sequence[Result], points: Sequence[CurvePoint], differences: Sequence[Difference]
) -> str:
    """The study as Markdown: the scores of each metric, the differences of the first, what it cost."""
    unit, seeds = points[0].unit, sorted({result["seed"] for result in results})
    over = f"{points[0].patients} test {unit} and the seeds"
    lines = [f"# {study.name}: {study.task} by number of labelled volumes", ""]
    lines += [f"Means over the seeds {seeds}; in brackets 95 % intervals over {over}."]
    if lost := lost_structures(results):
        lines += ["", f"{len(lost)} of {len(results)} cells found a structure in no volume: {'; '.join(lost)}."]
    shown = {(d.initialization, d.against, d.train_cases): d for d in differences if d.metric == study.metric}
    for metric in dict.fromkeys(point.metric for point in points):
        lines += ["", f"## {metric.replace('_', ' ')}", ""]
        lines += _score_table(study, [p for p in points if p.metric == metric], metric)
    for pattern in study.compare_with:
        lines += ["", f"## {study.metric.replace('_', ' ')}: against {_best_of(study, pattern)}", ""]
        lines += markdown_table(
            ["initialization", "volumes", "difference", "95 % interval", f"{unit} alone", "p (Holm)", "seeds ahead"],
            [
                [
                    d.initialization, str(d.train_cases), f"{d.difference.estimate:+.3f}",
                    f"{d.difference.lower:+.3f} to {d.difference.upper:+.3f}",
                    f"{d.difference.lower_patients:+.3f} to {d.difference.upper_patients:+.3f}",
                    show_p(d.p_holm), f"{d.ahead} of {d.seeds}",
                ]
                for d in shown.values()
                if d.against == pattern
            ],
        )  # fmt: skip
    seconds = sum(result["seconds"] for result in results)
    lines += ["", f"Cost: {len(results)} cells, {seconds / 60:.0f} min of computing."]
    return "\n".join(lines) + "\n"


def lost_structures(results: Sequence[Result]) -> list[str]:
    """Which cells found a structure in none of the volumes that have it: trainings that failed, in a mean of seeds."""
    return [
        f"{structure} by {r['initialization']} of {r['train_cases']} volumes, seed {r['seed']}"
        for r in results
        for structure, scores in zip(r.get("structures", ()), zip(*r.get("dice", ()), strict=True), strict=True)
        if not any(scores)
    ]


def _best_of(study: CurveStudy, pattern: str) -> str:
    members = matching(study, pattern)
    return members[0] if len(members) == 1 else f"the best of {', '.join(members)}"


def _score_table(study: CurveStudy, points: Sequence[CurvePoint], metric: str) -> list[str]:
    """Numbers of volumes that have a cell, and "all" for published scores, which are of whole training sets."""
    by_place = {(p.initialization, p.train_cases): p for p in points}
    published = {name: scores[metric] for name, scores in study.published.items() if metric in scores}
    counts = [c for c in study.train_cases if c != ALL and any(count == c for _, count in by_place)]
    if published or any(count == ALL for _, count in by_place):
        counts.append(ALL)
    rows = []
    for name in study.initializations:
        found = [by_place.get((name, count)) for count in counts]
        rows.append([name, *("-" if p is None else _score(p) for p in found)])
    rows += [[name, *("-" for _ in counts[1:]), f"{score:.3f}"] for name, score in published.items()]
    return markdown_table(["initialization", *map(str, counts)], rows)


def _score(point: CurvePoint) -> str:
    seeds = ", one seed" if point.seeds == 1 else ""
    return f"{point.score.estimate:.3f} ({point.score.lower:.3f} to {point.score.upper:.3f}{seeds})"
