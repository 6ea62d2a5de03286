# SPDX-License-Identifier: Apache-2.0
"""Who is running this: read off the stack, where MONAI says it in no other way.

MONAI hands the expressions of a config, and the networks that it builds, neither the config (``@`` alone, its id of the
whole, is a circle within it), nor what was given on the command line, nor the verb. A workflow class of our own would
know; but ``python -m monai.bundle run`` takes MONAI's unless every command names another, and verbs, federated clients
and MONAI Label make MONAI's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType

__all__ = ["callers"]


def callers() -> Iterator[FrameType]:
    """Frames of the running functions, from the one that asks outwards.

    >>> next(callers()).f_code.co_name
    '<module>'
    """
    frame = inspect.currentframe()
    while frame is not None and (frame := frame.f_back) is not None:
        yield frame
