# SPDX-License-Identifier: Apache-2.0
"""What decides the numbers of a training, as plain values that two runs can be compared by."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.transforms import Transform
from torch import nn

from ..data.fingerprint import files_of, sample_file
from .checkpoint import unwrap

__all__ = ["describe", "first_difference", "run_settings"]

SAMPLED = 50  # items whose files are looked into: a data set of a million files is not read for this


def describe(value: Any) -> Any:
    """Numbers, text, lists and dictionaries that stand for a value; the same for the same settings in every process.

    Of an object: its class and what it was made with, as far as it keeps that under the same names, which transforms
    and losses do; their state (random numbers, counters) is left out. Of an array: a hash.

    Args:
        value: anything.

    >>> describe(nn.CrossEntropyLoss(label_smoothing=0.1))["label_smoothing"]
    0.1
    """
    if isinstance(value, Enum):
        return str(value.value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # torch.load knows no number of numpy
    if value is None:
        return None
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _hash(value)
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(part) for part in value]
    if isinstance(value, (os.PathLike, torch.dtype, torch.device, np.dtype, slice, range)):
        return str(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__qualname__  # without its module, which is __main__ in the process that was started with it
    return {"class": type(value).__qualname__, **{name: _argument(part) for name, part in _made_with(value)}}


def _argument(value: Any) -> Any:
    """As `describe`; of objects that are neither transforms nor modules, which may hold anything, the class alone."""
    known = (type(None), bool, int, float, str, Enum, torch.Tensor, np.ndarray, np.generic, Transform, nn.Module)
    if isinstance(value, Mapping):
        return {str(key): _argument(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_argument(part) for part in value]
    simple = isinstance(value, (*known, os.PathLike, torch.dtype, torch.device, np.dtype, slice, range, type))
    return describe(value) if simple or inspect.isroutine(value) else type(value).__qualname__


def _made_with(owner: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of an object that are named as arguments of its class, and those that are such objects themselves."""
    names = _arguments(type(owner))  # type: ignore[arg-type]
    inner = owner.named_children() if isinstance(owner, nn.Module) else getattr(owner, "__dict__", {}).items()
    for name in sorted(names - {"self", "args", "kwargs"}):
        if hasattr(owner, name):
            yield name, getattr(owner, name)
    yield from ((n, v) for n, v in inner if n not in names and isinstance(v, (Transform, nn.Module)))


@cache
def _arguments(kind: type) -> frozenset[str]:
    """Names of the arguments of a class and of those it derives from."""
    return frozenset(name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters)  # type: ignore[misc]


def _hash(array: Any) -> str:
    values = torch.as_tensor(array).detach().cpu().contiguous()
    content = repr((tuple(values.shape), str(values.dtype))).encode() + values.numpy().tobytes()
    return f"array {hashlib.sha256(content).hexdigest()[:16]}"


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Where two values of :func:`describe` first differ.

    Args:
        before: one of them.
        now: the other.
        name: of the values.

    Returns:
        Name of the place, and what stands there before and now; None where nothing differs.

    >>> first_difference({"lr": 0.1, "betas": [0.9, 0.99]}, {"lr": 0.1, "betas": [0.9, 0.999]}, "optimizer")
    ('optimizer betas 1', 0.99, 0.999)
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        pairs = [(key, before.get(key), now.get(key)) for key in dict.fromkeys([*before, *now])]
    elif isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        pairs = [(f"{i}{_kind(a, b)}", a, b) for i, (a, b) in enumerate(zip_longest(before, now))]
    else:
        return None if before == now or (before != before and now != now) else (name, before, now)  # nan is nan
    for key, a, b in pairs:
        if found := first_difference(a, b, f"{name} {key}".strip()):
            return found
    return None


