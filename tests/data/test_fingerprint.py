# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import random
import re
import sys
import threading
from collections import OrderedDict
from enum import Enum
from pathlib import Path, PurePosixPath

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, OneOf, Resized, ScaleIntensityd, Spacingd
from processes import run_code

import monai_crossd.data.fingerprint as module
from monai_crossd.data.fingerprint import fingerprint


class Colour(Enum):
    RED = 1
    BLUE = 2


class Window:
    def __init__(self, low, high):
        self.low, self.high = low, high


def captured(value):
    return lambda x: x * value


def by_default(value):
    return lambda x, y=value: x * y


def by_keyword(value):
    def scale(x, *, y=value):
        return x * y

    return scale


def through(function):
    return lambda x: function(x)


def plus(x):
    return x + 1


def minus(x):
    return x - 1


def make_class(factor, base=object, extra=None):
    class Scale(base):
        weight = extra

        def __call__(self, x):
            return x * factor

    return Scale


def own(value):
    array = np.zeros(3, object)
    array[0] = value
    return array


# each makes the same anew when it is called with the same, and something else with something else
MAKERS = {
    "number": (lambda v: v, 1, 2),
    "kind of number": (lambda v: v, 1, 1.0),
    "true and one": (lambda v: v, 1, True),
    "text and bytes": (lambda v: v, "a", b"a"),
    "zero's sign": (lambda v: v, 0.0, -0.0),
    "nan": (lambda v: [v, math.nan], 0, 1),
    "list and tuple": (lambda v: v, [1], (1,)),
    "nested": (lambda v: {"a": [1, {"b": v}]}, 1, 2),
    "boundaries": (lambda v: v, ["ab", "c"], ["a", "bc"]),
    "set": (lambda v: {"x", "y", "zz", v}, "a", "b"),
    "array": (lambda v: np.array([1.0, v]), 1, 2),
    "array's type": (lambda v: np.zeros(2, v), np.float32, np.int32),
    "array's shape": (lambda v: np.zeros(v), (2, 3), (3, 2)),
    "array's order": (lambda v: np.arange(6).reshape(2, 3)[:, ::v], 1, -1),
    "array of objects": (own, "a", "b"),
    "numpy number": (lambda v: v, np.float32(1), np.float64(1)),
    "tensor": (lambda v: torch.tensor([1.0, v]), 1, 2),
    "tensor's type": (lambda v: torch.ones(2, dtype=v), torch.float16, torch.bfloat16),
    "no dimension": (lambda v: torch.tensor(v), 1.0, 2.0),
    "parameter": (lambda v: torch.nn.Parameter(torch.full((2,), v)), 1.0, 2.0),
    "meta of a tensor": (lambda v: MetaTensor(torch.zeros(1, 2), affine=torch.eye(3) * v), 1, 2),
    "network": (lambda v: torch.nn.BatchNorm1d(v), 1, 2),
    "mode of a network": (lambda v: torch.nn.Dropout(0.5).train(v), True, False),
    "object": (lambda v: Window(0, v), 1, 2),
    "object's names": (lambda v: vars(w := Window(0, 0)).update({v: 1}) or w, "a", "b"),
    "enum": (lambda v: v, Colour.RED, Colour.BLUE),
    "path": (lambda v: PurePosixPath(v), "a", "b"),
    "pattern": (lambda v: re.compile(v), "a", "b"),
    "ordered": (lambda v: OrderedDict([("a", v)]), 1, 2),
    "partial": (lambda v: functools.partial(plus, v), 1, 2),
    "partial's function": (lambda v: functools.partial(v, 1), plus, minus),
    "method": (lambda v: Window(v, 0).__init__, 1, 2),
    "method of a list": (lambda v: [v].append, 1, 2),
    "built in": (lambda v: v, len, max),
    "of numpy": (lambda v: v, np.add, np.subtract),
    "of torch": (lambda v: v, torch.add, torch.sub),
    "class": (lambda v: v, np.ndarray, torch.Tensor),
    "function": (lambda v: v, plus, minus),
    "captured": (captured, 1, 2),
    "captured array": (lambda v: captured(np.full(2, v)), 1, 2),
    "captured function": (through, plus, minus),
    "captured in what is captured": (lambda v: through(captured(v)), 1, 2),
    "default": (by_default, 1, 2),
    "keyword": (by_keyword, 1, 2),
    "cached function": (lambda v: functools.lru_cache(captured(v)), 1, 2),
    "class of one's own": (make_class, 1, 2),
    "its object": (lambda v: make_class(v)(), 1, 2),
    "its base": (lambda v: make_class(1, v), object, Window),
    "base's code": (lambda v: make_class(1, make_class(v)), 1, 2),
    "its constant": (lambda v: make_class(1, object, v), 1, 2),
    "static method": (lambda v: make_class(1, object, staticmethod(v)), plus, minus),
    "property": (lambda v: make_class(1, object, property(v)), plus, minus),
    "argument of a transform": (lambda v: ScaleIntensityd("image", maxv=v), 1.0, 2.0),
    "mode of a transform": (lambda v: Resized("image", (2, 2), mode=v), "nearest", "area"),
    "lambda of a transform": (lambda v: Lambdad("image", captured(v)), 1, 2),
    "nested transforms": (lambda v: Compose([Compose([Spacingd("image", (v, 1))])]), 1.0, 2.0),
    "one of several": (lambda v: OneOf([Spacingd("image", (1, 1)), Spacingd("image", (2, 2))], v), (1, 3), (3, 1)),
    "lazy": (lambda v: Compose([], lazy=v), True, False),
}


