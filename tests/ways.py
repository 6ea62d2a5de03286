# SPDX-License-Identifier: Apache-2.0
"""Every way into 3D in one word: the convolution, and how plain kernels are filled."""

from __future__ import annotations

from monai_crossd.conv.factory import CONVOLUTIONS
from monai_crossd.conv.from_2d import INFLATIONS

WAYS = {**{name: (name, "center") for name in CONVOLUTIONS}, **{inflate: ("conv", inflate) for inflate in INFLATIONS}}
