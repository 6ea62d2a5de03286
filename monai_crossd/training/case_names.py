# SPDX-License-Identifier: Apache-2.0
"""Which case of an evaluator is which: by the path of its image, and by a short name of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ignite.engine import Engine
from monai.data import MetaTensor

from ..data.output_names import output_names

__all__ = ["CaseNames", "case_paths"]


def case_paths(batch: Any) -> Iterator[str]:
    """Path of each image of a batch, decollated or not; "" where the image has no path."""
    if isinstance(batch, Mapping):
        image = batch["image"]
        paths = image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else None
        yield from map(str, paths or [""] * len(image))
    else:
        for item in batch:
            image = item["image"]
            yield str(image.meta.get("filename_or_obj", "")) if isinstance(image, MetaTensor) else ""


class CaseNames:
    """Short names of an evaluator's cases, each used for one of them only; see :func:`output_names`.

    They are those of the items of the evaluator's data set, all of them known before the first is used, and the same in
    every process. A case of a data set that does not list its items gets the name of its path, or its number.

    Args:
        evaluator: before its run.

    Raises:
        ValueError: When two items are the same file, or would have one name.
    """

    def __init__(self, evaluator: Engine) -> None:
        dataset = getattr(evaluator.data_loader, "dataset", None)
        items = getattr(dataset, "data", dataset)
        listed = isinstance(items, (list, tuple)) and all(_has_path(item) for item in items)
        self._names: dict[str, str] = output_names(items) if listed else {}  # type: ignore[arg-type]
        self._used: dict[str, str] = {name: path for path, name in self._names.items()}

    def name(self, path: str, number: int) -> str:
        """Name of a case.

        Args:
            path: of its image; "" where it has none.
            number: of the case.

        Raises:
            ValueError: When another case of a data set that does not list its items has that name.
        """
        if path in self._names:
            return self._names[path]
        key = path or f"case{number}"
        (name,) = output_names([{"image": key}]).values()
        if (other := self._used.setdefault(name, key)) != key:
            raise ValueError(f"The outputs of {other} and {key} would both be named {name!r}: rename one of the two.")
        return name


def _has_path(item: Any) -> bool:
    image = item.get("image") if isinstance(item, Mapping) else None
    if isinstance(image, (list, tuple)):
        return bool(image) and all(_is_path(part) for part in image)
    return _is_path(image)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or hasattr(value, "__fspath__")
