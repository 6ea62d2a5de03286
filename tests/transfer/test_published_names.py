# SPDX-License-Identifier: Apache-2.0
"""Files in the formats that others publish; names and shapes are written out here, not taken from our tables."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import resnet18, resnet50

from monai_crossd import TransferError, use_conv
from monai_crossd.networks import build_resnet
from monai_crossd.transfer import load_2d

LAYERS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def resnet_shapes(depth: int, channels: int, *, dims: int = 2, stem: str = "conv1", norm: str = "bn1", stage="layer{}"):
    """Names and shapes of torchvision's ResNet, built from its specification."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name, out, inner, size):
        shapes[f"{name}.weight"] = (out, inner) + (size,) * dims

    def batch_norm(name, width):
        for key in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{key}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    conv(stem, 64, channels, 7)
    batch_norm(norm, 64)
    width_in, expansion = 64, 1 if depth == 18 else 4
    for index, blocks in enumerate(LAYERS[depth]):
        width = 64 * 2**index
        for block in range(blocks):
            at = f"{stage.format(index + 1)}.{block}"
            sizes = [(width, width_in, 3), (width, width, 3)]
            if depth == 50:
                sizes = [(width, width_in, 1), (width, width, 3), (width * 4, width, 1)]
            for number, (out, inner, size) in enumerate(sizes, start=1):
                conv(f"{at}.conv{number}", out, inner, size)
                batch_norm(f"{at}.bn{number}", out)
            if block == 0 and (index > 0 or depth == 50):
                conv(f"{at}.downsample.0", width * expansion, width_in, 1)
                batch_norm(f"{at}.downsample.1", width * expansion)
            width_in = width * expansion
    return shapes


def random_state(shapes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.zeros((), dtype=torch.long) if shape == () else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }


def save(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize(("depth", "channels"), [(18, 1), (18, 2), (18, 3), (50, 1)])
def test_torchvision_and_timm(tmp_path, depth, channels):
    state = random_state(resnet_shapes(depth, 3)) | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}
    net = build_resnet(f"resnet{depth}", "conv", n_input_channels=channels, num_classes=5)
    report = load_2d(net, save(tmp_path, state), exclude=["fc.*"])
    assert sorted(report.initial) == sorted(report.skipped) == ["fc.bias", "fc.weight"]
    torch.testing.assert_close(net.layer3[1].conv2.weight, state["layer3.1.conv2.weight"])
    image, stem = torch.randn(2, 1, 16, 16).double(), state["conv1.weight"].double()
    got = torch.nn.functional.conv2d(image.expand(-1, channels, -1, -1), net.conv1.weight.double())
    expected = torch.nn.functional.conv2d(image.expand(-1, 3, -1, -1), stem)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)
    assert ("input channels" in report.transferred["conv1.weight"]) == (channels != 3)


