# SPDX-License-Identifier: Apache-2.0
"""The studies of one of the paper's tables, on those of its data sets that lie in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from monai.utils import look_up_option

from .paper import PRESETS, paper_dataset
from .paper_datasets import PAPER_DATASETS
from .study import Study, read_study

__all__ = ["PresetStudy", "preset_studies"]

FOLDS = 5  # the paper does not say how many


class PresetStudy(NamedTuple):
    """A group of a table: `study` is None where no data set of it was found; `missing` says of each what is missing."""

    title: str
    study: Study | None
    missing: list[str]


def preset_studies(config: Mapping[str, Any]) -> list[PresetStudy]:
    """Studies of images and of volumes, for they have other methods.

    Args:
        config: "preset", a key of :data:`~monai_crossd.evaluate_transfer.paper.PRESETS`; "data_root", the folder of the
            data sets; "folds" of each of them, 5 by default, because the paper does not say how many; what else
            :class:`~monai_crossd.evaluate_transfer.study.Study` needs: source, pretraining and finetuning. "methods",
            "modes", "reference" and "metric" are the preset's, where they are not given.

    Raises:
        ValueError: for an unknown preset, or one that is no transfer (Table I is a pretraining).
    """
    values = dict(config)
    name, root = values.pop("preset"), values.pop("data_root", ".")
    folds = values.pop("folds", FOLDS)
    preset = look_up_option(name, PRESETS)
    if preset["modes"] == ["pretraining"]:
        raise ValueError(
            f"{name} of the paper compares 2D networks in pretraining: train them by the bundle crossd_2d_pretraining, "
            "configs train.yaml and paper.yaml, whose evaluation writes these metrics."
        )
    values.setdefault("network", {"model_name": preset["network"]})
    values.setdefault("modes", preset["modes"])
    values.setdefault("metric", preset["metrics"][0])
    studies = []
    for group in preset["groups"]:
        missing, specs = [], []
        for dataset in group["datasets"]:
            entry, (path, what) = PAPER_DATASETS[dataset], paper_dataset(dataset, root)
            if path is None:
                missing.append(what)
                continue
            specs.append(
                {
                    "name": dataset, "dataset": str(path), "modality": entry.modality, "paper": dataset,
                    "spatial_size": list(entry.size), "channels": entry.channels, "folds": folds,
                }
            )  # fmt: skip
        methods = {"methods": group["methods"], "reference": group["reference"]}
        study = read_study({**methods, **values, "datasets": specs}) if specs else None
        studies.append(PresetStudy(group["title"], study, missing))
    return studies