@pytest.mark.parametrize("case", MAKERS)
def test_equal_is_equal_and_other_is_other(case):
    make, first, second = MAKERS[case]
    assert fingerprint(make(first)) == fingerprint(make(first))
    assert fingerprint(make(first)) != fingerprint(make(second))


@pytest.mark.parametrize(
    "make",
    [
        np.random.RandomState,
        np.random.default_rng,
        random.Random,
        lambda seed: torch.Generator().manual_seed(seed),
        lambda seed: Compose([]).set_random_state(seed),
        lambda seed: threading.Lock(),
        lambda seed: {"a": threading.RLock(), "b": threading.local()},
    ],
)
def test_random_states_and_locks_do_not_count(make):
    assert fingerprint(make(1)) == fingerprint(make(2))


def test_cycles_end():
    a, b = [1], [1]
    a.append(a)
    b.append(b)
    assert fingerprint(a) == fingerprint(b) != fingerprint([1, [1, []]])


def test_what_has_no_value_is_named(tmp_path):
    with (tmp_path / "file").open("w") as file:
        with pytest.raises(ValueError, match=r"transform\.low\[0\] is a TextIOWrapper"):
            fingerprint(Window([file], 0))
        with pytest.raises(ValueError, match=r"captured.*value is a TextIOWrapper"):
            fingerprint(captured(file))
    with pytest.raises(ValueError, match="generator"):
        fingerprint(Window(0, (i for i in range(3))))


MODULE = """
import math
from .helpers import helper
from . import helpers as others

LEVEL = {level}
TABLE = {{"a": [1, {table}]}}

def unused(x):
    return {unused}

def inner(x):
    return [other(x) for other in (helper,)]

def recursive(x):
    return x if x < 1 else other_recursive(x - 1)

def other_recursive(x):
    return recursive(x) * {recursive}

class Scale:
    '''{doc}'''
    step = 1
    def __call__(self, x):
        from .lazy import late  # {comment}
        return late(self._apply(x))
    def _apply(self, x):
        return inner(x) + LEVEL + TABLE["a"][1] + others.constant + math.pi + recursive(x)
"""
HELPERS = "def helper(x):\n    return x + {helper}\nconstant = {constant}\n"
LAZY = "def late(x):\n    return x - {late}\n"
VALUES = {
    **{"level": 1, "table": 2, "recursive": 3, "helper": 4, "constant": 5, "late": 6},
    **{"unused": 7, "doc": "text", "comment": "text"},
}


def write_package(folder, **changes):
    values = {**VALUES, **changes}
    package = folder / "mine"
    package.mkdir(parents=True)
    for name, text in {"__init__": "", "module": MODULE, "helpers": HELPERS, "lazy": LAZY}.items():
        (package / f"{name}.py").write_text(text.format(**values))


def load_scale(folder, monkeypatch):
    """Fingerprint of the class in `folder`, which is forgotten afterwards."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        found = fingerprint([importlib.import_module("mine.module").Scale(), {*"abcdefgh"}])
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]
    return found


@pytest.mark.parametrize("change", VALUES)
def test_the_code_of_a_module_counts_as_far_as_it_is_used(tmp_path, monkeypatch, change):
    """Functions, constants and modules that a method uses by its module's names, through others, and when it runs."""
    found = []
    for at, value in enumerate((VALUES[change], VALUES[change], 99)):
        write_package(tmp_path / str(at), **{change: value})
        found.append(load_scale(tmp_path / str(at), monkeypatch))
    assert found[0] == found[1]
    assert (found[0] == found[2]) == (change in ("unused", "doc", "comment"))


def test_every_process_finds_the_same(tmp_path, monkeypatch):
    """Also from the compiled files, and with sets in another order."""
    write_package(tmp_path)
    code = """
from mine.module import Scale
from monai_crossd.data.fingerprint import fingerprint
print(fingerprint([Scale(), {*"abcdefgh"}]))
"""
    here = load_scale(tmp_path, monkeypatch)
    assert run_code(code, tmp_path).split()[-1] == here


def test_a_changed_installation_counts(monkeypatch):
    before = fingerprint(nibabel.Nifti1Image)
    distribution = importlib.metadata.PathDistribution
    real = distribution.read_text
    monkeypatch.setattr(distribution, "read_text", lambda self, name: real(self, name) + "x" * (name == "RECORD"))
    module._release.cache_clear()
    assert fingerprint(nibabel.Nifti1Image) != before
    module._release.cache_clear()


def test_files_that_are_named_count(tmp_path):
    def stamp(text):
        return Path(text).read_text() if Path(text).is_file() else None

    path = tmp_path / "atlas.txt"
    found = []
    for text in ("1", "1", "2"):
        path.write_text(text)
        found.append([fingerprint(make(str(path)), stamp) for make in (captured, Path, lambda p: Window(p, 0))])
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))
