# SPDX-License-Identifier: Apache-2.0
"""Figures without a window: matplotlib's objects, so that the caller's backend and settings stay as they are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from monai.config import PathLike
from monai.utils import optional_import

from .._replacing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["need_matplotlib", "save_figure"]


def need_matplotlib(module: str) -> ModuleType:
    """Imports a module of matplotlib.

    Args:
        module: name, such as "matplotlib.figure".

    Raises:
        OptionalImportError: When matplotlib is not installed.
    """
    found, ok = optional_import(module, descriptor="{} failed: pictures need `pip install matplotlib`")
    if not ok:
        found()  # MONAI's placeholder raises when it is used
    return found


def save_figure(figure: Figure, path: PathLike) -> Path:
    """Writes a PNG under a temporary name and moves it into place.

    Args:
        figure: what to write.
        path: of the PNG; missing folders are made.

    Returns:
        ``path``.
    """
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path
