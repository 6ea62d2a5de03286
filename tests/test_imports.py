# SPDX-License-Identifier: Apache-2.0
"""Imports inside the package point one way, read off the source of every module."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import monai_crossd

ROOT = Path(monai_crossd.__file__).parent
ORDER = ["conv", "transfer", "networks", "training"]
# what a part may import of the others; what is not named here may import any and is imported by none of these
ALLOWED = {part: set(ORDER[:at]) for at, part in enumerate(ORDER)}
ALLOWED["transforms"] = ALLOWED["visualize"] = set()
ALLOWED["demo"] = set()
ALLOWED["data"] = {"transforms", "demo"}  # label maps are read by the transforms of the training
ALLOWED["training"] = {*ALLOWED["training"], "visualize", "data"}  # handlers draw, and name files by what is read
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def imported(source: str, module: str) -> set[str]:
    """Every module that `source`, the text of the module `module`, imports anywhere, relative names resolved.

    `module` ends in __init__ for a package.
    """
    package = module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join(base + ([node.module] if node.module else []))
            # `from . import x` may import a module x
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


def parts(source: str, module: str) -> set[str]:
    """Parts of the package that a module imports."""
    names = (name.split(".") for name in imported(source, module))
    return {name[1] for name in names if name[0] == "monai_crossd" and len(name) > 1}


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("monai_crossd.conv.acs", "from ..transforms.acs import x", {"transforms"}),
        ("monai_crossd.conv.acs", "from . import crossd", {"conv"}),
        ("monai_crossd.conv.__init__", "from .acs import x", {"conv"}),
        ("monai_crossd.conv.__init__", "from .. import transfer", {"transfer"}),
        ("monai_crossd.conv.acs", "def f():\n    import monai_crossd.networks.resnet", {"networks"}),
        ("monai_crossd.conv.acs", "from monai_crossd import data", {"data"}),
        ("monai_crossd.conv.acs", "from monai.networks import nets\nimport torch", set()),
    ],
)
def test_imports_are_read_off_the_source(module, source, expected):
    assert parts(source, module) == expected


def test_every_part_is_there():
    assert set(ORDER) <= {path.parts[0] for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    part = path.parts[0]
    module = ".".join(("monai_crossd", *path.with_suffix("").parts))
    others = {other for other in parts((ROOT / path).read_text("utf-8"), module) if (ROOT / other).is_dir()} - {part}
    if part in ALLOWED:
        assert others <= ALLOWED[part]


def test_convolutions_need_torch_only():
    for path in MODULES:
        if path.parts[0] == "conv" and path.name != "factory.py":  # which is MONAI's
            module = ".".join(("monai_crossd", *path.with_suffix("").parts))
            roots = {name.split(".")[0] for name in imported((ROOT / path).read_text("utf-8"), module)}
            # Triton comes with torch for CUDA, and is imported where a CUDA device is met
            wanted = {"torch", "monai_crossd"} | ({"triton"} if "triton" in path.name else set())
            assert roots - sys.stdlib_module_names <= wanted, path
