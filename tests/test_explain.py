# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from monai.bundle import ConfigParser

from monai_crossd.explain import main

BUNDLE = Path(__file__).parents[1] / "bundles" / "crossd_2d_pretraining"
SHIFTS = "epoch,layer,axis,samples,mean,std,q05,q25,q50,q75,q95\n1,a,depth,1,1,0,1,1,1,1,1\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, demo_root):
    """The 2D bundle with a smaller network and random weights."""
    folder = tmp_path_factory.mktemp("bundle")
    config = json.loads((BUNDLE / "configs" / "inference.json").read_text())
    config["network_def"] |= {"model_name": "resnet10", "widen_factor": 0.0625}
    config["demo_dir"] = str(demo_root)
    (folder / "configs").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    (folder / "models").mkdir()
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.mark.slow
def test_pictures_of_a_bundle(bundle, tmp_path, capsys):
    shifts = tmp_path / "shifts.csv"
    rows = [SHIFTS.splitlines()[1].replace("depth", axis) for axis in ("depth", "row", "column")]
    shifts.write_text("\n".join([SHIFTS.splitlines()[0], *rows]) + "\n")
    out = tmp_path / "out"
    main(["--bundle", str(bundle), "--output_dir", str(out), "--shifts", str(shifts), "--bank_layer", "conv1"])
    names = ["crossd_shifts.png", "crossd_bank.png", "crossd_features.png"]
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert all(imread(path).std() > 0.01 for path in out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "nowhere"], "There is no nowhere/configs/inference.json: expected the folder of a bundle"),
        (["--weights", "nowhere.pt"], "There are no weights nowhere.pt: train the bundle first"),
        (["--weights", str(BUNDLE / "models" / "model.pt")], "does not fit the bundle's network_def"),
        (["--shifts", "nowhere.csv"], "nowhere.csv"),
        (["--bank_layer", "layer9"], "There is no layer 'layer9': ResNet holds conv1"),
    ],
)
def test_what_does_not_fit(bundle, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(["--bundle", str(bundle), "--output_dir", str(tmp_path), *arguments])
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
