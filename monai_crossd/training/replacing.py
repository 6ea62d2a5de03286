# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old one or the new one, never a part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai.config import PathLike

__all__ = ["replacing"]


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Gives a temporary path in the same folder, and moves what is written there to ``path`` at the end.

    Until then, and when writing fails or the process is killed, ``path`` is as it was.

    Args:
        path: of the file; missing folders are made.

    Raises:
        OSError: When it cannot be written, with the free space of its disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [(p.name, p.read_text()) for p in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")  # one name: a killed run leaves one file, which the next replaces
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # the bytes are on the disk before the name is
        os.replace(temporary, path)
    # torch's zip writer turns a full disk into a RuntimeError
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(
            getattr(error, "errno", None),
            f"{path} could not be written ({getattr(error, 'strerror', error)}): its disk has {free:.1f} MiB free. "
            "What was there before is unchanged",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
