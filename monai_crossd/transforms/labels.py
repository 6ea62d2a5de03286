# SPDX-License-Identifier: Apache-2.0
"""The label of an image: a map of whole numbers, or the class that a file names."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor
from torch import Tensor

from ._dictionary import MapArrayd, file_name

__all__ = ["WHITE", "ReadClassd", "RoundLabels", "RoundLabelsd", "round_labels"]

TOLERANCE = 0.05  # a map scaled into 8 bits is off by half a step: 0.04 of twenty labels
WHITE = 255  # the other value of a mask that was saved as a picture

logger = logging.getLogger(__name__)


def round_labels(image: Tensor) -> Tensor:
    """The whole numbers that a label map stands for.

    Args:
        image: (1, ...), with its file in the meta where it has one.

    Raises:
        ValueError: When it has several channels, or values that are negative, not finite or not whole up to rounding.
    """
    name = file_name(image)
    if image.shape[0] != 1:
        raise ValueError(
            f"{name} has {image.shape[0]} channels, shape {tuple(image.shape)}; expected a label map of one channel "
            "with a whole number per voxel. Convert colours or one channel per label to numbers."
        )
    whole = image if not image.is_floating_point() else image.round()
    wrong = ~((image - whole).abs() <= TOLERANCE) | (whole < 0)  # not finite is never near
    if bool(wrong.any()):
        values = torch.unique(torch.as_tensor(image)[torch.as_tensor(wrong)])[:5].tolist()
        raise ValueError(
            f"{name} has {int(wrong.sum())} voxels that are no labels, {[round(v, 4) for v in values]}, ...; expected "
            "whole numbers from 0. Was it interpolated, or is it an image? Save it with nearest neighbors as integers."
        )
    return whole


class RoundLabels(Transform):
    """Make a label map of whole numbers: 0.988, of a file with a slope, is 1.

    A mask of 0 and 255 and nothing else, as programs for pictures save it, becomes one of 0 and 1 where there are two
    classes or their number is not given.

    Args:
        num_classes: with the background; labels from there on are an error. None accepts all.

    Raises:
        ValueError: When the map has several channels, a value is negative, not finite, not whole up to rounding (0.05),
            or no class. It names the file and the values.

    Example:
        >>> RoundLabels()(torch.tensor([[0.0, 0.988, 2.0001]])).tolist()
        [[0.0, 1.0, 2.0]]
        >>> RoundLabels(2)(torch.tensor([[0, 255, 255]])).tolist()
        [[0, 1, 1]]
    """

    backend = (TransformBackends.TORCH,)

    def __init__(self, num_classes: int | None = None) -> None:
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; expected at least 1.")
        self.num_classes = num_classes

    def __call__(self, img: NdarrayOrTensor) -> Tensor:
        """Round a label map (1, ...)."""
        image = round_labels(convert_to_tensor(img, track_meta=get_track_meta()))
        highest = int(image.max()) if image.numel() else 0
        if highest == WHITE and self.num_classes in (None, 2) and bool(((image == 0) | (image == WHITE)).all()):
            logger.info("%s is a mask of 0 and 255: 255 is read as label 1", file_name(image))
            return (image == WHITE).to(image.dtype)
        if self.num_classes is not None and highest >= self.num_classes:
            found = torch.unique(torch.as_tensor(image)).long().tolist()
            raise ValueError(
                f"{file_name(image)} holds the label {highest}, but there are {self.num_classes} classes (0 to "
                f"{self.num_classes - 1}; found: {found[:20]}): renumber the file, or correct the labels of "
                "dataset.json."
            )
        return image


class RoundLabelsd(MapArrayd):
    """Dictionary version of :class:`RoundLabels`.

    Args:
        keys: of the label maps.
        num_classes: as there.
        allow_missing_keys: pass over keys that are not there.

    Example:
        >>> RoundLabelsd("label", num_classes=3)({"label": torch.tensor([[1.0001, 2.0]])})["label"].tolist()
        [[1.0, 2.0]]
    """

    backend = RoundLabels.backend

    def __init__(self, keys: KeysCollection, num_classes: int | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, RoundLabels(num_classes), allow_missing_keys)


class ReadClassd(MapTransform):
    """Turn the path of a file that names a class into the number of the class; a number stays.

    The file is a .txt with the name, or a .json with the name, with ``{"label": name}``, or with what MONAI Label
    answers to an image, ``{"prediction": [{"label": name, "score": 0.9}, ...]}``: its class of the highest score. Upper
    and lower case are the same, because MONAI Label shows names in lower case.

    Args:
        keys: of the class.
        labels: names of the classes in the order of their numbers, or by number.

    Raises:
        ValueError: When the file names no class, or another.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "scan.json")
        ...     _ = path.write_text('{"label": "lung"}')
        ...     ReadClassd("label", ["rib", "lung"])({"label": str(path)})
        {'label': 1}
    """

    def __init__(self, keys: KeysCollection, labels: Mapping[int, str] | Sequence[str]) -> None:
        super().__init__(keys)
        self.labels = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels))
        self._numbers = {name.strip().lower(): number for number, name in self.labels.items()}

    def _read(self, path: Path) -> int:
        expected = f"expected the name of a class in a .json or .txt file, one of {list(self.labels.values())}."
        if path.suffix.lower() not in (".json", ".txt"):
            raise ValueError(f"{path} is the label of an image to classify; {expected}")
        try:
            text = path.read_text(encoding="utf-8").strip()
            name = text if path.suffix.lower() == ".txt" else _name(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} names no class ({error}); {expected}") from error
        number = self._numbers.get(str(name).strip().lower())
        if number is None:
            raise ValueError(f"{path} names the class {name!r}; {expected}")
        return number

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Read the class of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            if isinstance(d[key], (str, Path)):
                d[key] = self._read(Path(d[key]))
        return d


def _name(content: Any) -> Any:
    if isinstance(content, dict) and "prediction" in content:
        return max(content["prediction"], key=lambda entry: entry["score"])["label"]
    return content["label"] if isinstance(content, dict) else content
