# SPDX-License-Identifier: Apache-2.0
"""Synthetic subjects for CT, MR and ultrasound: anatomy, what each modality makes of it, and the files."""

from .dataset import prepare_phantoms
from .phantom import CLASSES, MODALITIES, Phantom, make_phantom

__all__ = ["CLASSES", "MODALITIES", "Phantom", "make_phantom", "prepare_phantoms"]
