# SPDX-License-Identifier: Apache-2.0
"""Copies of the bundles, from a checkout and as a wheel packs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_crossd import bundles

BUNDLES = Path(__file__).parents[1] / "bundles"
NAMES = ["crossd_2d_pretraining", "crossd_3d_classification", "crossd_3d_segmentation"]
CONFIGS = ["metadata.json", "inference.json", "train.yaml", "evaluate.yaml", "federated.yaml", "logging.conf"]


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files_to_ship(name: str) -> dict[str, bytes]:
    """What a copy has, by names: no exports and nothing that a run wrote."""
    folder = BUNDLES / name
    parts = ("LICENSE", "configs/*", "docs/*", "models/model.pt", "models/model_2d.*", "models/*/*")
    paths = [path for part in parts for path in folder.glob(part) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "bundle_files"
    bundles.pack_bundles(BUNDLES, folder)
    return folder


@pytest.fixture(params=["checkout", "wheel"])
def source(request, monkeypatch, packed):
    if request.param == "wheel":
        monkeypatch.setattr(bundles, "_PACKED", packed)
    assert bundles.bundles_root() == (packed if request.param == "wheel" else BUNDLES)
    return request.param


@pytest.mark.usefixtures("source")
def test_names_are_those_of_the_repository(capsys):
    assert bundles.bundle_names() == NAMES
    bundles.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == NAMES
    metadata = json.loads((BUNDLES / NAMES[2] / "configs" / "metadata.json").read_text())
    assert lines[2].partition(": ")[2] == metadata["task"]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_the_bundle(name, source, tmp_path, capsys):
    bundles.main([name, "--to", str(tmp_path / "new" / "folder")])
    copy = tmp_path / "new" / "folder" / name
    assert Path(capsys.readouterr().out.strip()) == copy
    assert [path.name for path in copy.parent.iterdir()] == [name]
    expected = files_to_ship(name)
    if source == "wheel":
        further = {path for path in expected if path.startswith("models/") and path.count("/") == 2}
        assert ("models/real_conv/model.pt" in further) == (name == NAMES[0])
        expected = {path: content for path, content in expected.items() if path not in further}
    assert listing(copy) == expected
    assert {f"configs/{config}" for config in CONFIGS} <= listing(copy).keys()
    assert ("models/model_2d.pth" in listing(copy)) == (name != NAMES[0])


def test_several_names(tmp_path):
    bundles.main([*NAMES[:2], "--to", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES[:2]


@pytest.mark.parametrize("there", ["folder", "file", "broken link"])
def test_nothing_is_overwritten(there, tmp_path, capsys):
    target = tmp_path / NAMES[0]
    if there == "folder":
        target.mkdir()
    elif there == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "gone")
    with pytest.raises(SystemExit):
        bundles.main([NAMES[0], "--to", str(tmp_path)])
    assert f"{target} is there already: remove it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [target]
    assert there == "broken link" or target.is_dir() or target.read_text() == "mine"


def test_a_target_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit):
        bundles.main([NAMES[0], "--to", str(tmp_path / "file")])
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "near"),
    [("crossd_3d_segmentaton", NAMES[2]), ("crossd_2d_classification", NAMES[1]), ("../bundles", None)],
)
def test_unknown_names_are_refused(name, near, tmp_path, capsys):
    with pytest.raises(SystemExit):
        bundles.main([name, "--to", str(tmp_path)])
    error = capsys.readouterr().err
    assert f"There is no bundle {name!r}" in error
    assert ("did you mean" in error) == (near is not None)
    assert all(known in error for known in NAMES)
    assert not list(tmp_path.iterdir())


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles.shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        bundles.copy_bundle(NAMES[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_are_packed_once(packed):
    weights = sorted(path.relative_to(packed).as_posix() for path in packed.rglob("*.pt*"))
    assert weights == sorted([*(f"{name}/models/model.pt" for name in NAMES), f"{NAMES[1]}/models/model_2d.pth"])
    sizes = [path.stat().st_size for path in packed.rglob("*") if path.is_file()]
    assert max(sizes) <= 12e6  # as docs/zoo.md says
    assert sum(sizes) <= 40e6
    assert not [path for path in packed.rglob("*") if path.suffix in (".ts", ".onnx", ".csv")]
    assert all(path.parent.name == "docs" for path in packed.rglob("*.png"))


def test_what_runs_leave_is_not_packed(tmp_path):
    source = tmp_path / "bundles"
    for path in ("configs/metadata.json", "configs/.old", "models/model.pt", "models/model.ts", "models/model.onnx",
                 "models/more/model.pt", "models/more/model.json", "eval/last.pt", "data/mine.nii",
                 "docs/data_license.txt"):  # fmt: skip
        (source / "one" / path).parent.mkdir(parents=True, exist_ok=True)
        (source / "one" / path).write_text(path)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "stale").write_text("of an older build")
    bundles.pack_bundles(source, tmp_path / "packed")
    kept = {f"one/{name}" for name in ("configs/metadata.json", "models/model.pt", "docs/data_license.txt")}
    assert listing(tmp_path / "packed").keys() == {*kept, "shared.json"}


def test_packing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no bundles in"):
        bundles.pack_bundles(tmp_path, tmp_path / "packed")


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("name", NAMES)
def test_federated_copy_has_the_names_that_monai_goes_by(name, tmp_path):
    configs = bundles.copy_bundle(name, tmp_path, federated=True) / "configs"
    assert listing(configs.parent).keys() - files_to_ship(name).keys() == {
        "configs/train.json",
        "configs/evaluate.json",
    }
    files = {
        "json": [configs / "train.json", configs / "evaluate.json"],
        "yaml": [configs / f"{part}.yaml" for part in ("train", "evaluate", "federated")],
    }
    for end in (1, None):
        json_config = ConfigParser.load_config_files(files["json"][:end])
        yaml_files = [files["yaml"][0], files["yaml"][2]] if end else files["yaml"]
        assert json_config == ConfigParser.load_config_files(yaml_files)


@pytest.mark.parametrize("name", NAMES)
def test_a_server_builds_the_network_from_the_classes_alone(name, tmp_path, monkeypatch):
    """As NVFlare's MonaiBundlePersistor does, where there are no data and no working directory of the bundle's."""
    path = bundles.copy_bundle(name, tmp_path, federated=True) / "configs" / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": ["a", "b", "c", "d", "e"]}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    parser = ConfigParser()
    parser.read_config(str(path))
    network = parser.get_parsed_content("network_def")
    assert list(network.state_dict().values())[-1].shape == (5,)
    assert not list((tmp_path / "elsewhere").iterdir())
