# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves the device of its image: on the CPU seen by the calls that would do it, on CUDA by the device."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, RandBiasField, Resized
from torch.overrides import TorchFunctionMode

from monai_crossd.transforms import (
    EnsureChannelsd,
    KeySafeSpacingd,
    ReplaceNonFinited,
    augmentation_transforms,
    intensity_transforms,
)
from monai_crossd.transforms.mr import N4BiasFieldCorrection

OPTIONS = [
    ("ct", {}),
    ("mr", {}),
    ("us", {}),
    ("us", {"log_compressed": False}),
]


class Downloads(TorchFunctionMode):
    """Counts the calls that bring a tensor of at least `voxels` to numpy or to the CPU."""

    def __init__(self, voxels: int) -> None:
        super().__init__()
        self.voxels = voxels
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("numpy", "cpu", "__array__", "tolist"):
            self.count += args[0].numel() >= self.voxels
        return function(*args, **(kwargs or {}))


def pipeline(modality: str, spatial_dims: int, options: dict) -> Compose:
    """All that follows the loading."""
    compose = Compose(
        [
            ReplaceNonFinited("image"),
            EnsureChannelsd("image", 1),
            *([Orientationd("image", axcodes="RAS", labels=None)] if spatial_dims == 3 else []),
            KeySafeSpacingd("image", pixdim=(1.5,) * spatial_dims),
            Resized("image", spatial_size=(24,) * spatial_dims, mode="area"),
            *intensity_transforms(modality, "image", **options),
            *augmentation_transforms(modality, spatial_dims),
        ]
    )
    for transform in compose.transforms:
        if hasattr(transform, "prob"):
            transform.prob = 1.0
    return compose


def image(spatial_dims: int, device: str = "cpu") -> MetaTensor:
    return MetaTensor(torch.rand(3, *(32, 30, 28)[:spatial_dims], device=device) * 200, affine=torch.eye(4))


@pytest.mark.parametrize(("modality", "options"), OPTIONS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_no_copy_to_numpy(modality, options, spatial_dims):
    compose, data = pipeline(modality, spatial_dims, options), {"image": image(spatial_dims)}
    with Downloads(200) as downloads:
        result = compose(data)["image"]
    assert isinstance(result, MetaTensor)
    assert downloads.count == 0


@pytest.mark.parametrize("transform", [RandBiasField(prob=1), N4BiasFieldCorrection()])
def test_copies_are_seen(transform):
    """MONAI's bias field goes through numpy, and N4 says that it does."""
    with Downloads(200) as downloads:
        transform(image(2)[:1])
    assert downloads.count > 0


@pytest.mark.gpu
@pytest.mark.parametrize(("modality", "options"), [*OPTIONS, ("mr", {"bias_correction": True})])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_stays_on_cuda(modality, options, spatial_dims):
    compose = pipeline(modality, spatial_dims, options)
    for transform in compose.transforms:
        step = transform({"image": image(spatial_dims, "cuda")})["image"]
        assert step.device.type == "cuda", transform
    result = compose({"image": image(spatial_dims, "cuda")})["image"]
    assert result.device.type == "cuda"
    assert result.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize(("modality", "options"), [*OPTIONS, ("mr", {"bias_correction": True})])
def test_cuda_equals_cpu(modality, options):
    data = image(3)[:1]
    compose = Compose(intensity_transforms(modality, "image", **options))
    expected = compose({"image": data.clone()})["image"]
    result = compose({"image": data.clone().cuda()})["image"]
    torch.testing.assert_close(result.cpu().as_tensor(), expected.as_tensor(), atol=1e-4, rtol=1e-4)
