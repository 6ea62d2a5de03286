# SPDX-License-Identifier: Apache-2.0
"""MONAI's PersistentDataset that notices changed files and transforms, and outlives a full disk."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import PersistentDataset
from monai.data.utils import pickle_hashing
from monai.utils.enums import TraceKeys

from .._version import __version__
from .preparation import Preparation, first_line

__all__ = ["DiskCacheDataset"]

# what the meta of an image holds beside tensors; code is not among it
SAFE = [
    np.ndarray,
    np.dtype,
    np.empty(0).__reduce__()[0],  # what rebuilds arrays and numbers; numpy 1 and 2 keep it in different places
    np.float64(0).__reduce__()[0],
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"},
    TraceKeys,
]

logger = logging.getLogger(__name__)


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; a folder, of DICOM files, is as new as its newest."""
    stat = path.stat()
    newest = max((p.lstat().st_mtime_ns for p in path.iterdir()), default=0) if path.is_dir() else 0
    return stat.st_size, max(stat.st_mtime_ns, newest)


def _stamps(value: Any) -> Any:
    """Size and time of each file that an item names."""
    if isinstance(value, dict):
        return [_stamps(part) for part in value.values()]
    if isinstance(value, (list, tuple)):
        return [_stamps(part) for part in value]
    if isinstance(value, (str, os.PathLike)):
        name = os.fspath(value)
        for candidate in filter(None, (name, name.rpartition("#")[0])):  # the second: an array of an .npz
            try:
                return _stamp(Path(candidate))
            except (OSError, ValueError):  # no path, but a text
                pass
    return None


def hash_item(item: Any) -> bytes:
    """Hash of an item and of the size and time of its files."""
    return hashlib.sha256(pickle_hashing(item) + repr(_stamps(item)).encode()).hexdigest()[:32].encode()


def _hash_transforms(transforms: Sequence) -> bytes:
    try:
        content = pickle.dumps((transforms, monai.__version__, __version__))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"The transforms cannot be told apart from others in the cache ({error}): use no lambda before the first "
            "random transform, or another cache."
        ) from error
    return hashlib.sha256(content).hexdigest()[:16].encode()


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{folder} cannot be written ({error.strerror}): free space or rights there, or name another cache_dir, or "
            "another cache",
        ) from error


class DiskCacheDataset(PersistentDataset):
    """Keeps what the deterministic transforms make as files, for this run and the next ones.

    A file belongs to an item, to the size and time of the item's files, and to the transforms with their arguments and
    the versions of MONAI and this package: after a change of any of them it is made again, and the old one stays until
    the folder is deleted. A disk that fills up costs speed only: what has no place is made each time.

    Args:
        data: items.
        preparation: of the items.
        cache_dir: folder of the files; it is made.

    Raises:
        OSError: When nothing can be written to the folder.
        ValueError: When the transforms cannot be pickled.
    """

    def __init__(self, data: Sequence, preparation: Preparation, cache_dir: Path) -> None:
        _check_writable(cache_dir)
        super().__init__(data, preparation, cache_dir, hash_func=hash_item, hash_transform=_hash_transforms)
        self._full = torch.zeros(1, dtype=torch.bool).share_memory_()  # workers see it

    def prepare(self, item: Any) -> Any:
        """What the deterministic transforms make of an item, from its file where there is one."""
        path = self.cache_dir / f"{hash_item(item).decode()}{self.transform_hash}.pt"
        if path.is_file():
            torch.serialization.add_safe_globals(SAFE)  # here, because worker processes load too
            try:
                return torch.load(path, weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                logger.warning("%s cannot be loaded and is made again (%s)", path, first_line(error))
        made = self._pre_transform(deepcopy(item))
        if not self._full:
            self._save(made, path)
        return made

    def _cachecheck(self, item: Any) -> Any:
        return self.prepare(item)

    def _save(self, made: Any, path: Path) -> None:
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.cache_dir, prefix=".", delete=False) as file:
                temporary = Path(file.name)
                torch.save(made, file)
            os.replace(temporary, path)
        # torch's zip writer turns a full disk into a RuntimeError
        except (OSError, RuntimeError) as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            if not self._full:
                logger.warning(
                    "%s takes no more (%s): what is not in it is made each time from here on", self.cache_dir, error
                )
            self._full.fill_(True)
