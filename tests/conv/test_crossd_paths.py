# SPDX-License-Identifier: Apache-2.0
"""Ways of applying per-sample kernels: the rule, what overrides it, and what each of them must not break.

That each gives outputs and gradients of Algorithm 1 is in test_crossd_conv.py, all of which runs on every path.
"""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_crossd.conv import crossd_conv2d, crossd_conv3d
from monai_crossd.conv.geometry import output_positions, read_geometry
from monai_crossd.conv.rule import PATHS, choose_path, crossd_path, pick_path

every_path = pytest.mark.parametrize("path", PATHS)


def tensors(dims=2, batch=2, **options):
    shapes = (batch, 4, *[5] * dims), (6, 2, 3, 3, 3), (batch, 3)
    return [torch.randn(shape, dtype=torch.float64, **options) for shape in shapes]


@pytest.mark.parametrize(
    ("shape", "path"),
    [  # batch, out, in, taps, positions
        ((8, 64, 64, 9, 56 * 56), "grouped"),
        ((8, 64, 64, 9, 7 * 7), "grouped"),
        ((8, 128, 128, 9, 28 * 28), "grouped"),
        ((8, 256, 256, 9, 14 * 14), "per_sample"),
        ((8, 512, 256, 9, 7 * 7), "shared"),
        ((8, 512, 512, 9, 7 * 7), "shared"),
        ((8, 512, 1, 9, 7 * 7), "grouped"),
        ((2, 256, 256, 9, 14**3), "grouped"),
    ],
)
def test_rule_by_shape(shape, path):
    assert choose_path(*shape) == path
    batch, out, inner, taps, positions = shape
    x, weight = torch.empty(batch, inner, 1, 1), torch.empty(out, inner, 3, 3, 3)
    mixing = torch.empty(batch, taps, 27)
    assert pick_path(x, weight, mixing, positions) == path
    assert pick_path(x.to("meta"), weight, mixing, positions) == "grouped"


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_positions_are_those_of_the_output(stride, padding, dilation):
    y = torch.nn.Conv2d(1, 1, (3, 2), stride, padding, dilation)(torch.zeros(1, 1, 9, 8))
    geometry = read_geometry((1, 1), [3, 2], stride, padding, dilation)
    assert output_positions([9, 8], geometry) == y.numel()


def test_override_ends_with_its_block():
    x, weight, mixing = torch.empty(1, 1, 1, 1), torch.empty(1, 1, 3, 3, 3), torch.empty(1, 9, 27)
    with crossd_path("shared"):
        with crossd_path("per_sample"):
            assert pick_path(x, weight, mixing, 1) == "per_sample"
        with pytest.raises(RuntimeError, match="stop"), crossd_path("grouped"):
            raise RuntimeError("stop")
        assert pick_path(x, weight, mixing, 1) == "shared"
    assert pick_path(x, weight, mixing, 1) == "grouped"


def test_unknown_path_is_named():
    with pytest.raises(ValueError, match="path must be one of grouped, per_sample, shared, implicit, but is 'fast'"):
        crossd_path("fast").__enter__()


@every_path
@pytest.mark.parametrize("dims", [2, 3])
def test_second_derivatives(path, dims):
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    inputs = [t.requires_grad_() for t in tensors(dims)]
    with crossd_path(path):
        assert torch.autograd.gradgradcheck(
            lambda x, bank, shift: function(x, bank, shift, padding=1, groups=2), inputs, fast_mode=True
        )


@every_path
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_only_what_is_asked_for_gets_a_gradient(path, needed):
    inputs = [t.requires_grad_() for t in tensors()]
    expected = torch.autograd.grad(crossd_conv2d(*inputs, groups=2).square().sum(), inputs)
    fewer = [t.detach().requires_grad_(i in needed) for i, t in enumerate(inputs)]
    with crossd_path(path):
        crossd_conv2d(*fewer, groups=2).square().sum().backward()
    for i, (t, gradient) in enumerate(zip(fewer, expected, strict=True)):
        if i in needed:
            torch.testing.assert_close(t.grad, gradient, atol=1e-10, rtol=1e-10)
        else:
            assert t.grad is None


