# SPDX-License-Identifier: Apache-2.0
"""Data to try the software with: one real patient from a Python package, and synthetic subjects (phantoms).

Nothing here is needed for data of your own; :func:`~monai_crossd.data.load_datalist` writes these sets when it is given
one of their words, such as ``"demo"``.
"""

from .embedded import EMBEDDED, prepare_demo, prepare_embedded
from .patient import DEMO_SLICES
from .phantoms import make_phantom, prepare_phantoms

__all__ = ["DEMO_SLICES", "EMBEDDED", "make_phantom", "prepare_demo", "prepare_embedded", "prepare_phantoms"]
