# SPDX-License-Identifier: Apache-2.0
"""`python -m monai_crossd.bundles NAME --to FOLDER`: a copy of a bundle of this package, with its weights, to work in.

The bundles stand in the folder bundles/ of the repository. A wheel holds them in monai_crossd/bundle_files, each file
of weights once: what is the same in several bundles is put in its places by the copy. setup.py loads this file by its
path, so it imports the standard library alone.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["bundle_names", "bundles_root", "copy_bundle", "main", "pack_bundles"]

_PACKED = Path(__file__).parent / "bundle_files"
_SHARED = "shared.json"  # of packed bundles: where a file of weights goes, and which one it is
# what runs and exports leave in a bundle
_LEFT_OUT = shutil.ignore_patterns("eval", "data", "__pycache__", ".*", "*.ts", "*.onnx")


def bundles_root() -> Path:
    """Folder of the bundles that come with this package; copy a bundle with :func:`copy_bundle` to work in it.

    Example:
        >>> (bundles_root() / "crossd_2d_pretraining" / "configs" / "train.yaml").is_file()
        True
    """
    return _PACKED if _PACKED.is_dir() else Path(__file__).parents[1] / "bundles"


def bundle_names() -> list[str]:
    """Names of the bundles that come with this package.

    Example:
        >>> bundle_names()
        ['crossd_2d_pretraining', 'crossd_3d_classification', 'crossd_3d_segmentation']
    """
    return sorted(path.parents[1].name for path in bundles_root().glob("*/configs/metadata.json"))


def copy_bundle(name: str, to: str | os.PathLike[str] = ".", federated: bool = False) -> Path:
    """Copies a bundle with its weights, without what runs left in it.

    Args:
        name: Name of the bundle, see :func:`bundle_names`.
        to: Folder that receives the folder of the bundle; made where it is missing.
        federated: Whether configs/train.json and evaluate.json are written too, the names that MONAI's federated client
            and NVFlare go by: train.yaml and evaluate.yaml with the overlay federated.yaml.

    Returns:
        Folder of the copy.

    Raises:
        ValueError: If there is no such bundle.
        FileExistsError: If the folder of the copy is there.
        OSError: If it cannot be written; nothing is left then.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in copy_bundle("crossd_3d_segmentation", folder).iterdir())
        ['LICENSE', 'configs', 'docs', 'models']
    """
    if name not in bundle_names():
        near = difflib.get_close_matches(name, bundle_names(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"There is no bundle {name!r}: {hint}There are {', '.join(bundle_names())}.")
    target = Path(to) / name
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is there already: remove it, or name another folder.")
    Path(to).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to, prefix=f".{name}.") as folder:
        made = Path(shutil.copytree(bundles_root() / name, Path(folder) / name, ignore=_LEFT_OUT))
        for place, source in _shared(bundles_root()).items():
            if Path(place).parts[0] == name:
                shutil.copyfile(bundles_root() / source, Path(folder) / place)
        if federated:
            _write_federated(made / "configs")
        os.replace(made, target)
    return target


def _shared(root: Path) -> dict[str, str]:
    path = root / _SHARED
    shared: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return shared


def _write_federated(configs: Path) -> None:
    from monai.bundle import ConfigParser  # not for setup.py

    overlay = ConfigParser.load_config_file(configs / "federated.yaml")
    train = ConfigParser.load_config_files([configs / "train.yaml", configs / "federated.yaml"])
    evaluate = ConfigParser.load_config_file(configs / "evaluate.yaml") | overlay
    for name, config in (("train", train), ("evaluate", evaluate)):
        ConfigParser.export_config_file(config, configs / f"{name}.json", indent=4)


def _not_packed(folder: str, names: list[str]) -> set[str]:
    """Further weights (folders in models/) stay in the repository, as their pages say: they would double a wheel."""
    further = {name for name in names if Path(folder).name == "models" and Path(folder, name).is_dir()}
    return further | _LEFT_OUT(folder, names)


def pack_bundles(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copies all bundles into a folder for a wheel, each file of weights once.

    Args:
        source: Folder of the bundles.
        target: Folder to write; what it held is removed.

    Raises:
        FileNotFoundError: If there are no bundles.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pack_bundles(bundles_root(), folder)
        ...     sorted(path.name for path in Path(folder).iterdir())[:2]
        ['crossd_2d_pretraining', 'crossd_3d_classification']
    """
    root, packed = Path(source), Path(target)
    names = sorted(path.parents[1].name for path in root.glob("*/configs/metadata.json"))
    if not names:
        raise FileNotFoundError(f"There are no bundles in {root}.")
    shutil.rmtree(packed, ignore_errors=True)
    for name in names:
        shutil.copytree(root / name, packed / name, ignore=_not_packed)
    first: dict[str, str] = {}
    shared = {}
    for path in sorted(path for path in packed.glob("*/models/**/*") if path.is_file()):
        place = path.relative_to(packed).as_posix()
        source_place = first.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), place)
        if source_place != place:
            shared[place] = source_place
            path.unlink()
    (packed / _SHARED).write_text(json.dumps(shared, indent=1), "utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Copies the bundles that the command line names, or lists all.

    Args:
        argv: Arguments of the command line.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     main(["crossd_2d_pretraining", "--to", folder])  # doctest: +ELLIPSIS
        /...crossd_2d_pretraining
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_crossd.bundles",
        description="Copies a bundle, with its weights, into a folder. Without a name, lists the bundles.",
    )
    parser.add_argument("name", nargs="*", help="bundles to copy")
    parser.add_argument("--to", default=".", metavar="FOLDER", help="that receives their folders (the current one)")
    parser.add_argument(
        "--federated",
        action="store_true",
        help="write configs/train.json and evaluate.json too, for a client of federated training (docs/federated.md)",
    )
    args = parser.parse_args(argv)
    if not args.name:
        for name in bundle_names():
            metadata = json.loads((bundles_root() / name / "configs" / "metadata.json").read_text("utf-8"))
            print(f"{name}: {metadata['task']}")
    for name in args.name:
        try:
            print(copy_bundle(name, args.to, args.federated))
        except (ValueError, OSError) as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
