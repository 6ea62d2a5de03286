# SPDX-License-Identifier: Apache-2.0
"""One run at a time in a folder of results."""

from __future__ import annotations

import logging
from pathlib import Path

import ignite.distributed as idist
from filelock import BaseFileLock, FileLock, Timeout
from monai.config import PathLike

__all__ = ["claim_folders", "release_folders"]

LOCK = ".run.lock"
PATIENCE = 10.0  # seconds: loader workers outlive a killed run, which they share the lock with, by up to five

logger = logging.getLogger(__name__)
_held: dict[Path, BaseFileLock] = {}


def claim_folders(*folders: PathLike) -> None:
    """Takes folders for the run of this process, until :func:`release_folders` or the end of the process, however it ends.

    The lock is the operating system's, on a file ``.run.lock`` in the folder: a run that was killed leaves nothing that
    would stop the next one. Runs of the same process share their folders, and so do the processes of a distributed run:
    call it after the process group is initialised, so that the first process takes them.

    Args:
        folders: that the run writes to; they are made.

    Raises:
        RuntimeError: When another process has one of them.
        OSError: When a folder cannot be written.

    Example:
        .. code-block:: yaml

            initialize:
            - "$monai_crossd.training.claim_folders(@output_dir, @ckpt_dir)"
            finalize:
            - "$monai_crossd.training.release_folders()"
    """  # noqa: E501
    if idist.get_rank() != 0:
        return
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        if folder in _held:
            continue
        lock = FileLock(folder / LOCK)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise RuntimeError(
                f"Another run is writing to {folder} (its command is in the config.yaml there): wait for its end, or "
                "give this run another --output_dir and --ckpt_dir."
            ) from None
        except OSError as error:
            raise type(error)(
                error.errno,
                f"{folder} cannot be written ({error.strerror}): free space or rights there, or name another folder by "
                "--output_dir and --ckpt_dir",
            ) from error
        except NotImplementedError:
            logger.warning("%s is on a file system without locks: see to it that no other run writes there", folder)
            continue
        _held[folder] = lock


def release_folders() -> None:
    """Gives back what :func:`claim_folders` took.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     claim_folders(folder)
        ...     release_folders()
    """
    while _held:
        _held.popitem()[1].release()
