# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old one or the new one, never a part."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from monai.config import PathLike

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves there stays
    fcntl = None  # type: ignore[assignment]

__all__ = ["replacing"]


def _lock(file: BinaryIO, wait: bool) -> bool:
    """Takes the lock that ends with the process; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return wait
    return True


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files of processes that were killed; those of living ones are locked."""
    for leftover in path.parent.glob(f".{_escape(path.name)}.*.part") if fcntl else ():
        try:
            with leftover.open("rb") as file:
                if _lock(file, wait=False):
                    leftover.unlink(missing_ok=True)
        except FileNotFoundError:  # another process has moved or removed it
            pass


def _escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _create(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside ``path`` that no other process writes to, and its handle, which holds the lock."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        file = temporary.open("xb")
        if fcntl is None:
            return temporary, file
        _lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:  # nobody took it for a leftover before it was locked
            return temporary, file
        file.close()


@contextmanager
def replacing(path: PathLike, lasting: bool = True) -> Iterator[Path]:
    """Gives a temporary path in the same folder, and moves what is written there to ``path`` at the end.

    Until then, and when writing fails or the process is killed, ``path`` is as it was. Every writer has a temporary
    file of its own, so of several that write at once the last one wins, whole. What a killed process leaves is removed
    when the same file is written next.

    Args:
        path: of the file; missing folders are made.
        lasting: False for what can be made again, as one of thousands of cached files: the system writes it to the disk
            when it likes, and nobody looks for what killed processes left.

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
    if lasting:
        _remove_leftovers(path)
    temporary: Path | None = None
    try:
        temporary, lock = _create(path)
        with lock:
            yield temporary
            if lasting:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())  # the bytes are on the disk before the name is
            os.replace(temporary, path)
    # torch's zip writer turns a full disk into a RuntimeError
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20
        cause = getattr(error, "strerror", None) or error
        raise OSError(
            getattr(error, "errno", None),
            f"{path} could not be written ({cause}): its disk has {free:.1f} MiB free. "
            "What was there before is unchanged",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
