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

import numpy as np
import torch
from monai.data import PersistentDataset
from monai.data.utils import pickle_hashing
from monai.transforms import Compose
from monai.utils.enums import TraceKeys

__all__ = ["DiskCacheDataset"]

# what the meta of an image holds beside tensors; code is not among it
SAFE = [
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *{type(np.dtype(name)) for name in "?bBhHiIlLqQefdFDSU"},
    TraceKeys,
]

logger = logging.getLogger(__name__)


def _stamps(value: Any) -> Any:
    """Size and time of each file that an item names."""
    if isinstance(value, dict):
        return [_stamps(part) for part in value.values()]
    if isinstance(value, (list, tuple)):
        return [_stamps(part) for part in value]
    if isinstance(value, (str, os.PathLike)):
        path = Path(os.fspath(value).partition("#")[0])  # an array of an .npz
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return None
        # a folder of DICOM files is as new as its newest
        newest = max((p.stat().st_mtime_ns for p in path.iterdir()), default=0) if path.is_dir() else 0
        return stat.st_size, max(stat.st_mtime_ns, newest)
    return None


def hash_item(item: Any) -> bytes:
    """Hash of an item and of the size and time of its files."""
    return hashlib.sha256(pickle_hashing(item) + repr(_stamps(item)).encode()).hexdigest()[:32].encode()


def _hash_transforms(transforms: Sequence) -> bytes:
    try:
        return hashlib.sha256(pickle.dumps(transforms)).hexdigest()[:16].encode()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"The transforms cannot be told apart from others in the cache ({error}): use no lambda before the first "
            "random transform, or another cache."
        ) from error


class DiskCacheDataset(PersistentDataset):
    """Keeps what the deterministic transforms make as files, for this run and the next ones.

    A file belongs to an item, to the size and time of the item's files, and to the transforms with their arguments:
    after a change of any of them it is made again. A disk that fills up costs speed only: the item is made each time.

    Args:
        data: items.
        transform: a Compose.
        cache_dir: folder of the files; it is made.

    Raises:
        OSError: When nothing can be written to the folder.
        ValueError: When the transforms cannot be pickled.
    """

    def __init__(self, data: Sequence, transform: Compose, cache_dir: Path) -> None:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache_dir) as file:
                file.write(bytes(4096))
        except OSError as error:
            raise type(error)(
                error.errno,
                f"{cache_dir} cannot be written ({error.strerror}): free space or rights there, or name another "
                "cache_dir, or another cache",
            ) from error
        super().__init__(
            data, transform, cache_dir, hash_func=hash_item, hash_transform=_hash_transforms, track_meta=True,
            weights_only=False,
        )  # fmt: skip
        self.full = False

    def _load(self, path: Path) -> Any:
        torch.serialization.add_safe_globals(SAFE)  # here, because worker processes load too
        return torch.load(path, weights_only=True)

    def _cachecheck(self, item: Any) -> Any:
        path = self.cache_dir / f"{hash_item(item).decode()}{self.transform_hash}.pt"
        if path.is_file():
            try:
                return self._load(path)
            except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
                logger.warning("%s is damaged and made again (%s)", path, str(error).splitlines()[0])
        made = self._pre_transform(deepcopy(item))
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.cache_dir, prefix=".", delete=False) as file:
                temporary = file.name
                torch.save(made, file)
            os.replace(temporary, path)
        # torch's zip writer turns a full disk into a RuntimeError
        except (OSError, RuntimeError) as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            if not self.full:
                logger.warning("%s takes no more (%s): items are made each time from here on", self.cache_dir, error)
            self.full = True
        return made