@every_path
def test_functional_transforms_and_forward_mode(path):
    x, bank, shift = tensors()
    tangent = torch.randn_like(shift)

    def function(shift):
        return crossd_conv2d(x, bank, shift, groups=2)

    expected = function(shift)
    derivative = (function(shift + 1e-6 * tangent) - function(shift - 1e-6 * tangent)) / 2e-6
    with crossd_path(path):
        y, along = torch.func.jvp(function, (shift,), (tangent,))
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(along, derivative, atol=1e-6, rtol=1e-6)
        with torch.autograd.forward_ad.dual_level():
            dual = function(torch.autograd.forward_ad.make_dual(shift, tangent))
            torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, along)
        both = torch.func.vmap(function)(torch.stack([shift, 2 * shift]))
        torch.testing.assert_close(both, torch.stack([expected, function(2 * shift)]))
        gradient = torch.func.grad(lambda s: (function(s) * expected).sum())(shift)
    torch.testing.assert_close((gradient * tangent).sum(), (along * expected).sum())


@every_path
@pytest.mark.parametrize("dims", [2, 3])
def test_metadata_of_a_meta_tensor_are_those_after_a_plain_convolution(path, dims):
    x, bank, shift = tensors(dims)
    image = MetaTensor(x, affine=2 * torch.eye(4), meta={"name": "case"})
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    conv = torch.conv2d if dims == 2 else torch.conv3d
    plain = conv(image, bank[:, :, 0] if dims == 2 else bank, None, 1, 0, 1, 2)
    with crossd_path(path):
        y = function(image, bank, shift, groups=2)
        expected = function(x, bank, shift, groups=2)
    assert type(y) is type(plain) is MetaTensor
    assert y.as_tensor().equal(expected)
    assert y.affine.equal(plain.affine)
    assert y.meta["name"] == plain.meta["name"]


@every_path
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(path, dtype):
    x, bank, shift = (t.float().requires_grad_() for t in tensors())
    expected = crossd_conv2d(x, bank, shift, groups=2)
    with crossd_path(path):
        with torch.autocast("cpu", dtype=dtype):
            y = crossd_conv2d(x, bank, shift, groups=2)
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), expected, atol=0.2, rtol=0.1)
        for got, gradient in zip(
            torch.autograd.grad(y.float().sum(), (x, bank, shift)),
            torch.autograd.grad(expected.sum(), (x, bank, shift)),
            strict=True,
        ):
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, gradient, atol=0.5, rtol=0.1)


@every_path
@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last_input(path, dims):
    x, bank, shift = tensors(dims)
    function = crossd_conv2d if dims == 2 else crossd_conv3d
    with crossd_path(path):
        last = x.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d).requires_grad_()
        y = function(last, bank, shift, padding=1, groups=2)
        torch.testing.assert_close(y, function(x, bank, shift, padding=1, groups=2))
        y.sum().backward()
    assert last.grad.shape == x.shape


def largest_kept(path, batch):
    """Elements of the largest tensor that is kept for the backward, apart from the bank and the input."""
    x, bank, shift = torch.randn(batch, 32, 6, 6), torch.randn(32, 32, 3, 3, 3), torch.randn(batch, 3)
    x, bank, shift = (t.requires_grad_() for t in (x, bank, shift))
    kept = []
    given = {x.data_ptr(), bank.data_ptr()}

    def pack(t):
        if t.data_ptr() not in given:
            kept.append(t.untyped_storage().nbytes() // t.element_size())
        return t

    with crossd_path(path), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        crossd_conv2d(x, bank, shift, padding=1)
    return max(kept)


def test_no_path_keeps_a_shifted_bank_and_per_sample_keeps_no_kernel():
    kernel = 32 * 32 * 9
    assert largest_kept("grouped", 6) == 6 * kernel
    assert largest_kept("per_sample", 6) < kernel
    assert largest_kept("implicit", 6) < kernel
    assert largest_kept("shared", 6) == 6 * 36 * 32 * 27  # patches, mixed
