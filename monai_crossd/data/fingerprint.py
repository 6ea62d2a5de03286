# SPDX-License-Identifier: Apache-2.0
"""What tells that something has changed: a hash of objects with all that decides what they do, and stamps of files."""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import logging
import os
import random
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import PathLike

from .readers.formats import is_cache
from .readers.npz import is_npz_path
from .readers.volumes import partners

__all__ = ["files_of", "fingerprint", "sample_file", "stamp_file", "stamp_image"]

_ATOMS = (type(None), bool, int, float, complex, bytes, type(Ellipsis), type(NotImplemented))
_REPR = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype)
# a random state does not decide what a deterministic transform makes; a lock, a logger and a weak reference nothing
_NO_VALUE = (
    *(np.random.RandomState, np.random.Generator, np.random.BitGenerator, random.Random, torch.Generator),
    *(type(threading.Lock()), type(threading.RLock()), threading.local, weakref.ref, logging.Logger),
)
_BUILTIN = (
    *(types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.ClassMethodDescriptorType, np.ufunc),
)
# of a class: where it stands, and what Python makes of the rest
_NOT_HASHED = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__", "__annotate_func__"),
    *("__annotations_cache__", "__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__"),
    "__classdictcell__",
}
_HEAP_TYPE = 1 << 9  # of a class that is written in Python
_PIECE, _PIECES = 1 << 14, 9  # bytes and number of those that a file is sampled by
_BY_VERSION = ("monai", "torch", "numpy")  # also where they are installed from a checkout


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def _release(root: str) -> str | None:
    """What tells the installed code of a package from another release; None for code that may change at any time."""
    module = sys.modules.get(root)
    if root in sys.stdlib_module_names or root == "builtins":
        return sys.version
    if root in _BY_VERSION:
        return str(getattr(module, "__version__", ""))
    file = os.path.abspath(getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "") or "")
    if not {"site-packages", "dist-packages"} & set(file.split(os.sep)):
        return None
    try:
        names = [root] if importlib.metadata.version(root) else []
    except importlib.metadata.PackageNotFoundError:
        names = _distributions().get(root, [])
    # the record of an installation has the hash of each of its files
    found = [importlib.metadata.distribution(name) for name in names]
    records = [distribution.read_text("RECORD") or distribution.version for distribution in found]
    return hashlib.sha256("".join(records or [str(os.stat(file).st_mtime_ns)]).encode()).hexdigest()


def _names(code: types.CodeType) -> set[str]:
    """Global names and attributes that code uses."""
    inner = (_names(value) for value in code.co_consts if isinstance(value, types.CodeType))
    return set(code.co_names).union(*inner)


def _imports(function: types.FunctionType) -> Iterator[types.ModuleType]:
    """Modules that a function imports when it runs."""
    codes = [function.__code__]
    for code in codes:
        codes += [value for value in code.co_consts if isinstance(value, types.CodeType)]
        loaded: list[Any] = []
        for instruction in dis.get_instructions(code):
            if instruction.opname == "IMPORT_NAME":
                level = next((value for value in loaded[-2:] if type(value) is int), 0)
                package = function.__globals__.get("__package__") or ""
                try:
                    name = importlib.util.resolve_name("." * level + instruction.argval, package)
                    if _release(name.partition(".")[0]) is None:
                        yield importlib.import_module(name)
                except ImportError:
                    pass  # it is optional, or the call itself will say so
            loaded.append(instruction.argval)


