# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_crossd.transforms import EnsureChannels, EnsureChannelsd


def test_luminance_is_that_of_pil():
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colours, "RGB").convert("L"))
    result = EnsureChannels(1)(torch.from_numpy(colours).permute(2, 0, 1))
    assert result.dtype == torch.float32
    assert np.abs(result[0].numpy() - grey).max() <= 1  # PIL rounds to whole numbers


@pytest.mark.parametrize("value", [0, 7, 255])
def test_grey_as_colour_keeps_its_value(value):
    result = EnsureChannels(1)(torch.full((3, 4, 5, 2), value, dtype=torch.uint8))
    assert result.shape == (1, 4, 5, 2)
    torch.testing.assert_close(result.as_tensor(), torch.full((1, 4, 5, 2), float(value)))


@pytest.mark.parametrize("shape", [(1, 4, 5), (1, 4, 5, 6)])
def test_repeat(shape):
    image = MetaTensor(torch.rand(shape), affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))
    result = EnsureChannels(3)(image)
    assert result.shape == (3, *shape[1:])
    assert all(torch.equal(channel, image[0]) for channel in result)
    assert torch.equal(result.affine, image.affine)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_right_number_stays(channels):
    image = torch.rand(channels, 3, 3, dtype=torch.float64)
    assert torch.equal(EnsureChannels(channels)(image), image)


@pytest.mark.parametrize(("found", "wanted"), [(2, 1), (4, 1), (4, 3), (3, 2), (1, 2), (1, 4), (2, 3)])
def test_no_way_to_that_number(found, wanted):
    with pytest.raises(ValueError, match=rf"The image has {found} channels .* Set channels to {found}"):
        EnsureChannelsd("image", wanted)({"image": torch.rand(found, 3, 3)})


def test_wrong_number():
    with pytest.raises(ValueError, match="channels is 0; expected at least 1"):
        EnsureChannels(0)


def test_the_file_is_named():
    image = MetaTensor(torch.rand(4, 3, 3), meta={"filename_or_obj": "a.png"})
    with pytest.raises(
        ValueError, match=r"a\.png has 4 channels \(shape \(4, 3, 3\)\).*Set channels to 4 \(in_channels"
    ):
        EnsureChannels(3)(image)
