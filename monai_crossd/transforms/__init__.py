# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms of this package.

:func:`modality_transforms` is the whole way from a file of CT, MR or ultrasound to a network's input; its parts are
lists of MONAI dictionary transforms, so that a bundle joins them in one Compose. What a dictionary transform does to
one image is an array transform in the same module.
"""

from .augmentation import augmentation_transforms, noise_transforms
from .by_data_set import ByDataSet, RandByDataSet, augment_by_data_set, scale_by_data_set
from .grid import CheckGridd, KeySafeSpacingd
from .intensity import WINDOWS, intensity_transforms
from .joined import join_transforms
from .labels import ReadClassd, RoundLabelsd
from .modality import load_transforms, modality_transforms
from .mr import ClipPercentilesd, N4BiasFieldCorrectiond, RandNonuniformityd
from .pseudo3d import (
    FramesToVolume,
    FramesToVolumed,
    RandVariantsToVolume,
    RandVariantsToVolumed,
    RepeatToVolume,
    RepeatToVolumed,
    VariantsToVolume,
    VariantsToVolumed,
)
from .ultrasound import LogCompressd, RandDepthGaind, RandSpeckled
from .volume_to_slices import KeepSlices, KeepSlicesd, VolumeToSlices, VolumeToSlicesd
from .voxels import EnsureChannelsd, ReplaceNonFinited

__all__ = [
    "WINDOWS",
    "ByDataSet",
    "CheckGridd",
    "ClipPercentilesd",
    "EnsureChannelsd",
    "FramesToVolume",
    "FramesToVolumed",
    "KeepSlices",
    "KeepSlicesd",
    "KeySafeSpacingd",
    "LogCompressd",
    "N4BiasFieldCorrectiond",
    "RandByDataSet",
    "RandDepthGaind",
    "RandNonuniformityd",
    "RandSpeckled",
    "RandVariantsToVolume",
    "RandVariantsToVolumed",
    "ReadClassd",
    "RepeatToVolume",
    "RepeatToVolumed",
    "ReplaceNonFinited",
    "RoundLabelsd",
    "VariantsToVolume",
    "VariantsToVolumed",
    "VolumeToSlices",
    "VolumeToSlicesd",
    "augment_by_data_set",
    "augmentation_transforms",
    "intensity_transforms",
    "join_transforms",
    "load_transforms",
    "modality_transforms",
    "noise_transforms",
    "scale_by_data_set",
]
