# SPDX-License-Identifier: Apache-2.0
"""What users put on layers, and share between them: kept when the layers are replaced, or refused by path."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from monai_crossd import CrossDConv2d, to_3d, to_crossd, to_plain

CONVERT = {
    "to_crossd": lambda net: to_crossd(net, init="preserve"),
    "center": lambda net: to_3d(net),
    "acs": lambda net: to_3d(net, "acs"),
    "crossd": lambda net: to_3d(net, "crossd"),
    "planar": lambda net: to_3d(net, "planar"),
}
convert = pytest.mark.parametrize("how", CONVERT)
exact = pytest.mark.parametrize("how", [name for name in CONVERT if name != "acs"])  # gives each slice its 2D output


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))


def image_and_run(how):
    """An image, and a function that runs a converted network on it: on a volume of it, whose middle slice is taken."""
    image = torch.randn(2, 1, 6, 7)
    if how == "to_crossd":
        return image, lambda made: made(image)
    return image, lambda made: made(image.unsqueeze(-1).repeat(1, 1, 1, 1, 5))[..., 2]


HOOKS = {
    "forward": lambda layer: layer.register_forward_hook(lambda module, args, out: 10 * out),
    "forward, with kwargs": lambda layer: layer.register_forward_hook(
        lambda module, args, kwargs, out: 10 * out, with_kwargs=True
    ),
    "pre": lambda layer: layer.register_forward_pre_hook(lambda module, args: (10 * args[0],)),
    "pre, with kwargs": lambda layer: layer.register_forward_pre_hook(
        lambda module, args, kwargs: ((10 * args[0],), kwargs), with_kwargs=True
    ),
    "two": lambda layer: [
        layer.register_forward_hook(lambda module, args, out: out + 1),
        layer.register_forward_hook(lambda module, args, out: out * 2),
    ],
    "by a buffer": lambda layer: (
        layer.register_buffer("factor", torch.tensor(3.0), persistent=False),
        layer.register_forward_hook(lambda module, args, out: module.factor * out),
    ),
    "by an attribute": lambda layer: (
        setattr(layer, "factor", 3.0),
        layer.register_forward_hook(lambda module, args, out: module.factor * out),
    ),
}


@exact
@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("at", [0, 2])
def test_hooks_on_convolutions_go_on(how, name, at):
    source = net()
    HOOKS[name](source[at])
    image, run = image_and_run(how)
    torch.testing.assert_close(run(CONVERT[how](source)), source(image), atol=1e-4, rtol=1e-4)


OTHERS = [nn.PixelShuffle(2), nn.PixelUnshuffle(1), nn.Softmax2d(), nn.ConvTranspose2d(4, 4, 3, padding=1)]


@pytest.mark.parametrize("layer", OTHERS, ids=lambda v: type(v).__name__)
def test_hooks_on_other_layers_go_on(layer):
    layer.register_forward_hook(lambda module, args, out: out + 100)
    source = nn.Sequential(nn.Conv2d(1, 4, 1), layer)
    volume = torch.randn(1, 1, 4, 5, 3)
    expected = torch.stack([source(one) for one in volume.unbind(4)], dim=4)
    torch.testing.assert_close(to_3d(source, keep_depth=True)(volume), expected, atol=1e-4, rtol=1e-5)


@convert
def test_other_hooks_go_on(how):
    source, calls = net(), []
    layer = source[0]
    layer.register_full_backward_hook(lambda module, inside, out: calls.append("backward"))
    layer.register_full_backward_pre_hook(lambda module, out: calls.append("backward pre"))
    layer.register_state_dict_post_hook(lambda module, state, prefix, meta: calls.append("saved"))
    layer.register_state_dict_pre_hook(lambda module, prefix, keep: calls.append("to be saved"))
    layer.register_load_state_dict_pre_hook(lambda module, *args: calls.append("to be loaded"))
    layer.register_load_state_dict_post_hook(lambda module, keys: calls.append("loaded"))
    layer.register_forward_hook(lambda module, args, out: calls.append("always"), always_call=True)
    made = CONVERT[how](source)
    calls.clear()
    _, run = image_and_run(how)
    run(made).sum().backward()
    made.load_state_dict(made.state_dict())
    assert set(calls) == {"backward", "backward pre", "saved", "to be saved", "to be loaded", "loaded", "always"}


def test_frozen_networks_keep_them_too():
    source = to_crossd(net(), init="preserve")
    source[0].register_forward_hook(lambda module, args, out: 10 * out)
    x = torch.randn(2, 1, 6, 6)
    torch.testing.assert_close(to_plain(source)(x), source(x), atol=1e-4, rtol=1e-4)


class OwnCrossD(CrossDConv2d):
    pass


def own_forward(layer):
    layer.forward = types.MethodType(lambda self, x: F.conv2d(x, 2 * self.weight, padding=1), layer)


REFUSED = {
    "forward": (own_forward, r"0 is a Conv2d with a forward of its own"),
    "_conv_forward": (lambda layer: setattr(layer, "_conv_forward", lambda *args: 0), "a _conv_forward of its own"),
    "module": (lambda layer: layer.add_module("adapter", nn.Conv2d(1, 4, 1)), "the module 'adapter' inside it"),
    "parameter": (lambda layer: layer.register_parameter("gain", nn.Parameter(torch.ones(1))), "Conv2d with gain"),
    "weight_norm": (nn.utils.parametrizations.weight_norm, "ParametrizedConv2d"),
    "older weight_norm": (nn.utils.weight_norm, "weight_g"),
    "spectral_norm": (nn.utils.parametrizations.spectral_norm, "ParametrizedConv2d"),
    "older spectral_norm": (nn.utils.spectral_norm, "weight_orig"),
    "orthogonal": (nn.utils.parametrizations.orthogonal, "ParametrizedConv2d"),
    "pruning": (lambda layer: prune.l1_unstructured(layer, "weight", 0.5), "weight_orig.*pruning"),
    "pruned bias": (lambda layer: prune.random_unstructured(layer, "bias", 0.5), "bias_orig.*pruning"),
    "gradient hook": (lambda layer: layer.weight.register_hook(lambda grad: 0 * grad), r"0\.weight has a hook"),
    "gradient hook after": (
        lambda layer: layer.bias.register_post_accumulate_grad_hook(lambda value: None), r"0\.bias has a hook"
    ),
}  # fmt: skip


@convert
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_over_is_refused_by_its_path(how, name):
    source = net()
    change, says = REFUSED[name]
    change(source[0])
    with pytest.raises(TypeError, match=says):
        CONVERT[how](source)


def test_a_subclass_of_ours_and_a_scripted_network_are_refused():
    with pytest.raises(TypeError, match="0 is a OwnCrossD, a CrossDConv2d with a behaviour of its own"):
        to_3d(nn.Sequential(OwnCrossD(1, 1, 3)))
    with pytest.raises(TypeError, match="is scripted"):
        to_3d(torch.jit.trace(net(), torch.ones(1, 1, 6, 6)))


@exact
def test_a_pruned_layer_goes_over_once_pruning_is_made_permanent(how):
    source = net()
    prune.l1_unstructured(source[0], "weight", 0.5)
    prune.remove(source[0], "weight")
    image, run = image_and_run(how)
    torch.testing.assert_close(run(CONVERT[how](source)), source(image), atol=1e-4, rtol=1e-4)


@convert
def test_layers_that_share_parameters_go_on_sharing(how):
    source = nn.ModuleDict({name: nn.Conv2d(4, 4, 3) for name in "abc"})
    source["b"].weight = source["a"].weight
    source["c"].bias = source["a"].bias
    source["norm"] = nn.BatchNorm2d(4)
    source["norm"].bias = source["a"].bias
    made = CONVERT[how](source)
    assert made["b"].weight is made["a"].weight
    assert made["c"].weight is not made["a"].weight
    assert made["c"].bias is made["a"].bias is made["norm"].bias
    assert made["b"].bias is not made["a"].bias
    made["a"].weight.data.fill_(3)
    assert (made["b"].weight == 3).all()


class Decoder(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight


@pytest.mark.parametrize("how", ["to_crossd", "center", "crossd"])
@pytest.mark.parametrize("decoder_first", [True, False])
def test_a_weight_shared_with_what_is_no_convolution_is_refused(how, decoder_first):
    conv = nn.Conv2d(4, 4, 3)
    parts = {"conv": conv, "decoder": Decoder(conv.weight)}
    source = nn.ModuleDict(dict(reversed(parts.items())) if decoder_first else parts)
    with pytest.raises(TypeError, match=r"conv shares a parameter with decoder\.weight"):
        CONVERT[how](source)


def test_a_weight_shared_by_layers_of_other_shapes_in_3d_is_refused():
    source = nn.Sequential(nn.Conv2d(4, 4, 4), nn.ConvTranspose2d(4, 4, 4, padding=1))
    source[1].weight = source[0].weight
    to_3d(source)
    with pytest.raises(TypeError, match="shares its weight"):
        to_3d(source, "crossd")


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
@exact
def test_wrappers_are_taken_off(how, wrap):
    source = net().eval()
    image, run = image_and_run(how)
    made = CONVERT[how](wrap(source))
    torch.testing.assert_close(run(made), source(image), atol=1e-4, rtol=1e-4)
    assert not [key for key in made.state_dict() if key.startswith(("module.", "_orig_mod."))]
    part = net()
    part[0] = torch.compile(part[0])
    torch.testing.assert_close(run(CONVERT[how](part)), nn.Sequential(part[0]._orig_mod, *part[1:])(image), atol=1e-4,
                               rtol=1e-4)  # fmt: skip
