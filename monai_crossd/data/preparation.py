# SPDX-License-Identifier: Apache-2.0
"""A Compose whose errors name the files and that checks that image and label map fit; and who is left out for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandomizableTrait, Transform

__all__ = [
    "ON_ERROR",
    "THREADS",
    "ItemList",
    "Preparation",
    "PreparationError",
    "Skipped",
    "count_deterministic",
    "prepare_each",
]

logger = logging.getLogger(__name__)

ON_ERROR = ("raise", "skip-and-report")
THREADS = 4  # reading and unpacking run beside each other, and a volume each is in memory


class PreparationError(RuntimeError):
    """An item that cannot be read or transformed.

    Args:
        item: in words.
        cause: of it.
    """

    def __init__(self, item: str, cause: str) -> None:
        super().__init__(item, cause)  # both: the error travels between processes
        self.item = item
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"{self.item} cannot be prepared: {self.cause}. Mend or remove the file, or leave out those that cannot be "
            'read by on_error "skip-and-report".'
        )


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = {key: _in_words(part) for key, part in value.items()}
        return ", ".join(f"{key} {part}" for key, part in parts.items() if part)
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_in_words, value)))
    if isinstance(value, MetaTensor):
        return str(value.meta.get("filename_or_obj", ""))
    return "" if isinstance(value, torch.Tensor) or hasattr(value, "__array__") else str(value)


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _innermost(error: BaseException) -> str:
    """First line of an error, without those that MONAI puts around it to name the transform."""
    around = ""
    while error.__cause__ is not None and str(error).startswith("applying transform"):
        around = str(error).removeprefix("applying transform ").partition(" object at ")[0].rpartition(".")[2]
        error = error.__cause__
    return f"{around}: {first_line(error)}" if around else first_line(error)


def count_deterministic(transform: Compose) -> int:
    """Number of the transforms before the first random one: those whose result MONAI's data sets keep."""
    index = transform.get_index_of_first(lambda t: isinstance(t, RandomizableTrait) or not isinstance(t, Transform))
    return len(transform.transforms) if index is None else index


class _CheckPair(Transform):
    """Raises where "image" and "label" have another spatial shape; a crop of both would cut different places."""

    def __call__(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            image, label = data.get("image"), data.get("label")
            if isinstance(image, torch.Tensor) and isinstance(label, torch.Tensor) and image.ndim == label.ndim > 2:
                found = tuple(image.shape[1:]), tuple(label.shape[1:])
                if found[0] != found[1]:
                    raise ValueError(
                        f"image and label have the shapes {found[0]} and {found[1]} when they are prepared"
                    )
        return data


class _ToDevice(Transform):
    """Moves the tensors of an item; MONAI's needs their keys."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, data: dict) -> dict:
        return {key: value.to(self.device) if isinstance(value, torch.Tensor) else value for key, value in data.items()}


class Preparation(Compose):
    """A Compose with the same transforms, and after the deterministic ones a check that image and label map fit.

    A label map whose header says another voxel size than its image's has another shape after both are resampled, and
    a random crop would take its labels from another place without a word.

    Args:
        transform: the Compose; its options are kept.
        device: where the deterministic part ends and the random part runs; None leaves all where it is.

    Example:
        >>> from monai.transforms import LoadImaged
        >>> Preparation(Compose(LoadImaged("image")))({"image": "no.nii.gz"})
        Traceback (most recent call last):
        monai_crossd.data.preparation.PreparationError: image no.nii.gz cannot be prepared: ...
    """

    def __init__(self, transform: Compose, device: torch.device | None = None) -> None:
        if type(transform) not in (Compose, Preparation):  # OneOf and its like do not apply all that they hold
            transform = Compose([transform])
        at = count_deterministic(transform)
        between = [_CheckPair(), *([] if device is None else [_ToDevice(device)])]
        super().__init__(
            [*transform.transforms[:at], *between, *transform.transforms[at:]],
            transform.map_items,
            transform.unpack_items,
            transform.log_stats,
            transform.lazy,
            transform.overrides,
        )

    def __call__(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies the transforms; with MONAI's further arguments, a part of them.

        Raises:
            PreparationError: When one fails.
        """
        try:
            return super().__call__(input_, *args, **kwargs)
        # whatever a library raises for a bad file
        except Exception as error:
            raise PreparationError(_in_words(input_) or "an item", _innermost(error)) from error

    def prepare(self, item: Any) -> Any:
        """Applies the deterministic part alone, as MONAI's data sets do for their caches."""
        return self(item, end=count_deterministic(self), threading=True)


class Skipped(NamedTuple):
    """An item that was left out, and why."""

    item: Any
    cause: str

    def __str__(self) -> str:
        return f"{self.item}: {self.cause}"


class ItemList(list):
    """A list of items that knows those that were left out of it.

    Args:
        items: of the list.
        skipped: the others.
    """

    def __init__(self, items: Iterable = (), skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(items)
        self.skipped = list(skipped)


def prepare_each(data: Sequence, prepare: Callable[[Any], Any], keep: bool = False) -> tuple[list, list, list[Skipped]]:
    """Prepares every item once, and parts the items by whether that works.

    Args:
        data: items.
        prepare: makes something of an item.
        keep: what is made; else it is dropped, and only its making counts.

    Returns:
        The items that work, what was made of them (None unless kept), and the others, which are logged.

    Raises:
        ValueError: When none works.
    """

    def attempt(item: Any) -> Any:
        try:
            made = prepare(item)
            return made if keep else None
        except PreparationError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(attempt, data))
    skipped = [Skipped(item, m.cause) for item, m in zip(data, made, strict=True) if isinstance(m, PreparationError)]
    for entry in skipped:
        logger.warning("skipped %s", entry)
    if skipped and len(skipped) == len(data):
        raise ValueError(f"None of {len(data)} items can be read; the first: {skipped[0]}")
    whole = [(item, m) for item, m in zip(data, made, strict=True) if not isinstance(m, PreparationError)]
    return [item for item, _ in whole], [m for _, m in whole], skipped
