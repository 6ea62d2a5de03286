# SPDX-License-Identifier: Apache-2.0
"""Former place of :func:`replacing`, which other parts of the package need too."""

from .._replacing import replacing

__all__ = ["replacing"]
