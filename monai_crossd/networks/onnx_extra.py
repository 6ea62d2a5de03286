# SPDX-License-Identifier: Apache-2.0
"""What `python -m monai.bundle onnx_export` needs beside this package."""

from __future__ import annotations

import inspect

import torch
from monai.utils import OptionalImportError, optional_import

from .._callers import callers

__all__ = ["check_onnx_export"]


def check_onnx_export() -> None:
    """Names the extra where MONAI's onnx_export builds a network and its packages are missing.

    torch's own message names a module. MONAI tells no network what it is built for, but the verb is on the stack.

    Raises:
        OptionalImportError: If onnx, or onnxscript where torch exports by it, is not installed.
    """
    for frame in callers():
        if frame.f_code.co_name == "onnx_export" and frame.f_globals.get("__name__") == "monai.bundle.scripts":
            by_script = inspect.signature(torch.onnx.export).parameters.get("dynamo")
            needed = ("onnx", "onnxscript") if by_script and by_script.default is True else ("onnx",)
            for package in needed:
                if not optional_import(package)[1]:
                    raise OptionalImportError(
                        f'{package} is not installed: onnx_export needs `pip install "monai-crossd[onnx]"`'
                    )
