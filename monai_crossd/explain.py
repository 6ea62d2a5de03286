# SPDX-License-Identifier: Apache-2.0
"""`python -m monai_crossd.explain`: the pictures of docs/crossd.md, from a 2D bundle and the embedded chest CT.

The bundle is one like crossd_2d_pretraining: its configs/inference.json says how the network is built and how its
images are prepared.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.config import PathLike
from monai.transforms import Compose
from torch import Tensor, nn

from .bundles import bundles_root
from .data import load_datalist
from .transfer import read_checkpoint, to_3d
from .transforms import modality_transforms
from .visualize import draw_bank, draw_features, draw_shifts
from .visualize.capture import find_layer

__all__ = ["main", "make_pictures"]

# numbers of classes: their first patches are axial and whole; others, cut through thick slices, are mostly padding
_CLASSES = (1, 2, 3, 4, 5)
_CLASS_OF_BLOCK = 2


def _first_of_class(word: str, demo_dir: PathLike) -> dict[int, dict]:
    """First validation item of each class."""
    items: dict[int, dict] = {}
    for item in load_datalist(word, "validation", "classification", demo_dir):
        items.setdefault(item["label"], item)
    return items


def _images(parser: ConfigParser, demo_dir: PathLike) -> Tensor:
    prepare = parser.get_parsed_content("preprocessing")
    prepare = Compose(prepare) if isinstance(prepare, list) else prepare
    items = _first_of_class("demo", demo_dir)
    return torch.stack([prepare(items[label])["image"].as_tensor() for label in _CLASSES])


def _volume(parser: ConfigParser, demo_dir: PathLike) -> Tensor:
    size = [*parser.get_parsed_content("spatial_size"), -1]
    options = {"channels": parser.get_parsed_content("in_channels"), "intensity": {"window": "wide"}}
    transforms = modality_transforms("ct", 3, "infer", spatial_size=size, **options)
    item = _first_of_class("demo:chest_ct:3d", demo_dir)[_CLASS_OF_BLOCK]
    volume: Tensor = Compose(transforms)(item)["image"].as_tensor()
    return volume


def _read_network(parser: ConfigParser, weights: Path) -> nn.Module:
    if not weights.is_file():
        raise FileNotFoundError(f"There are no weights {weights}: train the bundle first, or name others by --weights.")
    net: nn.Module = parser.get_parsed_content("network_def")
    try:
        net.load_state_dict(read_checkpoint(weights))
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit the bundle's network_def: {error}") from error
    return net


def make_pictures(
    bundle: PathLike,
    output_dir: PathLike,
    weights: PathLike | None = None,
    shifts: PathLike | None = None,
    bank_layer: str = "layer4.1.conv2",
    feature_layer: str = "layer1",
) -> list[Path]:
    """Writes the pictures that explain Cross-D, for five patches and one block of the embedded CT of ONE patient.

    Args:
        bundle: folder of a 2D bundle whose network has Cross-D layers.
        output_dir: receives crossd_bank.png, crossd_features.png and, with ``shifts``, crossd_shifts.png.
        weights: of the network; by default those of the bundle's eval/ where it was trained, else of its models/.
        shifts: shifts.csv of a training, see :class:`monai_crossd.training.ShiftHandler`.
        bank_layer: Cross-D layer whose bank is drawn.
        feature_layer: whose feature maps are drawn.

    Returns:
        The files.

    Raises:
        FileNotFoundError: When the bundle has no configs/inference.json, or there are no weights or no shifts.
        ValueError: When weights and network do not fit, or a layer is not there.
        OptionalImportError: When matplotlib or the package of the CT is not installed.

    Example:
        .. code-block:: python

            make_pictures("bundles/crossd_2d_pretraining", "pictures")
    """
    config = Path(bundle, "configs", "inference.json")
    if not config.is_file():
        raise FileNotFoundError(f"There is no {config}: expected the folder of a bundle, like crossd_2d_pretraining.")
    parser = ConfigParser()
    parser.read_config(config)
    parser["bundle_root"] = str(bundle)
    if weights:
        parser["weights"] = str(weights)
    net = _read_network(parser, Path(parser.get_parsed_content("weights")))
    folder = Path(output_dir)
    files = [draw_shifts(shifts, folder / "crossd_shifts.png")] if shifts else []
    for layer in (bank_layer, feature_layer):
        find_layer(net, layer)  # before the data are made
    with tempfile.TemporaryDirectory() as demo_dir:
        images, volume = _images(parser, demo_dir), _volume(parser, demo_dir)
    files.append(draw_bank(net, bank_layer, images, folder / "crossd_bank.png"))
    nets = {
        "3D, dynamic": to_3d(net, "crossd", keep_depth=True),
        "3D, effective\nkernel, static": to_3d(net, keep_depth=True),
        "3D, raw bank\n(as published)": to_3d(net, inflate="bank", keep_depth=True),
    }
    files.append(draw_features(net, nets, volume, feature_layer, folder / "crossd_features.png"))
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line and prints the files' names.

    Example:
        .. code-block:: bash

            python -m monai_crossd.explain --output_dir pictures
    """
    parser = argparse.ArgumentParser(prog="python -m monai_crossd.explain", description=__doc__)
    bundle = bundles_root() / "crossd_2d_pretraining"
    parser.add_argument("--bundle", default=bundle, help="folder of a 2D bundle (%(default)s)")
    parser.add_argument("--output_dir", default="docs/images", help="folder of the pictures (%(default)s)")
    parser.add_argument("--weights", help="of the network; by default those trained last, else those of the bundle")
    parser.add_argument("--shifts", help="shifts.csv of a training, to be drawn too")
    parser.add_argument("--bank_layer", default="layer4.1.conv2", help="whose bank is drawn (%(default)s)")
    parser.add_argument("--feature_layer", default="layer1", help="whose feature maps are drawn (%(default)s)")
    args = parser.parse_args(argv)
    try:
        files = make_pictures(**vars(args))
    except (FileNotFoundError, ValueError, ImportError) as error:
        parser.error(str(error).splitlines()[0])  # MONAI adds a paragraph to what is not installed
    for path in files:
        print(path)


if __name__ == "__main__":
    main()
