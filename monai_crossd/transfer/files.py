# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: read whole and without running code, or refused by their path, with the cause and the remedy."""

from __future__ import annotations

import os
import re
import textwrap
import warnings
import zipfile
import zlib
from typing import Any

import torch

ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save writes first
# first bytes (in lower case) of what is saved under a checkpoint's name by mistake: what it is, and what to do
OTHERS = {
    b"version https://git-lfs": "is the pointer of Git LFS to a checkpoint, not the checkpoint: run `git lfs pull`",
    b"<": "is a web page or XML, not a checkpoint: download the file itself",
    b"\x89hdf": "is an HDF5 file, as Keras writes: use the publisher's PyTorch file",
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"\x93numpy": "is a numpy array, not a checkpoint",
}


def _short(error: BaseException) -> str:
    """First line of an error, without codes for a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return textwrap.shorten(text.splitlines()[0] if text else type(error).__name__, 200)


def _foreign(path: str, error: BaseException) -> list[str]:
    """Names of what a checkpoint holds that is no tensor, number, word or container of them, as torch tells them."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # torch before 2.5, or a file of the older kind
        names = []
    return names or re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]


def _problem(path: str) -> str | None:
    """What can be seen without unpickling: truncation, damage, and files of another kind."""
    size = os.path.getsize(path)
    if size == 0:
        return "is empty (0 bytes): copy or download it again"
    with open(path, "rb") as file:
        head = file.read(64)
    if any(start.startswith(head) for start in (ZIP, LEGACY)):
        return f"is truncated ({size} bytes): copy or download it again"
    if head.startswith(ZIP):
        return _zip_problem(path, size)
    if head[8:10] == b'{"':
        return "is a safetensors file: torch.save(safetensors.torch.load_file(path), ...) makes a checkpoint of it"
    lower = head.lstrip().lower()
    return next((what for start, what in OTHERS.items() if lower.startswith(start)), None)


def _zip_problem(path: str, size: int) -> str | None:
    if not zipfile.is_zipfile(path):  # the list of what is in it stands at its end
        return f"is truncated (it ends after {size} bytes): copy or download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/data.pkl") for name in names):
                return "is a zip archive that torch.save did not write"
            if any(name.endswith("/constants.pkl") for name in names):
                return (
                    "is a TorchScript file: save the weights of torch.jit.load(path), its state_dict(), and read those"
                )
            damaged = archive.testzip()  # torch.load does not look at the checksums
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        return f"is truncated or damaged ({_short(error)}): copy or download it again"
    return damaged and f"is damaged ({damaged} fails its checksum): copy or download it again"


def read_file(path: str | os.PathLike) -> Any:
    """What `torch.save` put into a file, on the CPU, read with `weights_only=True`.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated or damaged, no file of torch.save, or holds more than tensors, numbers, words and
            their containers; with the path, the cause and what to do.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        what = "is a folder, not a checkpoint: name a file in it" if os.path.isdir(path) else "does not exist"
        raise FileNotFoundError(f"there is no checkpoint {path!r} (it {what}): check the path, or make it first.")
    if problem := _problem(path):
        raise ValueError(f"{path!r} {problem}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about files it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch lets OSError, IndexError, struct.error and more through
        raise ValueError(f"{path!r} {_refusal(path, error)}.") from error


def _refusal(path: str, error: Exception) -> str:
    if names := _foreign(path, error):
        listed = ", ".join(names[:6])
        return (
            f"holds objects beside tensors ({listed}), which are not read because unpickling them could run any code. "
            "Where it was made, save the weights alone, torch.save(net.state_dict(), path); or, if you trust its "
            f"source, allow the classes: torch.serialization.add_safe_globals([{listed}])"
        )
    with open(path, "rb") as file:
        is_torch = file.read(len(LEGACY)) in (LEGACY, ZIP)
    if is_torch or isinstance(error, EOFError):
        return f"is truncated or damaged ({_short(error)}): copy or download it again"
    return f"is not a checkpoint of tensors, as torch.save(net.state_dict(), path) writes it ({_short(error)})"
