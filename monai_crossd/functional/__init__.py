# SPDX-License-Identifier: Apache-2.0
"""Functions of `monai_crossd.conv` under their former name."""

from ..conv import *  # noqa: F403
