# SPDX-License-Identifier: Apache-2.0
"""What weights were trained with, kept beside them, so that nobody has to say it again when they are used."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ReferenceResolver
from monai.config import PathLike
from monai.utils import optional_import
from torch import nn

from .._callers import callers
from .run_config import running_parser

__all__ = ["check_trained", "describe_run", "find_weights", "trained", "trained_network"]

FILENAME = "model.pt"
# options of a bundle that its weights are kept with: where the data came from, and what the network was made for
DATA_OPTIONS = ("dataset_dir", "section", "seed", "reading#nested", "reading#patient_pattern")
INPUT_OPTIONS = (
    "conv",
    "modality",
    "intensity",
    "in_channels",
    "pixdim",
    "spatial_size",
    "roi_size",
    "slices_every",
    "labels",
    "heads",
)
VERBS = {"ckpt_export": "ckpt_file_", "onnx_export": "ckpt_file_", "trt_export": "ckpt_file_", "load": "full_path"}

logger = logging.getLogger(__name__)


def describe_run(*names: str) -> dict[str, Any]:
    """Values of the running bundle's config, for :class:`BestCheckpoint` to keep beside the weights.

    Args:
        names: of values in the config, numbers and text, such as "conv", "labels", "reading#nested"; without any, those
            that the bundles have. "dataset_dir", a path or several, is kept as an absolute one.

    Returns:
        The values by name, of one in a section the last part of it; the network's class and arguments as "network_def";
        and the bundle's metadata, with the labels and sizes of this run, as "metadata".

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
            last = ReferenceResolver.split_id(name)[-1]
            found[last] = plain(parser.get_parsed_content(name))
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
    if "roi_size" in run:  # of a segmentation
        pred.update(type="image", format="segmentation", spatial_shape=size)
    names = ", ".join(f"{number} {name}" for number, name in enumerate(labels))
    metadata.update(label_classes=names, pred_classes=names, eval_metrics={}, data_source=str(run.get("dataset_dir")))
    return metadata


def _of_the_caller(bundle_root: Path) -> Path | None:
    """Weights that whoever reads the config is about to load without asking it: a verb of MONAI, or MONAI Label."""
    for frame in callers():
        module = frame.f_globals.get("__name__", "")
        if module == "monai.bundle.scripts" and frame.f_code.co_name in VERBS:
            path = frame.f_locals.get(VERBS[frame.f_code.co_name])
            return None if path is None else Path(path)
        if module.startswith("monailabel."):
            return bundle_root / "models" / FILENAME
    return None


def find_weights(bundle_root: PathLike, ckpt_dir: PathLike | None = None, output_dir: PathLike | None = None) -> str:
    """Path of the weights that a bundle uses; one line of the log says which.

    Those of ``ckpt_dir`` where it is given; else those just trained, in ``output_dir`` or the bundle's ``eval/``; else
    those that the bundle came with, in its ``models/``. Where a verb of MONAI (``ckpt_export``, ``load``, ...) or MONAI
    Label loads weights of its own choice, those.

    Args:
        bundle_root: folder of the bundle.
        ckpt_dir: folder of a ``model.pt``; null looks in the other places.
        output_dir: folder to look into before ``eval/``.

    Raises:
        FileNotFoundError: When ``ckpt_dir`` has none.

    Example:
        .. code-block:: json

            "weights": "$monai_crossd.training.find_weights(@bundle_root, @ckpt_dir)"
    """
    root = Path(bundle_root)
    if (given := _of_the_caller(root)) is not None:
        return str(given)
    shipped = root / "models" / FILENAME
    if ckpt_dir is not None:
        found = Path(ckpt_dir) / FILENAME
        if not found.is_file():
            raise FileNotFoundError(f"There is no {found}: give the ckpt_dir of a training, or leave it out.")
    else:
        folders = [root / "eval"] if output_dir is None else [Path(output_dir), root / "eval"]
        found = next((folder / FILENAME for folder in folders if (folder / FILENAME).is_file()), shipped)
    kind = "those that the bundle came with" if shipped.parent in found.parents else "trained here"
    logger.info("weights: %s (%s)", found, kind)
    return str(found)


