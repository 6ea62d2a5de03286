# SPDX-License-Identifier: Apache-2.0
"""Checksums of compressed voxels, which the libraries that read them stop before, or do not look at."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

__all__ = ["check_gzip", "check_meta", "check_nrrd", "drain"]

_BLOCK = 1 << 20


def drain(stream: IO[bytes] | gzip.GzipFile) -> None:
    """Reads the rest of a stream; one of gzip compares its checksum at the end."""
    while stream.read(_BLOCK):
        pass


def check_gzip(path: str | Path) -> None:
    """Raises an OSError, EOFError or zlib.error where a gzip file is damaged or truncated."""
    with gzip.open(path) as stream:
        drain(stream)


def _check_rest(file: IO[bytes]) -> None:
    """Decompresses the rest of a file, of zlib or gzip, to the checksum at its end."""
    decompress = zlib.decompressobj(zlib.MAX_WBITS | 32)
    while not decompress.eof:
        block = decompress.unconsumed_tail or file.read(_BLOCK)
        if not block:
            raise EOFError("compressed voxels end before their checksum")
        decompress.decompress(block, _BLOCK)


def _fields(file: IO[bytes], mark: bytes) -> dict[str, str]:
    """Lines "key = value" or "key: value" up to an empty one, or the data file that ends a MetaImage's header."""
    fields: dict[str, str] = {}
    while (line := file.readline(_BLOCK)).strip():
        key, found, value = line.partition(mark)
        if found:
            fields[key.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
        if key.strip() == b"ElementDataFile":
            break
    return fields


def _check(path: str, mark: bytes, compressed: tuple[str, tuple[str, ...]], data: tuple[str, ...]) -> None:
    with Path(path).open("rb") as file:
        fields = _fields(file, mark)
        if fields.get(compressed[0], "").lower() not in compressed[1]:
            return
        beside = next((fields[key] for key in data if key in fields), "LOCAL")
        if beside == "LOCAL":
            _check_rest(file)
        elif (voxels := Path(path).parent / beside).is_file():  # else a list or pattern of files
            with voxels.open("rb") as other:
                _check_rest(other)


def check_nrrd(path: str) -> None:
    """Raises where the compressed voxels of an NRRD file, or of the file that it names, are damaged."""
    _check(path, b":", ("encoding", ("gzip", "gz")), ("data file", "datafile"))


def check_meta(path: str) -> None:
    """Raises where the compressed voxels of a MetaImage, or of the file that it names, are damaged."""
    _check(path, b"=", ("compresseddata", ("true", "1")), ("elementdatafile",))
