# SPDX-License-Identifier: Apache-2.0
"""Data sets that are written once: complete or not at all, and used again when they are there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["prepare_once"]


def prepare_once(
    target: Path, write: Callable[[Path], dict[str, Any]], arguments: dict[str, Any] | None = None
) -> Path:
    """Writes a data set, or finds it from an earlier call.

    Args:
        target: its folder. It is made under a temporary name beside it and moved into place when it is complete.
        write: writes the files into an empty folder and returns the content of dataset.json.
        arguments: what the set was made of, kept in dataset.json as "arguments".

    Returns:
        The path of dataset.json.

    Raises:
        FileExistsError: When ``target`` holds no dataset.json, or one that was made with other arguments.
    """
    dataset = target / "dataset.json"
    extra = {} if arguments is None else {"arguments": json.loads(json.dumps(arguments))}
    if not dataset.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
            folder = Path(temporary, target.name)
            folder.mkdir()
            (folder / "dataset.json").write_text(json.dumps(write(folder) | extra, indent=2) + "\n")
            try:
                folder.rename(target)
            except OSError as error:
                if not dataset.is_file():  # else another process was faster, and its set is checked below
                    raise FileExistsError(
                        f"{target} is there but holds no dataset.json: remove it or choose another root."
                    ) from error
    found = json.loads(dataset.read_text()).get("arguments")
    if found != extra.get("arguments"):
        raise FileExistsError(
            f"{target} was made with {found}, not with {extra.get('arguments')}: remove it or choose another root."
        )
    return dataset