def read_trained(weights: PathLike) -> dict[str, Any]:
    """What :class:`BestCheckpoint` wrote beside the weights, as ``model.json``; nothing where there is no such file.

    Args:
        weights: path of ``model.pt``.

    Raises:
        ValueError: When the file cannot be read.
    """
    path = Path(weights).with_suffix(".json")
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no dictionary")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): it says what the weights beside it were trained with. "
                         "Train again, or copy it anew with the weights.") from error  # fmt: skip
    return found


def trained(weights: PathLike, **default: Any) -> Any:
    """A value that weights were trained with.

    Args:
        weights: path of ``model.pt``.
        **default: name of the value, and what it is where the weights do not say: one that the bundle came with.

    Example:
        .. code-block:: json

            "pixdim": "$monai_crossd.training.trained(@weights, pixdim=[1.5, 1.5, 5.0])"
    """
    ((name, value),) = default.items()
    return read_trained(weights).get(name, value)


def check_trained(weights: PathLike, **given: Any) -> None:
    """Compares options of a run with what its weights were trained with.

    Args:
        weights: path of ``model.pt``.
        **given: values of the run by name; without any, those of the running bundle that its network was made for.

    Raises:
        ValueError: When one is another; the error has both.
        RuntimeError: When nothing is given and no bundle is running.

    Example:
        .. code-block:: json

            "initialize": ["$monai_crossd.training.check_trained(@weights)"]
    """
    known = read_trained(weights)
    if not given:
        parser = running_parser()
        given = {name: parser.get_parsed_content(name) for name in INPUT_OPTIONS if name in parser}
    for name, value in given.items():
        if name in known and known[name] != plain(value):
            raise ValueError(
                f"{name} is {plain(value)}, but the weights of {weights} were trained with {known[name]}. Leave the "
                "option out, or give the weights that belong to it (--ckpt_dir)."
            )


def plain(value: Any) -> Any:
    """A value as JSON gives it back: lists for tuples, and for labels by number a list of names.

    Args:
        value: numbers, text, None, lists, dictionaries.

    Raises:
        TypeError: When JSON has no form for it.

    >>> plain({0: "background", 1: "liver"}), plain((1.5, None))
    (['background', 'liver'], [1.5, None])
    """
    if isinstance(value, Mapping):
        if value and list(value) == list(range(len(value))):
            return [plain(part) for part in value.values()]
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} has no form in JSON.")


def trained_network(weights: PathLike, defaults: Mapping[str, Any] | nn.Module, **options: Any) -> nn.Module:
    """The network that weights belong to, without them.

    Args:
        weights: path of ``model.pt``.
        defaults: the network where the weights do not say: its class as "network" with its arguments, or built.
        **options: further arguments; they replace those of ``defaults``.

    Raises:
        ValueError: When an option contradicts what the weights were trained with, or they are of another network.

    Example:
        .. code-block:: json

            "network_def": {
                "_target_": "monai_crossd.training.trained_network",
                "weights": "@weights",
                "defaults": {"network": "monai_crossd.networks.build_resnet", "model_name": "resnet18"}
            }
    """
    known = read_trained(weights).get("network_def")
    if known is None:
        if isinstance(defaults, nn.Module):
            return defaults
        arguments = {**defaults, **options}
    else:
        check = {name: value for name, value in options.items() if plain(value) != known.get(name, plain(value))}
        if check:
            name, value = next(iter(check.items()))
            raise ValueError(
                f"{name} of the network is {value}, but the weights of {weights} were trained with {known[name]}. "
                "Leave the option out, or give the weights that belong to it."
            )
        of, ours = known["network"], defaults.get("network") if isinstance(defaults, Mapping) else None
        if ours is not None and ours != of:
            raise ValueError(
                f"The weights of {weights} are those of a {of}, and this config is for a {ours}: take the config of "
                "what was trained, or give other weights (--ckpt_dir)."
            )
        arguments = {**known, **options}
    module, _, name = arguments.pop("network").rpartition(".")
    kind, _ = optional_import(module, name=name)
    network: nn.Module = kind(**arguments)
    return network
