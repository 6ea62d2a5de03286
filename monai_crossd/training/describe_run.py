# SPDX-License-Identifier: Apache-2.0
"""Writes down what a bundle's run trains, to be kept beside its weights."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from .run_config import running_parser
from .trained import DATA_OPTIONS, INPUT_OPTIONS, plain

__all__ = ["describe_run"]


def describe_run(*names: str) -> dict[str, Any]:
    """Values of the running bundle's config, for :class:`BestCheckpoint` to keep beside the weights.

    Args:
        names: of values in the config, numbers and text, such as "conv", "labels", "pixdim"; without any, those that
            the bundles have. "dataset_dir", a path or several, is kept as an absolute one.

    Returns:
        The values by name; the network's class and arguments as "network_def"; and the bundle's metadata, with the
        labels and sizes of this run, as "metadata".

    Raises:
        RuntimeError: When no bundle is running.
        ValueError: When a value is neither number nor text.

    Example:
        .. code-block:: yaml

            trained_as: $monai_crossd.training.describe_run()
    """
    parser = running_parser()
    names = names or tuple(name for name in DATA_OPTIONS + INPUT_OPTIONS if name in parser)
    found: dict[str, Any] = {}
    try:
        for name in names:
            found[name] = plain(parser.get_parsed_content(name))
        options = [key for key in parser.get("network_def") if not key.startswith("_")]
        arguments = {key: plain(parser.get_parsed_content(f"network_def#{key}")) for key in options}
    except TypeError as error:
        raise ValueError(f"What is trained cannot be written down: {error} Give numbers and text.") from error
    found["network_def"] = {"network": parser.get("network_def")["_target_"], **arguments}
    if (dataset := found.get("dataset_dir")) is not None:
        found["dataset_dir"] = [_place(d) for d in dataset] if isinstance(dataset, list) else _place(dataset)
    metadata = parser.get("_meta_")
    if metadata:
        found["metadata"] = _metadata(copy.deepcopy(metadata), found)
    return found


def _place(dataset: Any) -> Any:
    """Absolute path of a data set; a word for embedded data stays."""
    path = Path(str(dataset)).expanduser()
    return os.path.abspath(path) if path.exists() else dataset


def _metadata(metadata: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    labels = run["labels"]
    size: list[int] = run.get("roi_size") or run["spatial_size"]
    image, pred = (metadata["network_data_format"][k][n] for k, n in (("inputs", "image"), ("outputs", "pred")))
    image.update(num_channels=run["in_channels"], spatial_shape=size)
    if "modality" in run:
        words = run["modality"] if isinstance(run["modality"], list) else [run["modality"]]
        image["modality"] = ", ".join(dict.fromkeys(word.upper() for word in words))
    pred.update(num_channels=len(labels), channel_def={str(number): name for number, name in enumerate(labels)})
    if len(pred["spatial_shape"]) == len(size):  # of a segmentation
        pred["spatial_shape"] = size
    names = ", ".join(f"{number} {name}" for number, name in enumerate(labels))
    metadata.update(label_classes=names, pred_classes=names, eval_metrics={}, data_source=str(run.get("dataset_dir")))
    return metadata