def test_radimagenet(tmp_path):
    """`nn.Sequential(*list(resnet50.children())[:9])` under the name backbone."""
    children = {"layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    state = {}
    for name, value in random_state(resnet_shapes(50, 3, stem="0", norm="1")).items():
        first, _, rest = name.partition(".")
        state[f"backbone.{children.get(first, first)}.{rest}"] = value
    net = resnet50(spatial_dims=2, n_input_channels=3, num_classes=4, bias_downsample=False, feed_forward=False)
    report = load_2d(net, save(tmp_path, state))
    assert report.share == 1.0
    assert not report.skipped
    torch.testing.assert_close(net.bn1.running_var, state["backbone.1.running_var"])
    torch.testing.assert_close(net.layer4[2].conv3.weight, state["backbone.7.2.conv3.weight"])
    torch.testing.assert_close(net.layer2[0].downsample[0].weight, state["backbone.5.0.downsample.0.weight"])


def test_medicalnet_is_3d(tmp_path):
    state = {f"module.{k}": v for k, v in random_state(resnet_shapes(50, 1, dims=3)).items()}
    path = save(tmp_path, {"state_dict": state})
    net = resnet50(spatial_dims=3, n_input_channels=1, num_classes=2, bias_downsample=False, feed_forward=False)
    assert load_2d(net, path).share == 1.0
    torch.testing.assert_close(net.layer1[0].conv2.weight, state["module.layer1.0.conv2.weight"])
    with pytest.raises(ValueError, match="no meaning here"):
        load_2d(net, path, "i3d")
    flat = resnet50(spatial_dims=2, n_input_channels=1, num_classes=2, bias_downsample=False, feed_forward=False)
    before = {k: v.clone() for k, v in flat.state_dict().items()}
    with pytest.raises(TransferError, match="does not fit"):
        load_2d(flat, path)
    torch.testing.assert_close(dict(flat.state_dict()), before)


def crossd_state(depth=18, channels=3):
    """The published layer: bank, bias and predictor in place of each convolution's weight."""
    state = {}
    for name, value in random_state(resnet_shapes(depth, channels)).items():
        if value.dim() != 4:
            state[name] = value
            continue
        at, (out, inner, size, _) = name.removesuffix("weight"), value.shape
        state[f"{at}weights_3d"] = torch.rand(out, inner, size, size, size)
        state |= {
            f"{at}rotation_params.0.weight": torch.rand(16, inner, 1, 1),
            f"{at}rotation_params.0.bias": torch.rand(16),
            f"{at}rotation_params.1.weight": torch.rand(16),
            f"{at}rotation_params.1.bias": torch.rand(16),
            f"{at}rotation_params.1.running_mean": torch.rand(16),
            f"{at}rotation_params.1.running_var": torch.rand(16) + 0.5,
            f"{at}rotation_params.1.num_batches_tracked": torch.zeros((), dtype=torch.long),
            f"{at}rotation_params.3.weight": torch.rand(4, 16, 1, 1),
            f"{at}rotation_params.3.bias": torch.rand(4),
        }
    return state


@pytest.mark.parametrize(
    ("dims", "conv", "method"), [(2, "crossd", "center"), (3, "crossd", "center"), (3, "conv", "bank")]
)
def test_published_crossd(tmp_path, dims, conv, method):
    state = crossd_state()
    net = build_resnet("resnet18", conv, dims, n_input_channels=3, feed_forward=False)
    report = load_2d(net, save(tmp_path, {"model": state}), method)
    bank = state["layer2.1.conv1.weights_3d"]
    expected = bank.permute(0, 1, 3, 4, 2) if method == "bank" else bank
    torch.testing.assert_close(net.layer2[1].conv1.weight, expected)
    if conv == "crossd":
        predictor = net.layer2[1].conv1.predictor
        torch.testing.assert_close(predictor[3].bias, state["layer2.1.conv1.rotation_params.3.bias"])
        assert all(key.endswith("running_shift") for key in report.initial)
    assert not report.conflicts


def test_plain_2d_into_3d_and_into_crossd(tmp_path):
    path, state = None, random_state(resnet_shapes(18, 3))
    path = save(tmp_path, state)
    net = build_resnet("resnet18", "conv", 3, n_input_channels=1, feed_forward=False)
    report = load_2d(net, path, "i3d", depth_axis=0)
    assert report.share == 1.0
    torch.testing.assert_close(net.conv1.weight.sum(2), state["conv1.weight"].sum(1, keepdim=True))
    crossd = build_resnet("resnet18", "crossd", 2, n_input_channels=3, feed_forward=False)
    load_2d(crossd, path)
    rolled = crossd.layer1[0].conv1.weight.roll((1, 1), (3, 4))[:, :, 0]
    torch.testing.assert_close(rolled, state["layer1.0.conv1.weight"])


def other_shape(state):
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)


def left_out(state):
    del state["layer4.1.bn2.running_var"]


@pytest.mark.parametrize("damage", [other_shape, left_out])
def test_partial_fit_is_refused_or_reported(tmp_path, damage):
    state = random_state(resnet_shapes(18, 1))
    damage(state)
    path = save(tmp_path, state)
    net = build_resnet("resnet18", "conv", feed_forward=False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(TransferError, match="nothing was loaded"):
        load_2d(net, path)
    torch.testing.assert_close(dict(net.state_dict()), before)
    report = load_2d(net, path, strict=False)
    assert len(report.conflicts) + len(report.initial) == 1
    torch.testing.assert_close(net.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])


def test_unknown_format_names_the_known_ones(tmp_path):
    path = save(tmp_path, {"features.0.weight": torch.zeros(3)})
    with use_conv("acs"):
        net = resnet18(spatial_dims=3, n_input_channels=1)
    with pytest.raises(ValueError, match=r"(?s)features\.0\.weight.*RadImageNet"):
        load_2d(net, path)
