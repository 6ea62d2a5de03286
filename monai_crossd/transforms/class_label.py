# SPDX-License-Identifier: Apache-2.0
"""Classes that stand in files, one beside each image, as MONAI Label keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

__all__ = ["ReadClassd"]


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
