# SPDX-License-Identifier: Apache-2.0
"""MONAI transforms of this package.

:func:`modality_transforms` is the whole way from a file of CT, MR or ultrasound to a network's input; its parts are
lists of MONAI dictionary transforms, so that a bundle joins them in one Compose.
"""

from .augmentation import augmentation_transforms, noise_transforms
from .bias_field import N4BiasFieldCorrection, N4BiasFieldCorrectiond, RandNonuniformity, RandNonuniformityd
from .by_data_set import ByDataSet, RandByDataSet, augment_by_data_set, modality_of, scale_by_data_set
from .channels import EnsureChannels, EnsureChannelsd
from .class_label import ReadClassd
from .depth_gain import RandDepthGain, RandDepthGaind
from .finite import ReplaceNonFinite, ReplaceNonFinited
from .grid import CheckGridd
from .intensity import WINDOWS, ct_intensity, intensity_transforms, mr_intensity, us_intensity, xray_intensity
from .joined import join_transforms
from .label_map import RoundLabels, RoundLabelsd
from .log_compression import LogCompress, LogCompressd
from .modality import load_transforms, modality_transforms
from .percentiles import ClipPercentiles, ClipPercentilesd
from .pseudo3d import FramesToVolume, FramesToVolumed, RepeatToVolume, RepeatToVolumed
from .spatial import KeySafeSpacingd
from .speckle import RandSpeckle, RandSpeckled
from .variants_to_volume import RandVariantsToVolume, RandVariantsToVolumed, VariantsToVolume, VariantsToVolumed
from .volume_to_slices import VolumeToSlices, VolumeToSlicesd, slice_fractions

__all__ = [
    "WINDOWS",
    "ByDataSet",
    "CheckGridd",
    "ClipPercentiles",
    "ClipPercentilesd",
    "EnsureChannels",
    "EnsureChannelsd",
    "FramesToVolume",
    "FramesToVolumed",
    "KeySafeSpacingd",
    "LogCompress",
    "LogCompressd",
    "N4BiasFieldCorrection",
    "N4BiasFieldCorrectiond",
    "RandByDataSet",
    "RandDepthGain",
    "RandDepthGaind",
    "RandNonuniformity",
    "RandNonuniformityd",
    "RandSpeckle",
    "RandSpeckled",
    "RandVariantsToVolume",
    "RandVariantsToVolumed",
    "ReadClassd",
    "RepeatToVolume",
    "RepeatToVolumed",
    "ReplaceNonFinite",
    "ReplaceNonFinited",
    "RoundLabels",
    "RoundLabelsd",
    "VariantsToVolume",
    "VariantsToVolumed",
    "VolumeToSlices",
    "VolumeToSlicesd",
    "augment_by_data_set",
    "augmentation_transforms",
    "ct_intensity",
    "intensity_transforms",
    "join_transforms",
    "load_transforms",
    "modality_of",
    "modality_transforms",
    "mr_intensity",
    "noise_transforms",
    "scale_by_data_set",
    "slice_fractions",
    "us_intensity",
    "xray_intensity",
]
