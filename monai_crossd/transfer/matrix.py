# SPDX-License-Identifier: Apache-2.0
"""Which MONAI networks go from 2D to 3D, and into which layers: the table, its cells, and the command that prints it.

`python -m monai_crossd.transfer.matrix > docs/networks.md` runs every cell on a small configuration of each network.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from monai.networks import nets
from torch import Tensor, nn

from ..conv.factory import CONVOLUTIONS, use_conv
from .load_2d import load_2d
from .to_crossd import to_crossd

COLUMNS = {
    "to_crossd": "2D network with Cross-D layers: same output at first, trains",
    "acs": '`use_conv("acs")` in 3D, filled from 2D',
    "i3d": 'plain 3D network, filled from 2D with `inflate="i3d"`',
    "center": "plain 3D network, filled from 2D",
    "crossd": '`use_conv("crossd")` in 3D, filled from 2D Cross-D',
}
OWN_CONVOLUTIONS = "takes its convolutions from torch, not from MONAI's factory: it is filled as a plain one"
ALL_BACKBONES = (
    *(f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152, 200)),
    *(f"efficientnet-b{number}" for number in range(9)),
    "efficientnet-l2",
)
FLATTEN = "is a linear layer over all positions, and a volume has more"
PER_DIMENSION = "has an output per dimension of space"
PER_PATCH = "has values per voxel of a patch, or per patch, and a volume has more"
FLATTENS = {"final.1.weight": FLATTEN}
FLATTENS_VAE = {"mu.*": FLATTEN, "logvar.*": FLATTEN, "decodeL.*": FLATTEN}
FLATTER_BANK = "has flat 3D kernels (1×1×3) whose bank is flatter than that of its 2D kernels (1×3): use other layers"


@dataclass(frozen=True)
class Network:
    """One row: how to build a network in 2 or 3 dimensions, and what to run it on.

    Attributes:
        build: gets the number of dimensions.
        size: of the image and the volume, the same on each axis.
        channels: of the image.
        extra: further arguments of forward, given the number of dimensions.
        depth_axis: axis of the 3D kernels that those of the 2D network lack.
        exclude: pattern of keys that are meant to differ, and why.
        cannot: column, and why it cannot be.
        large: the same code as another row with more or wider layers, so tests leave it to the command.
        needs: package that MONAI needs for it.
    """

    build: Callable[[int], nn.Module]
    size: int = 32
    channels: int = 1
    extra: Callable[[int], tuple] = lambda dims: ()
    depth_axis: int = -1
    exclude: dict[str, str] = field(default_factory=dict)
    cannot: dict[str, str] = field(default_factory=dict)
    large: bool = False
    needs: str | None = None

    def example(self, dims: int) -> tuple:
        """Arguments of forward: a batch of two."""
        return (torch.randn(2, self.channels, *[self.size] * dims), *self.extra(dims))


def _resnet(name: str, dims: int) -> nn.Module:
    net: nn.Module = getattr(nets, name)(spatial_dims=dims, n_input_channels=1, num_classes=3, widen_factor=0.125)
    return net


def _dynunet(dims: int) -> nn.Module:
    kernels, strides = [3, 3, 3], [1, 2, 2]
    return nets.DynUNet(dims, 1, 2, kernels, strides, strides[1:], filters=(4, 8, 8), res_block=True)


def _table() -> dict[str, Network]:
    senet: Any = dict(layers=(1, 1, 1, 1), in_channels=1, num_classes=2, inplanes=8)
    unet: Any = dict(channels=(4, 8, 8), strides=(2, 2))
    autoenc: Any = dict(channels=(4, 8), strides=(2, 2))
    narrow: Any = dict(init_filters=8, in_channels=1, out_channels=2)
    diffusion: Any = dict(
        in_channels=1, num_res_blocks=1, channels=(8, 8), attention_levels=(False, True), norm_num_groups=4,
        num_head_channels=4,
    )  # fmt: skip
    autoencoder: Any = dict(channels=(8, 8), num_res_blocks=1, attention_levels=(False, False), norm_num_groups=4)
    vit: Any = dict(hidden_size=24, mlp_dim=32, num_heads=2)
    return {
        **{
            f"ResNet ({name})": Network(partial(_resnet, name), large=name not in ("resnet10", "resnet34", "resnet50"))
            for name in ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200")
        },
        "SEResNet50": Network(lambda d: nets.SEResNet50(spatial_dims=d, **senet)),
        "SEResNet101": Network(lambda d: nets.SEResNet101(spatial_dims=d, **senet), large=True),
        "SEResNet152": Network(lambda d: nets.SEResNet152(spatial_dims=d, **senet), large=True),
        "SEResNeXt50": Network(lambda d: nets.SEResNeXt50(spatial_dims=d, groups=4, **senet)),
        "SEResNeXt101": Network(lambda d: nets.SEResNeXt101(spatial_dims=d, groups=4, **senet), large=True),
        "SENet154": Network(lambda d: nets.SENet154(spatial_dims=d, groups=4, **senet)),
        "DenseNet": Network(
            lambda d: nets.DenseNet(d, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2, 2, 2))
        ),
        "DenseNet121": Network(lambda d: nets.DenseNet121(d, 1, 2, init_features=8, growth_rate=4)),
        "DenseNet169": Network(lambda d: nets.DenseNet169(d, 1, 2, init_features=8, growth_rate=4), large=True),
        "DenseNet201": Network(lambda d: nets.DenseNet201(d, 1, 2, init_features=8, growth_rate=4), large=True),
        "DenseNet264": Network(lambda d: nets.DenseNet264(d, 1, 2, init_features=8, growth_rate=4), large=True),
        **{
            f"EfficientNetBN (b{i})": Network(
                lambda d, i=i: nets.EfficientNetBN(  # type: ignore[misc]
                    f"efficientnet-b{i}", pretrained=False, spatial_dims=d, in_channels=1, num_classes=2
                ),
                large=i > 0,
            )
            for i in (0, 1, 2)
        },
        "EfficientNetBNFeatures": Network(
            lambda d: nets.EfficientNetBNFeatures("efficientnet-b0", pretrained=False, spatial_dims=d, in_channels=1)
        ),
        "ResNetFeatures": Network(lambda d: nets.ResNetFeatures("resnet10", pretrained=False, spatial_dims=d)),
        "UNet": Network(lambda d: nets.UNet(d, 1, 2, num_res_units=1, **unet)),
        "BasicUNet": Network(lambda d: nets.BasicUNet(d, 1, 2, features=(4, 4, 4, 8, 8, 4))),
        "BasicUNetPlusPlus": Network(lambda d: nets.BasicUNetPlusPlus(d, 1, 2, features=(4, 4, 4, 8, 8, 4))),
        "AttentionUnet": Network(lambda d: nets.AttentionUnet(d, 1, 2, **unet)),
        "DynUNet": Network(_dynunet),
        "SegResNet": Network(lambda d: nets.SegResNet(d, blocks_down=(1, 1), blocks_up=(1,), **narrow)),
        "SegResNet (deconv)": Network(
            lambda d: nets.SegResNet(d, blocks_down=(1, 1), blocks_up=(1,), upsample_mode="deconv", **narrow)
        ),
        "SegResNetVAE": Network(
            lambda d: nets.SegResNetVAE([32] * d, spatial_dims=d, blocks_down=(1, 1), blocks_up=(1,), **narrow),
            exclude={"vae_fc*": FLATTEN},
        ),
        "SegResNetDS": Network(lambda d: nets.SegResNetDS(d, blocks_down=(1, 1, 1), dsdepth=2, **narrow)),
        "SegResNetDS2": Network(lambda d: nets.SegResNetDS2(d, blocks_down=(1, 1, 1), **narrow)),
        "VNet": Network(lambda d: nets.VNet(d, 1, 2, dropout_dim=d)),
        "HighResNet": Network(lambda d: nets.HighResNet(d, 1, 2), size=12),
        "AHNet": Network(
            lambda d: nets.AHNet((1, 1, 1, 1), d, 1, 2, psp_block_num=1),
            depth_axis=0,
            cannot={"crossd": FLATTER_BANK},
        ),
        **{
            f"FlexibleUNet ({name})": Network(
                lambda d, name=name: nets.FlexibleUNet(  # type: ignore[misc]
                    1, 2, name, spatial_dims=d, decoder_channels=(16, 8, 8, 8, 4)
                ),
                large=name not in ("resnet10", "resnet18", "resnet50", "efficientnet-b0"),
            )
            for name in ALL_BACKBONES
        },
        "MedNeXt": Network(
            lambda d: nets.MedNeXt(
                d, 4, kernel_size=3, blocks_down=(1, 1), blocks_bottleneck=1, blocks_up=(1, 1), norm_type="group"
            ),
            cannot={"acs": OWN_CONVOLUTIONS, "crossd": OWN_CONVOLUTIONS},
        ),
        "UNETR": Network(lambda d: nets.UNETR(1, 2, 32, 4, spatial_dims=d, **vit), needs="einops"),
        "SwinUNETR": Network(
            lambda d: nets.SwinUNETR(1, 2, window_size=4, feature_size=12, spatial_dims=d),
            size=64,
            needs="einops",
        ),
        "ViT": Network(
            lambda d: nets.ViT(1, 32, 16, num_layers=2, classification=True, spatial_dims=d, **vit), needs="einops"
        ),
        "ViTAutoEnc": Network(
            lambda d: nets.ViTAutoEnc(1, 32, 16, num_layers=2, spatial_dims=d, **vit), needs="einops"
        ),
        "MaskedAutoEncoderViT": Network(
            lambda d: nets.MaskedAutoEncoderViT(
                1,
                32,
                16,
                spatial_dims=d,
                num_layers=1,
                decoder_hidden_size=24,
                decoder_mlp_dim=32,
                decoder_num_layers=1,
                decoder_num_heads=2,
                **vit,
            ),
            exclude={"decoder_pos_embedding": PER_PATCH, "decoder_pred.*": PER_PATCH},
            needs="einops",
        ),
        "AutoEncoder": Network(lambda d: nets.AutoEncoder(d, 1, 2, num_res_units=1, **autoenc)),
        "VarAutoEncoder": Network(
            lambda d: nets.VarAutoEncoder(d, (1, *[16] * d), 1, 4, **autoenc), size=16, exclude=FLATTENS_VAE
        ),
        "Regressor": Network(lambda d: nets.Regressor((1, *[16] * d), (2,), **unet), size=16, exclude=FLATTENS),
        "Classifier": Network(lambda d: nets.Classifier((1, *[16] * d), 2, **unet), size=16, exclude=FLATTENS),
        "Discriminator": Network(lambda d: nets.Discriminator((1, *[16] * d), **unet), size=16, exclude=FLATTENS),
        "Critic": Network(lambda d: nets.Critic((1, *[16] * d), **unet), size=16),
        "PatchDiscriminator": Network(lambda d: nets.PatchDiscriminator(d, 4, 1, num_layers_d=2)),
        "MultiScalePatchDiscriminator": Network(
            lambda d: nets.MultiScalePatchDiscriminator(2, 2, d, 4, 1, minimum_size_im=32)
        ),
        "SPADENet": Network(
            lambda d: nets.SPADENet(d, 1, 1, 2, [16] * d, [8, 8], is_vae=False, spade_intermediate_channels=8),
            size=16,
            channels=2,
        ),
        "SPADEAutoencoderKL": Network(
            lambda d: nets.SPADEAutoencoderKL(
                d,
                2,
                **autoencoder,
                spade_intermediate_channels=8,
                with_encoder_nonlocal_attn=False,
                with_decoder_nonlocal_attn=False,
            ),
            size=16,
            extra=lambda d: (torch.rand(2, 2, *[16] * d),),
        ),
        "SPADEDiffusionModelUNet": Network(
            lambda d: nets.SPADEDiffusionModelUNet(
                d, out_channels=1, label_nc=2, spade_intermediate_channels=8, **diffusion
            ),
            size=8,
            extra=lambda d: (torch.tensor([1, 5]), torch.rand(2, 2, *[8] * d)),
            needs="einops",
        ),
        "AutoencoderKL": Network(
            lambda d: nets.AutoencoderKL(
                d, **autoencoder, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False
            ),
            size=16,
        ),
        "VQVAE": Network(
            lambda d: nets.VQVAE(
                d,
                1,
                1,
                channels=(8, 8),
                num_res_layers=1,
                num_res_channels=8,
                downsample_parameters=((2, 4, 1, 1),) * 2,
                upsample_parameters=((2, 4, 1, 1, 0),) * 2,
                num_embeddings=8,
                embedding_dim=4,
            ),
            size=16,
        ),
        "DiffusionModelUNet": Network(
            lambda d: nets.DiffusionModelUNet(d, out_channels=1, **diffusion),
            size=8,
            extra=lambda d: (torch.tensor([1, 5]),),
            needs="einops",
        ),
        "ControlNet": Network(
            lambda d: nets.ControlNet(d, conditioning_embedding_num_channels=(8,), **diffusion),
            size=8,
            extra=lambda d: (torch.tensor([1, 5]), torch.randn(2, 1, *[8] * d)),
            needs="einops",
        ),
        "VoxelMorphUNet": Network(
            lambda d: nets.VoxelMorphUNet(d, 2, 4, channels=(4, 4, 8, 8), final_conv_channels=(4, 4)),
            channels=2,
            exclude={"*final_conv_out.conv.*": PER_DIMENSION},
        ),
        "VoxelMorph": Network(
            lambda d: nets.VoxelMorph(
                nets.VoxelMorphUNet(d, 2, 4, channels=(4, 4, 8, 8), final_conv_channels=(4, 4)), spatial_dims=d
            ),
            extra=lambda d: (torch.randn(2, 1, *[32] * d),),
            exclude={"*final_conv_out.conv.*": PER_DIMENSION},
        ),
        "RegUNet": Network(lambda d: nets.RegUNet(d, 1, 4, 2, out_channels=2)),
        "GlobalNet": Network(
            lambda d: nets.GlobalNet([32] * d, d, 1, 4, 2), exclude={"output_block.fc.*": PER_DIMENSION}
        ),
        "LocalNet": Network(lambda d: nets.LocalNet(d, 1, 4, (0, 1), out_channels=2)),
    }


NETWORKS = _table()
# networks of MONAI that take spatial_dims and have no row, and why
LEFT_OUT = {
    "DiNTS": "built around a search",
    "TopologyConstruction": "built around a search",
    "TopologyInstance": "built around a search",
    "TopologySearch": "built around a search",
    "HyenaNDUNETR": "needs nvsubquadratic, for GPUs",
    "NaViT": "takes lists of images of many sizes",
    "Generator": "no image in",
    "Quicknat": "2D only",
}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _learns(net: nn.Module, example: tuple) -> None:
    """Forward and backward in training mode.

    Raises:
        ArithmeticError: if a convolution gets no finite gradient.
    """
    outs = [y for y in _tensors(net.train()(*example)) if y.requires_grad]
    torch.stack([y.square().mean() for y in outs]).sum().backward()
    grads = [p.grad for p in net.parameters() if p.dim() > 2 and p.grad is not None]
    if not grads or not all(bool(g.isfinite().all()) for g in grads):
        raise ArithmeticError("no finite gradients")


def run_cell(network: Network, column: str) -> float:
    """Build, fill, run and differentiate; returns the share of the 3D network's values that came from 2D.

    For "to_crossd" it is the share of the Cross-D network's convolution kernels that are banks of the 2D ones.
    """
    torch.manual_seed(0)
    net2d = network.build(2).eval()
    if column == "to_crossd":
        net = to_crossd(net2d)
        example = network.example(2)
        torch.manual_seed(1)
        with torch.no_grad():
            expected = list(_tensors(net2d(*example)))
            torch.manual_seed(1)
            got = list(_tensors(net(*example)))
        for y, z in zip(expected, got, strict=True):
            torch.testing.assert_close(z, y, atol=1e-3, rtol=1e-2)
        _learns(net, example)
        return 1.0
    if column in CONVOLUTIONS:
        with use_conv(column, **({"depth_axis": network.depth_axis} if column == "crossd" else {})):
            net3d = network.build(3)
        if not any(isinstance(layer, CONVOLUTIONS[column].layer3d) for layer in net3d.modules()):
            raise ValueError(f"the network has none of the layers of use_conv({column!r})")
    else:
        net3d = network.build(3)
    inflate = "i3d" if column == "i3d" else "center"
    report = load_2d(
        net3d,
        net2d if column != "crossd" else to_crossd(net2d),
        inflate,
        network.depth_axis,
        exclude=tuple(network.exclude),
    )
    _learns(net3d, network.example(3))
    return report.share


def missing_package(network: Network) -> str | None:
    """Package that a network needs and that is not installed."""
    return network.needs if network.needs and importlib.util.find_spec(network.needs) is None else None


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table as Markdown, of all networks or of those that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m monai_crossd.transfer.matrix", description=__doc__)
    parser.add_argument("name", nargs="*", help="networks, such as UNet; all by default")
    names = parser.parse_args(argv).name
    if unknown := [name for name in names if name not in NETWORKS]:
        parser.error(f"{unknown[0]} is not in the table: choose from {', '.join(NETWORKS)}")
    warnings.simplefilter("ignore")
    print("# MONAI networks from 2D to 3D\n")
    print(
        "Made by `python -m monai_crossd.transfer.matrix`: each network in a small configuration, built in 2D and 3D,"
    )
    print("filled, run and differentiated. A percentage is the share of the 3D network's values that came from 2D.\n")
    for column, meaning in COLUMNS.items():
        print(f"- **{column}**: {meaning}")
    print(f"\nNot in the table: {', '.join(f'{name} ({why})' for name, why in LEFT_OUT.items())}.\n")
    print(f"| network | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    notes: list[str] = []
    for name, network in NETWORKS.items():
        if names and name not in names:
            continue
        cells = []
        row_notes = [f"without `{pattern}`, which {why}" for pattern, why in network.exclude.items()]
        if network.depth_axis != -1:
            row_notes.append(f"with depth_axis={network.depth_axis}: its 2D kernels lack that axis of the 3D ones")
        for column in COLUMNS:
            reason = network.cannot.get(column)
            if package := missing_package(network):
                reason = f"not run: {package} is not installed"
            if reason is None:
                try:
                    share = run_cell(network, column)
                    text = "yes" if column == "to_crossd" else f"{share:.1%}"
                    for note in row_notes if column != "to_crossd" else []:
                        if note not in notes:
                            notes.append(note)
                        text += f" [{notes.index(note) + 1}]"
                    cells.append(text)
                    continue
                except Exception as error:
                    reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            if reason not in notes:
                notes.append(reason)
            cells.append(f"no [{notes.index(reason) + 1}]")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()
    for number, reason in enumerate(notes, 1):
        print(f"{number}. {reason}")


if __name__ == "__main__":
    main()