def _digest(path: Path, look: bool) -> str:
    """Name of a file or folder and, where it is looked into, size and parts of its content: it may have moved."""
    content = hashlib.sha256()
    files = files_of(path) if look else []
    for number, part in enumerate(files):
        content.update(f"{part.name} {part.stat().st_size}".encode())
        if number in (0, len(files) // 2, len(files) - 1):  # of a series of slices three
            content.update(sample_file(part))
    return f"{path.name} {content.hexdigest()}"


def _item(value: Any, digest: Callable[[str], str | None]) -> Any:
    """As `describe`, with files in place of their paths."""
    if isinstance(value, Mapping):
        return {str(key): _item(part, digest) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_item(part, digest) for part in value]
    if isinstance(value, (str, os.PathLike)):
        found = digest(os.fspath(value))
        return os.fspath(value) if found is None else found
    return describe(value)


def _kind(before: Any, now: Any) -> str:
    """Class of two described objects, for people, where it is the same."""
    names = {value.get("class") for value in (before, now) if isinstance(value, Mapping)} - {None}
    return f" ({names.pop()})" if len(names) == 1 else ""


class _Digests:
    """Digests of the files that items name; a file that many items name, such as an .npz, is read once."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bool], str | None] = {}

    def of(self, text: str, look: bool) -> str | None:
        """Digest of what a text names, or None where it names no file."""
        name, mark, array = text.partition(".npz#")
        file = name + ".npz" if mark else text
        if (file, look) not in self._seen:
            path = Path(file)
            try:
                named = path.is_absolute() and (not look or path.exists())
                self._seen[file, look] = _digest(path, look) if named else None
            except (OSError, ValueError):
                self._seen[file, look] = None
        found = self._seen[file, look]
        return found and found + mark + array


def _data(loader: Any) -> dict[str, Any]:
    """Items, transforms and batches of a loader; a data set that does not list its items is known by its length."""
    dataset = getattr(loader, "dataset", None)
    items: Any = getattr(dataset, "data", dataset)
    found: dict[str, Any] = {
        "items": len(items) if hasattr(items, "__len__") else None,
        "transform": describe(getattr(dataset, "transform", None)),
        "batch_size": getattr(loader, "batch_size", None),
        "drop_last": getattr(loader, "drop_last", None),
        "sampler": type(getattr(loader, "sampler", None)).__name__,
    }
    if isinstance(items, (list, tuple)):
        digests, step, total = _Digests(), max(1, len(items) // SAMPLED), hashlib.sha256()
        for number, item in enumerate(items):
            total.update(repr(_item(item, partial(digests.of, look=number % step == 0))).encode())
        found["content"] = total.hexdigest()[:16]
    return found


def run_settings(trainer: SupervisedTrainer, validation: Any, lr_scheduler: Any) -> dict[str, Any]:
    """What decides the numbers of a training, read off a trainer that has not begun.

    Args:
        trainer: of the run.
        validation: loader of the validation.
        lr_scheduler: of the optimizer, or None.

    Returns:
        Plain values, which :func:`torch.load` reads with ``weights_only=True``.
    """
    network = unwrap(trainer.network)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in trainer.optimizer.param_groups]
    schedule = {} if lr_scheduler is None else lr_scheduler.state_dict()
    own: dict[str, Any] = getattr(trainer, "settings", dict)()
    return {
        "seed": getattr(trainer.state, "seed", None),
        "number of processes": idist.get_world_size(),
        "optimizer": {"class": type(trainer.optimizer).__name__, "settings": describe(groups)},
        "lr_scheduler": {
            "class": type(lr_scheduler).__name__,
            **{k: describe(v) for k, v in schedule.items() if not k.startswith("_") or k == "_schedule_phases"},
        },
        "network": repr(network).splitlines(),
        "trained weights": [name for name, parameter in network.named_parameters() if parameter.requires_grad],
        "loss": describe(trainer.loss_function),
        "training data": _data(trainer.data_loader),
        "validation data": _data(validation),
        **{name: _data(value) if hasattr(value, "dataset") else describe(value) for name, value in own.items()},
    }
