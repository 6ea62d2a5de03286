# SPDX-License-Identifier: Apache-2.0
"""Every MONAI network of the table, by every method; and module by module against key by key."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from monai.networks import nets
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from monai_crossd import ConversionError, load_2d, to_3d
from monai_crossd.transfer import matrix
from monai_crossd.transfer.matrix import COLUMNS, NETWORKS, missing_package, run_cell

# what keeps a value of its own in 3D, by how much
BOUND = {"UNETR": 0.99, "ViT": 0.98, "ViTAutoEnc": 0.99, "SwinUNETR": 0.7}
# why a network cannot be converted module by module, from the message; the rest can, and equals load_2d
NO_TO_3D = {
    "HighResNet": "ChannelPad, which works in 2D only",
    "MedNeXt": "MedNeXtBlock, which works in 2D only",
    **dict.fromkeys(["AutoencoderKL", "SPADEAutoencoderKL"], "AsymmetricPad, which works in 2D only"),
    "VQVAE": "EMAQuantizer, which works in 2D only",
    "UNETR": "vit.patch_embedding is a PatchEmbeddingBlock",
    "ViT": "patch_embedding is a PatchEmbeddingBlock",
    "ViTAutoEnc": "patch_embedding is a PatchEmbeddingBlock",
    "SwinUNETR": "attn is a WindowAttention",
    **dict.fromkeys(["Regressor", "Classifier", "Discriminator"], r"final\.\d fails on a volume of shape"),
    **dict.fromkeys(["VarAutoEncoder", "GlobalNet", "SPADENet"], "fails on a volume of shape"),
    # MONAI's shortcut "A" calls a 2D pool by function
    "FlexibleUNet (resnet18)": r"layer2\.0 fails on a volume of shape",
}
# what takes little time and stands for the others: residual, dense, U-shaped, from torch's layers, of patches, refused
FAST = {
    *(
        "ResNet (resnet10)",
        "DenseNet",
        "UNet",
        "DynUNet",
        "SegResNet",
        "MedNeXt",
        "ViT",
        "Classifier",
        "VoxelMorphUNet",
    ),
    *("VQVAE", "DiffusionModelUNet"),
}


def rows():
    return [
        pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])
        for name, row in NETWORKS.items()
        if not row.large
    ]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own
        yield


def row_of(name):
    if package := missing_package(NETWORKS[name]):
        pytest.skip(f"{name} needs {package}")
    return NETWORKS[name]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", rows())
def test_cell(name, column):
    row = row_of(name)
    if column in row.cannot:
        with pytest.raises(ValueError, match=r"the network has none|does not fill"):
            run_cell(row, column)
        return
    share = run_cell(row, column)
    assert share == 1 or (row.exclude and share > 0) or share > BOUND[name]


@pytest.mark.parametrize("name", rows())
def test_module_by_module_equals_key_by_key(name):
    row = row_of(name)
    net2d, net3d = row.build(2).eval(), row.build(3).eval()
    if row.depth_axis != -1:
        pytest.skip("its 3D kernels are not the 2D ones with the first size repeated")
    x = row.example(3)
    if name in NO_TO_3D:
        with pytest.raises(ConversionError, match=NO_TO_3D[name]):
            to_3d(net2d, inflate="i3d", example=x[0])
        return
    if row.exclude:
        pytest.skip("its 3D form has more outputs, or more positions in a branch that only training runs")
    load_2d(net3d, net2d, "i3d")
    made = to_3d(net2d, inflate="i3d")
    torch.testing.assert_close(made.state_dict(), net3d.state_dict(), atol=0, rtol=0)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = list(matrix._tensors(net3d(*x)))
        torch.manual_seed(0)
        got = list(matrix._tensors(made(*x)))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)


# what MONAI exports beside its networks: their parts, and bases whose every subclass has a row
PARTS = {
    *(
        "EfficientNet",
        "EfficientNetEncoder",
        "ResNetEncoder",
        "SENet",
        "HighResBlock",
        "ResNetBlock",
        "ResNetBottleneck",
    ),
    *("PatchMerging", "PatchMergingV2"),
}


def takes_dimensions(cls) -> bool:
    """Whether a constructor of the class or of one it derives from asks for the number of dimensions."""
    names = {name for base in cls.__mro__ for name in inspect.signature(base.__init__).parameters}
    return bool(names & {"spatial_dims", "in_shape"})


def without_row(exported: dict[str, object]) -> set[str]:
    """Networks of both dimensions among these names that have neither a row nor a reason to have none."""
    known = {name.split(" ")[0].lower() for name in NETWORKS}  # of one class, SEResNext101, MONAI spells its alias so
    networks = {value for value in exported.values() if inspect.isclass(value) and issubclass(value, nn.Module)}
    both = {network.__name__ for network in networks if takes_dimensions(network)}
    assert {"ResNet", "UNet", "DynUNet", "ViT", "SwinUNETR"} <= both  # those that are looked for are found
    return {name for name in both - PARTS - set(matrix.LEFT_OUT) if name.lower() not in known}


def test_every_network_of_both_dimensions_has_a_row():
    """A network that is new in MONAI needs a row, or a reason why it has none."""
    assert without_row(vars(nets)) == set()
    backbones = {f"FlexibleUNet ({name})" for name in FLEXUNET_BACKBONE.register_dict if "crossd" not in name}
    assert backbones <= set(NETWORKS)


@pytest.mark.parametrize("argument", ["spatial_dims", "in_shape", "channels"])
def test_a_new_network_is_missed_where_it_has_two_dimensions(argument):
    made = {}
    exec(f"def __init__(self, {argument}): ...", made)
    made["New"] = type("New", (nn.Module,), {"__init__": made["__init__"]})
    below = type("Below", (made["New"],), {"__init__": lambda self, **options: None})  # its base asks for them
    missed = without_row({**vars(nets), "New": made["New"], "Below": below, "new": print})
    assert missed == (set() if argument == "channels" else {"New", "Below"})


def test_the_command_prints_the_table(capsys):
    matrix.main(["BasicUNet", "MedNeXt", "Classifier"])
    text = capsys.readouterr().out
    assert "| BasicUNet | yes | 100.0% | 100.0% | 100.0% | 100.0% |" in text
    assert "| MedNeXt | yes | no [1] | 100.0% | 100.0% | no [1] |" in text
    assert "1. takes its convolutions from torch" in text
    assert "`final.1.weight`" in text


def test_a_failing_cell_gives_its_reason(capsys, monkeypatch):
    def build(dims):
        return nn.Sequential(nn.Conv2d(1, 1, 3) if dims == 2 else nn.Conv3d(1, 2, 3))

    monkeypatch.setattr(matrix, "NETWORKS", {"odd": matrix.Network(build)})
    matrix.main([])
    assert "TransferError" in capsys.readouterr().out
