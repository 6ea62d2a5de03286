# SPDX-License-Identifier: Apache-2.0
"""Puts the bundles into the wheel; everything else stands in pyproject.toml."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithBundles(build_py):
    """An editable install has the bundles where they are."""

    def run(self) -> None:
        """Builds the package and, for a wheel, its bundles."""
        super().run()
        if not self.editable_mode:
            # by its path: importing the package takes torch, which a build does not have
            spec = spec_from_file_location("bundles", ROOT / "monai_crossd" / "bundles.py")
            bundles = module_from_spec(spec)
            spec.loader.exec_module(bundles)
            bundles.pack_bundles(ROOT / "bundles", Path(self.build_lib) / "monai_crossd" / "bundle_files")


setup(cmdclass={"build_py": BuildWithBundles})