class _Walk:
    """Numbers objects as it meets them, and hashes each with the numbers of those that it refers to."""

    def __init__(self, stamp: Callable[[str], Any]) -> None:
        self.stamp = stamp
        self.hash = hashlib.sha256()
        self.numbers: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no number is given twice
        self.waiting: deque[tuple[Any, str]] = deque()

    def run(self, value: Any) -> str:
        self._add(self._token(value, "transform"))
        while self.waiting:
            value, path = self.waiting.popleft()
            self._add(self._content(value, path))
        return self.hash.hexdigest()

    def _add(self, token: Any) -> None:
        text = repr(token).encode("utf-8", "surrogatepass")
        self.hash.update(len(text).to_bytes(8, "big") + text)

    def _token(self, value: Any, path: str) -> Any:
        """What stands for a value where it is used: itself, or the number under which it is hashed later."""
        kind = type(value)
        if kind in _ATOMS or isinstance(value, _REPR):
            return kind.__name__, repr(value)
        if kind is str:
            return "str", value, self.stamp(value)
        if isinstance(value, os.PathLike):
            return kind.__name__, os.fspath(value), self.stamp(os.fspath(value))
        if kind is tuple:
            return "tuple", [self._token(part, path) for part in value]
        if isinstance(value, types.CodeType):
            consts = [self._token(part, path) for part in value.co_consts]
            return "code", value.co_code, value.co_names, value.co_varnames, value.co_freevars, value.co_flags, consts
        if kind in (set, frozenset):
            return kind.__name__, sorted(_Walk(self.stamp).run(part) for part in value)
        if isinstance(value, _NO_VALUE):
            return kind.__module__, kind.__qualname__
        if isinstance(value, np.generic):
            return "number", str(value.dtype), value.tobytes()
        if isinstance(value, Enum):
            return "enum", kind.__qualname__, value.name, self._token(value.value, path)
        if isinstance(value, _BUILTIN):
            owner = getattr(value, "__self__", None)
            bound = self._token(owner, path) if owner is not None and not isinstance(owner, types.ModuleType) else ""
            return "builtin", getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__), bound
        if isinstance(value, (types.FunctionType, type)):
            release = _release((value.__module__ or "").partition(".")[0])
            if isinstance(value, type) and not value.__flags__ & _HEAP_TYPE:
                release = "compiled"
            # a function with captured values is more than its name
            if release is not None and not getattr(value, "__closure__", None) and "<" not in value.__qualname__:
                return "installed", value.__module__, value.__qualname__, release
        if isinstance(value, types.ModuleType):
            return "module", value.__name__, _release(value.__name__.partition(".")[0])
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.numbers)
            self.kept.append(value)
            self.waiting.append((value, path))
        return self.numbers[id(value)]

    def _tokens(self, values: Mapping, path: str) -> list:
        return [(self._token(key, path), self._token(value, f"{path}.{key}")) for key, value in values.items()]

    def _content(self, value: Any, path: str) -> Any:
        kind = self._token(type(value), path)
        if type(value) is list:
            return "list", [self._token(part, f"{path}[{at}]") for at, part in enumerate(value)]
        if type(value) in (dict, types.MappingProxyType):
            return "dict", self._tokens(value, path)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return kind, str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            flat = value.detach().as_subclass(torch.Tensor).cpu().contiguous().view(-1).view(torch.uint8)
            content = hashlib.sha256(flat.numpy().tobytes()).hexdigest()
            return kind, str(value.dtype), tuple(value.shape), content, self._tokens(vars(value), path)
        if isinstance(value, types.FunctionType):
            return self._function(value, path)
        if isinstance(value, (staticmethod, classmethod)):
            return kind, self._token(value.__func__, path)
        if isinstance(value, property):
            return kind, [self._token(part, path) for part in (value.fget, value.fset)]
        if isinstance(value, types.MethodType):
            return "method", self._token(value.__self__, path), self._token(value.__func__, path)
        if isinstance(value, functools._lru_cache_wrapper):
            return "cached", self._token(value.__wrapped__, path)
        if isinstance(value, type):
            own = {name: part for name, part in vars(value).items() if name not in _NOT_HASHED}
            bases = [self._token(base, path) for base in value.__bases__]
            return "class", value.__qualname__, bases, self._tokens(own, path)
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            parts: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:
            raise ValueError(f"{path} is a {type(value).__name__}, whose value cannot be told") from error
        if isinstance(parts, str):
            return kind, parts
        made = [self._token(part, path) for part in parts[:2]]
        state: Any = parts[2] if len(parts) > 2 else None
        inner: Any = self._tokens(state, path) if isinstance(state, dict) else self._token(state, path)
        items = [[self._token(part, path) for part in more or ()] for more in parts[3:5]]
        return kind, made, inner, items

    def _function(self, function: types.FunctionType, path: str) -> Any:
        names = _names(function.__code__)
        path = f"{path}.{function.__qualname__}"
        used = {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
        captured = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                captured[name] = cell.cell_contents
            except ValueError:  # not set yet
                captured[name] = None
        modules = [value for value in (*used.values(), *captured.values()) if isinstance(value, types.ModuleType)]
        modules = [value for value in modules if _release(value.__name__.partition(".")[0]) is None]
        # of modules of one's own what the function may use of them
        theirs = [
            {name: vars(module)[name] for name in sorted(names & vars(module).keys())}
            for module in (*modules, *_imports(function))
        ]
        return (
            self._token(function.__code__, path),
            self._token(function.__defaults__, path),
            self._tokens(function.__kwdefaults__ or {}, path),
            self._tokens(captured, path),
            self._tokens(used, path),
            [self._tokens(parts, path) for parts in theirs],
        )


def fingerprint(value: Any, stamp: Callable[[str], Any] = lambda text: None) -> str:
    """Hashes an object with all that decides what it does, the same in every process.

    Numbers, texts, containers, arrays, tensors and objects count by their values; functions and classes of one's own by
    their code, default and captured values, and by the functions, classes and constants that they use; those of
    installed packages by the installed release. Random states and locks do not count.

    Args:
        value: the object.
        stamp: gives of each text in it what else counts, as of the file that it names.

    Returns:
        Hexadecimal digits.

    Raises:
        ValueError: When a part of it is an open file, a running generator or another object without a value.

    Example:
        >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1), fingerprint([1]) == fingerprint([1.0])
        (True, False)
    """
    return _Walk(stamp).run(value)


def _stat(path: str) -> tuple | None:
    """Place, size and times; the second time is that of the system's own record, which no program sets back."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # nothing there, or a text that is no path
        return None
    return os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _below(folder: str) -> Iterator[tuple | None]:
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_cache(Path(root, name)))
        yield from (_stat(os.path.join(root, name)) for name in sorted(names))


def files_of(path: PathLike) -> list[Path]:
    """The files of an image: itself with those that are read with it, all that lie in a folder, or the .npz file."""
    place = Path(str(path).rpartition("#")[0] if is_npz_path(path) else path)
    if place.is_dir():
        return sorted(entry for entry in place.iterdir() if entry.is_file())
    return [place, *(other for other in partners(place) if other.is_file())]


def sample_file(path: PathLike) -> bytes:
    """Digest of a file's size and of pieces of it, spread evenly; of a small one that is all.

    Uncompressed volumes of one shape have the same size and the same begin and end.
    """
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    last = max(0, size - _PIECE)
    with open(path, "rb") as file:
        for place in sorted({last * k // (_PIECES - 1) for k in range(_PIECES)}):
            file.seek(place)
            digest.update(file.read(_PIECE))
    return digest.digest()


def stamp_file(text: str) -> tuple | None:
    """Stamp of the file that a text names; None where it names none."""
    return _stat(text) if os.path.isfile(text) else None


def stamp_image(text: str) -> list | None:
    """Stamps of all files that decide the image which a text names; None where it names none.

    Those of a folder are all files below it, but for marked caches; of a MetaImage, NRRD, Analyze, AFNI or Philips
    header also the files with its voxels; of ``FILE.npz#ARRAY/NUMBER`` the file.

    Args:
        text: path, or any other text.

    Example:
        >>> stamp_image("benign") is None
        True
    """
    try:
        for name in filter(None, (text, text.rpartition("#")[0])):
            if os.path.isdir(name):
                return list(_below(name))
            if os.path.isfile(name):
                return [_stat(name), *(_stat(str(path)) for path in partners(Path(name)))]
    except ValueError:  # a text that is no path
        pass
    return None
