# SPDX-License-Identifier: Apache-2.0
"""MONAI's PersistentDataset that notices changed files, transforms and code, and outlives damage and a full disk."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import PersistentDataset, get_track_meta
from monai.utils import enums

from .._replacing import replacing
from .._version import __version__
from .fingerprint import fingerprint, stamp_file, stamp_image
from .preparation import Preparation, count_deterministic, first_line
from .readers.formats import is_cache, mark_cache

__all__ = ["DiskCacheDataset"]

# what the meta of an image and the trace of its transforms hold beside tensors; code is not among it
SAFE: list[Any] = [
    np.ndarray,
    np.dtype,
    np.empty(0).__reduce__()[0],  # what rebuilds arrays and numbers; numpy 1 and 2 keep it in different places
    np.float64(0).__reduce__()[0],
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"},
    *(kind for kind in vars(enums).values() if isinstance(kind, type) and issubclass(kind, Enum) and kind is not Enum),
]
_DIGEST = hashlib.sha256().digest_size
_OWN = re.compile(r"[0-9a-f]{32,}\.pt|CACHEDIR\.TAG|\..*")  # another process may be marking it
_READERS = ("SimpleITK", "nibabel", "pillow")  # they read behind any transform

logger = logging.getLogger(__name__)


def hash_item(item: Any) -> bytes:
    """Hash of an item and of the stamps of its files."""
    return fingerprint(item, stamp_image)[:32].encode()


def _hash_transforms(preparation: Preparation) -> str:
    """Hash of the deterministic transforms with the Compose's options and what else decides their values."""
    options = (preparation.map_items, preparation.unpack_items, preparation.lazy, preparation.overrides)
    settings = (get_track_meta(), torch.get_default_dtype())
    versions = (monai.__version__, __version__, np.__version__, torch.__version__, *map(version, _READERS))
    transforms = list(preparation.transforms[: count_deterministic(preparation)])
    try:
        return fingerprint((transforms, options, settings, versions), stamp_file)[:16]
    except ValueError as error:
        raise ValueError(
            f"The transforms cannot be told apart from others in the cache ({error}): make it when the transform is "
            "called, put it after the first random transform, or choose another cache."
        ) from error


def _own_folder(folder: Path) -> Path:
    """The folder, marked as a cache and written to; one in it where it holds files of the user."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not is_cache(folder):
            if not all(_OWN.fullmatch(path.name) for path in folder.iterdir()):
                return _own_folder(folder / "monai_crossd_cache")
            mark_cache(folder)
        with tempfile.TemporaryFile(dir=folder, prefix=".") as file:
            file.write(bytes(4096))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{folder} cannot be written ({error.strerror}): free space or rights there, or name another cache_dir, or "
            "another cache",
        ) from error
    return folder


def _pack(made: Any) -> bytes:
    """A file's content, and before it is kept a proof that it can be read: the digest covers what torch's does not."""
    buffer = io.BytesIO()
    torch.save(made, buffer)
    content = buffer.getvalue()
    content += hashlib.sha256(content).digest()
    _unpack(content)
    return content


def _unpack(content: bytes) -> Any:
    if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise ValueError("its checksum differs: the file is damaged")
    torch.serialization.add_safe_globals(SAFE)  # here, because worker processes load too
    return torch.load(io.BytesIO(content[:-_DIGEST]), weights_only=True)


class DiskCacheDataset(PersistentDataset):
    """Keeps what the deterministic transforms make as files, for this run and the next ones.

    A file belongs to an item, to its files and those that are read with them (the voxels beside a header, the slices of
    a folder), to the transforms with their arguments, their code and that which it uses, to the Compose's options, and
    to the versions of MONAI, torch, numpy, the readers and this package: after a change of any of them it is made
    again, and the old one stays until the folder is deleted. A disk that fills up costs speed only: what has no place
    is made each time, and so is what ``torch.load(weights_only=True)`` would refuse.

    Args:
        data: items.
        preparation: of the items.
        cache_dir: folder of the files; it is made, and marked as a cache, which lists of images leave out. In a folder
            that holds other files it is the folder ``monai_crossd_cache``.

    Raises:
        OSError: When nothing can be written to the folder.
        ValueError: When a transform holds what has no value to compare, like an open file.
    """

    def __init__(self, data: Sequence, preparation: Preparation, cache_dir: Path) -> None:
        super().__init__(data, preparation, _own_folder(cache_dir), hash_func=hash_item)
        self.transform_hash = _hash_transforms(preparation)
        self._full, self._told = torch.zeros(2, 1, dtype=torch.bool).share_memory_()  # workers see them

    def set_data(self, data: Sequence) -> None:
        """Takes other items; the files of the old ones stay, because each belongs to its item."""
        self.data = data

    def prepare(self, item: Any) -> Any:
        """What the deterministic transforms make of an item, from its file where there is one."""
        path = self.cache_dir / f"{hash_item(item).decode()}{self.transform_hash}.pt"
        try:
            return _unpack(path.read_bytes())
        except FileNotFoundError:
            pass
        # damage of any kind; what is read is data, and made again from its source
        except Exception as error:
            logger.warning("%s cannot be loaded and is made again (%s)", path, first_line(error))
        made = self._pre_transform(deepcopy(item))
        if not self._full:
            self._save(made, path)
        return made

    def _cachecheck(self, item: Any) -> Any:
        return self.prepare(item)

    def _save(self, made: Any, path: Path) -> None:
        try:
            content = _pack(made)
        # pickle raises what the object raises
        except Exception as error:
            if not self._told:
                logger.warning(
                    "an item cannot be kept in %s and is made each time (%s)", path.parent, first_line(error)
                )
            self._told.fill_(True)
            return
        try:
            with replacing(path, lasting=False) as temporary:  # several processes may fill one cache
                temporary.write_bytes(content)
        except OSError as error:
            if not self._full:
                logger.warning(
                    "%s takes no more (%s): what is not in it is made each time from here on", self.cache_dir, error
                )
            self._full.fill_(True)
