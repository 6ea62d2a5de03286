# SPDX-License-Identifier: Apache-2.0
"""The data sets of the paper's Tables IV and V: what they are, how they are read, and where they are to be had.

Numbers and modalities are those of the tables. Where the data that can be had today do not show them, or the paper does
not say what was done, `note` says so.

References:
    M. C. Yavuz and Y. Yang, Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting Operation,
    2024, Tables IV and V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["PAPER_DATASETS", "PaperDataset"]

_OURS, _MONAI = "monai_crossd.transforms", "monai.transforms"
_PICTURES = "one folder per class with its images (PNG, JPEG)"
_VOLUMES = "one folder per class with its volumes (NIfTI, NRRD, MetaImage or DICOM series)"

Config = dict[str, Any]  # one transform or list of transforms, as MONAI's ConfigParser takes it


@dataclass(frozen=True)
class PaperDataset:
    """One data set of Table IV or V.

    Attributes:
        name: by which it is found on disk and in the tables here.
        title: in the paper.
        table: 4 or 5.
        modality: in the paper.
        samples: number of images or volumes.
        channels: of an image.
        size: of an image in pixels, or of a volume in voxels.
        pixel_range: lowest and highest value.
        classes: their number.
        label_type: "multi-class" or "binary".
        intensity: configs of the transforms that bring intensities to the range a network reads.
        augmentation: configs of the random transforms in training.
        form: in what form :func:`~monai_crossd.study.paper.paper_dataset` finds the images.
        homepage: where it is to be had; empty where no address is certain.
        citation: of the data.
        medmnist: name of the set in MedMNIST; empty where it is none.
        note: what else one has to know.
    """

    name: str
    title: str
    table: int
    modality: str
    samples: int
    channels: int
    size: tuple[int, ...]
    pixel_range: tuple[int, int]
    classes: int
    label_type: str
    intensity: tuple[Config, ...]
    augmentation: tuple[Config, ...]
    form: str
    homepage: str
    citation: str
    medmnist: str = ""
    note: str = ""

    @property
    def spatial_dims(self) -> int:
        """2, or 3 for volumes."""
        return len(self.size)

    @property
    def load(self) -> Config:
        """Config of :func:`~monai_crossd.transforms.load_transforms` to the paper's channels and size."""
        return {
            "_target_": f"{_OURS}.load_transforms",
            "spatial_dims": self.spatial_dims,
            "channels": self.channels,
            "spatial_size": list(self.size),
        }


def _intensity(modality: str, **options: Any) -> tuple[Config, ...]:
    return ({"_target_": f"{_OURS}.intensity_transforms", "modality": modality, **options},)


def _augmentation(modality: str, dims: int, **options: Any) -> tuple[Config, ...]:
    return ({"_target_": f"{_OURS}.augmentation_transforms", "modality": modality, "spatial_dims": dims, **options},)


def _any_side_up(axes: Sequence[int]) -> tuple[Config, ...]:
    """For what has no up and down: flips, quarter turns and small affine maps."""
    return (
        *({"_target_": f"{_MONAI}.RandFlipd", "keys": "image", "prob": 0.5, "spatial_axis": axis} for axis in axes),
        {"_target_": f"{_MONAI}.RandRotate90d", "keys": "image", "prob": 0.5, "max_k": 3, "spatial_axes": [0, 1]},
        {
            "_target_": f"{_MONAI}.RandAffined",
            "keys": "image",
            "prob": 0.7,
            "rotate_range": [0.2] * (1 if len(axes) == 2 else 3),
            "scale_range": [0.15] * len(axes),
            "padding_mode": "border",
        },
    )


# 8 bits to -1 ... 1, the same map for every image: CT already windowed, X-ray, microscopes, photographs
_BYTES: tuple[Config, ...] = (
    {
        "_target_": f"{_MONAI}.ScaleIntensityRanged",
        "keys": "image",
        "a_min": 0,
        "a_max": 255,
        "b_min": -1,
        "b_max": 1,
        "clip": True,
    },
)
_HOUNSFIELD = _intensity("ct", window="lung")
_YANG = "J. Yang et al., MedMNIST v2, Scientific Data 10, 41, 2023; "
_MEDMNIST = "https://medmnist.com"

