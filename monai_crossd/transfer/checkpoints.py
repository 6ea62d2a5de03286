# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: read whole and without running code, or refused by their path, with the cause and the remedy."""

from __future__ import annotations

import os
import re
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save writes first
# first bytes (in lower case) of what is saved under a checkpoint's name by mistake: what it is, and what to do
OTHERS = {
    b"version https://git-lfs": "is the pointer of Git LFS to a checkpoint, not the checkpoint: run `git lfs pull`",
    b"<": "is a web page or XML, not a checkpoint: download the file itself",
    b"\x89hdf": "is an HDF5 file, as Keras writes: use the publisher's PyTorch file",
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"\x93numpy": "is a numpy array, not a checkpoint",
}
# names that programs give to the network's state_dict beside the optimizer's and the rest
WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "net_state_dict", "network_weights",
)  # fmt: skip


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


def _is_state(value: Any) -> bool:
    """Whether it is, or wraps, a state_dict: an optimizer's has numbers for keys and dictionaries for values."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    return any(isinstance(v, Tensor) for v in value.values()) or any(_is_state(value.get(key)) for key in WRAPPERS)


def find_state(content: Any, path: str) -> dict[str, Tensor]:
    """The state_dict in what a checkpoint file holds.

    It is looked for under the names of WRAPPERS, in one another too. What else stands beside its tensors (an epoch, a
    word) is left out.

    Raises:
        ValueError: If there is none, or which of several is meant cannot be seen; with what was found.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{path!r} holds no state_dict (a {type(content).__name__} was found).")
    parts = [key for key, value in content.items() if isinstance(value, Mapping) and _is_state(value)]
    wrappers = [key for key in WRAPPERS if key in parts]
    if len(wrappers) == 1:
        return find_state(content[wrappers[0]], path)
    if parts:
        raise ValueError(
            f"{path!r} holds {'several state_dicts' if len(parts) > 1 else 'a state_dict under an unusual name'} "
            f"({', '.join(map(repr, parts))}): choose one, "
            f"state = torch.load({path!r}, weights_only=True)[{parts[0]!r}], and pass it to load_2d, or save it alone."
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        found = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in list(content.items())[:6])
        raise ValueError(f"{path!r} holds no state_dict (a dictionary of {found or 'nothing'} was found).")
    return state


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """State_dict of a checkpoint file, on the CPU, with `weights_only=True`.

    A dictionary that wraps it is unwrapped ("state_dict", "model_state_dict", "model", "net", "network", "module",
    "net_state_dict", "network_weights"); what stands beside it, such as the optimizer's state, is left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, damaged, or no checkpoint of tensors; with the path, the cause and what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 3, "model": torch.nn.Linear(1, 1).state_dict()}, f"{folder}/a.pt")
        ...     list(read_checkpoint(f"{folder}/a.pt"))
        ['weight', 'bias']
    """
    return find_state(read_file(path), os.fspath(path))
