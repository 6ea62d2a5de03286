# SPDX-License-Identifier: Apache-2.0
"""What a user of a bundle sees: our own messages last, and nothing that is not about the run."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from monai.config import PathLike

from .options import check_options

__all__ = ["begin_run", "unwrapped"]

# what MONAI raises around a cause, to say which of a config's expressions or transforms it was
_AROUND = ("Failed to evaluate ", "Failed to instantiate ", "applying transform ")


def unwrapped(error: BaseException) -> BaseException:
    """The error without those that MONAI puts around it.

    Example:
        >>> try:
        ...     try:
        ...         raise ValueError("conv is 'crosd'")
        ...     except ValueError as cause:
        ...         raise RuntimeError("Failed to evaluate ConfigExpression: ...") from cause
        ... except RuntimeError as error:
        ...     unwrapped(error)
        ValueError("conv is 'crosd'")
    """
    while error.__cause__ is not None and str(error).startswith(_AROUND):
        error = error.__cause__
    return error


def _stopped(last: Path) -> str:
    if last.is_file():
        return f"Stopped. The same command with --resume True goes on from {last}."
    return f"Stopped before {last} was written: the same command begins anew."


def _hook(last: Path | None) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stdout.flush()
        cause = unwrapped(error)
        if isinstance(cause, KeyboardInterrupt):
            print(_stopped(last) if last else "Stopped.", file=sys.stderr)
        else:
            traceback.print_exception(type(cause), cause, cause.__traceback__)

    return show


def begin_run(output_dir: PathLike | None = None) -> None:
    """Checks the options of a bundle's run (:func:`check_options`), and sees to its messages.

    Call it first in a bundle's ``initialize``. In a process of ``python -m monai.bundle``, and in no other, an error
    that ends the run is then shown without those that MONAI puts around it, so that its message comes last, and
    Ctrl-C says how to go on.

    Args:
        output_dir: of a training, where :class:`ResumeHandler` keeps ``last.pt``.

    Raises:
        ValueError: When an option is unknown, or has a value of another kind.

    Example:
        .. code-block:: yaml

            initialize:
            - "$monai_crossd.training.begin_run(@output_dir)"
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.name == "monai.bundle.__main__":
        sys.excepthook = _hook(Path(output_dir) / "last.pt" if output_dir else None)
    # MONAI makes every reader that it knows when it makes one; none of our configs chooses this one
    warnings.filterwarnings("ignore", "NvImgCodecPydicomReader: nvImageCodec decoder plugin did not register")
    check_options()