_SETS_2D = (
    PaperDataset(
        *("blood", "Blood", 4, "Microscope", 17092, 3, (224, 224), (0, 255), 8, "multi-class"),
        *(_BYTES, _any_side_up((0, 1)), _PICTURES, _MEDMNIST),
        citation=_YANG + "A. Acevedo et al., A dataset of microscopic peripheral blood cell images for development of "
        "automatic recognition systems, Data in Brief 30, 105474, 2020.",
        medmnist="bloodmnist",
    ),
    PaperDataset(
        *("brain", "Brain", 4, "MRI", 1600, 3, (224, 224), (0, 255), 23, "multi-class"),
        *(_intensity("mr"), _augmentation("mr", 2), _PICTURES, ""),
        citation="M. C. Yavuz and Y. Yang, Policy gradient-driven noise mask, ICPR, 2024 (Springer 2025, pp. 414-431).",
        note="The paper cites only this article for the images, and no address of them is certain.",
    ),
    PaperDataset(
        *("brain_tumor", "Brain Tumor", 4, "MRI", 3064, 3, (224, 224), (0, 255), 3, "multi-class"),
        *(_intensity("mr"), _augmentation("mr", 2)),
        _PICTURES + ", or dataset.json with a patient per item (cjdata.PID)",
        "https://figshare.com/articles/dataset/brain_tumor_dataset/1512427",
        citation="J. Cheng et al., Enhanced performance of brain tumor classification via tumor region augmentation "
        "and partition, PLoS ONE 10, e0140381, 2015.",
        note="Published as .mat files: write cjdata.image of each as PNG into the folder of its cjdata.label. "
        "3064 slices of 233 patients: split by patient.",
    ),
    PaperDataset(
        *("breast", "Breast", 4, "US", 780, 1, (224, 224), (0, 255), 2, "binary"),
        *(_intensity("us"), _augmentation("us", 2), _PICTURES, _MEDMNIST),
        citation=_YANG + "W. Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28, 104863, 2020.",
        medmnist="breastmnist",
    ),
    PaperDataset(
        *("breast_cancer", "Breast Cancer", 4, "US", 1875, 3, (224, 224), (0, 255), 2, "binary"),
        *(_intensity("us"), _augmentation("us", 2)),
        _PICTURES + ", or dataset.json with a patient per item (Case)",
        "https://zenodo.org/records/8231412",
        citation="W. Gómez-Flores et al., BUS-BRA: a breast ultrasound dataset for assessing computer-aided diagnosis "
        "systems, Medical Physics 51, 3110-3123, 2024.",
        note="1875 images of 1064 patients: split by patient.",
    ),
    PaperDataset(
        *("derma", "Derma", 4, "Dermatology", 10015, 3, (224, 224), (0, 255), 7, "multi-class"),
        *(_BYTES, _any_side_up((0, 1)), _PICTURES, _MEDMNIST),
        citation=_YANG + "P. Tschandl et al., The HAM10000 dataset, a large collection of multi-source dermatoscopic "
        "images of common pigmented skin lesions, Scientific Data 5, 180161, 2018.",
        medmnist="dermamnist",
    ),
    PaperDataset(
        *("organc", "OrganC", 4, "CT", 23582, 1, (224, 224), (0, 255), 11, "multi-class"),
        *(_BYTES, _augmentation("ct", 2), _PICTURES, _MEDMNIST),
        citation=_YANG + "X. Xu et al., Efficient multiple organ localization in CT image using 3D region proposal "
        "network, IEEE TMI 38, 1885-1898, 2019.",
        medmnist="organcmnist",
        note="MedMNIST's file has 23583 images, the paper counts 23582.",
    ),
    PaperDataset(
        *("organs", "OrganS", 4, "CT", 25211, 1, (224, 224), (0, 255), 11, "multi-class"),
        *(_BYTES, _augmentation("ct", 2), _PICTURES, _MEDMNIST),
        citation=_YANG + "P. Bilic et al., The liver tumor segmentation benchmark (LiTS), Medical Image Analysis 84, "
        "102680, 2023.",
        medmnist="organsmnist",
    ),
    PaperDataset(
        *("pneumonia", "Pneumonia", 4, "XR", 5856, 1, (224, 224), (0, 255), 2, "binary"),
        *(_BYTES, _augmentation("ct", 2), _PICTURES, _MEDMNIST),
        citation=_YANG + "D. S. Kermany et al., Identifying medical diagnoses and treatable diseases by image-based "
        "deep learning, Cell 172, 1122-1131, 2018.",
        medmnist="pneumoniamnist",
        note="X-ray shows attenuation as CT does: it is augmented alike, by a factor, an offset and noise.",
    ),
)

_SETS_3D = (
    PaperDataset(
        *("brats21", "BraTS21", 5, "MRI", 585, 3, (96, 96, 96), (0, 22016), 2, "binary"),
        *(_intensity("mr"), _augmentation("mr", 3)),
        'dataset.json, "image" of each item a list of three files, its sequences',
        "https://www.kaggle.com/competitions/rsna-miccai-brain-tumor-radiogenomic-classification",
        citation="U. Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 benchmark on brain tumor segmentation and "
        "radiogenomic classification, arXiv 2107.02314, 2021.",
        note="Which set it is, is inferred: 585 labelled cases are those of the challenge's radiogenomic task (MGMT "
        "methylation, yes or no). The paper says presence of tumours, which all of BraTS have, and cites the "
        "meningioma challenge of 2023 (arXiv 2305.07642). It does not say which three of the four sequences it took.",
    ),
    PaperDataset(
        *("busv", "BUSV", 5, "US", 186, 1, (96, 96, 96), (0, 255), 2, "binary"),
        *(_intensity("us"), _augmentation("us", 3)),
        _VOLUMES + ", the frames of a video along the last axis",
        "https://github.com/jhl-Det/CVA-Net",
        citation="Z. Lin et al., A new dataset and a baseline model for breast lesion detection in ultrasound videos, "
        "MICCAI, 614-623, 2022.",
        note="188 videos are published, the paper counts 186.",
    ),
    PaperDataset(
        *("fracture", "Fracture", 5, "CT", 1370, 1, (64, 64, 64), (0, 255), 3, "multi-class"),
        *(_BYTES, _augmentation("ct", 3, depth_axis=None), _VOLUMES, _MEDMNIST),
        citation=_YANG + "L. Jin et al., Deep-learning-assisted detection and segmentation of rib fractures from CT "
        "scans: development and validation of FracNet, EBioMedicine 62, 103106, 2020.",
        medmnist="fracturemnist3d",
    ),
    PaperDataset(
        *("lung_adenocarcinoma", "Lung Adenocarcinoma", 5, "CT", 1050, 1, (128, 128, 128), (-1450, 3879), 3),
        *("multi-class", _HOUNSFIELD, _augmentation("ct", 3), _VOLUMES + ", in HU"),
        "https://data.mendeley.com/datasets/r3tbsgtpzg/2",
        citation="Y. Feng, CT volume samples for lung adenocarcinoma classification, Mendeley Data, "
        "doi 10.17632/r3tbsgtpzg.2, 2020.",
    ),
    PaperDataset(
        *("mosmed", "Mosmed", 5, "CT", 200, 1, (128, 128, 64), (0, 1), 2, "binary"),
        *(_intensity("ct", window=[-1000, 400]), _augmentation("ct", 3), _VOLUMES + ", in HU"),
        "https://github.com/hasibzunair/3D-image-classification-tutorial/releases/tag/v0.2",
        citation="S. P. Morozov et al., MosMedData: chest CT scans with COVID-19 related findings dataset, "
        "arXiv 2005.06465, 2020.",
        note="Which part it is, is inferred: 200 volumes of 128 x 128 x 64 in 0 ... 1 are those of Keras' 3D image "
        "classification example (CT-0.zip and CT-23.zip, clipped to -1000 ... 400 HU). The files are in HU, and so is "
        "the window here. All 1110 volumes: https://mosmed.ai/datasets/covid19_1110.",
    ),
    PaperDataset(
        *("synapse", "Synapse", 5, "Microscope", 1759, 1, (64, 64, 64), (0, 255), 2, "binary"),
        *(_BYTES, _any_side_up((0, 1, 2)), _VOLUMES, _MEDMNIST),
        citation="J. Yang et al., MedMNIST v2, Scientific Data 10, 41, 2023.",
        medmnist="synapsemnist3d",
        note="Table V cites IntrA for Synapse; it belongs to Vessel, as in Table II.",
    ),
    PaperDataset(
        *("vessel", "Vessel", 5, "MRA", 1908, 1, (64, 64, 64), (0, 255), 2, "binary"),
        *(_BYTES, _any_side_up((0, 1, 2)), _VOLUMES, _MEDMNIST),
        citation=_YANG + "X. Yang et al., IntrA: 3D intracranial aneurysm dataset for deep learning, CVPR, 2656-2666, "
        "2020.",
        medmnist="vesselmnist3d",
        note="Voxels of vessel surfaces that were segmented in MRA, not MR intensities: a z-score over what is not 0 "
        "would erase them.",
    ),
    PaperDataset(
        *("ixi", "IXI (Gender)", 5, "MRI", 561, 2, (160, 192, 224), (0, 255), 2, "binary"),
        *(_intensity("mr"), _augmentation("mr", 3)),
        'dataset.json, "image" of each item a list of two files, T1 and T2, on the same grid',
        "https://brain-development.org/ixi-dataset/",
        citation="IXI Dataset, https://brain-development.org/ixi-dataset/.",
        note="The paper does not say what its two channels are; T1 and T2 are a choice made here.",
    ),
)

PAPER_DATASETS = {entry.name: entry for entry in (*_SETS_2D, *_SETS_3D)}
