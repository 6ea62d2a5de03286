# SPDX-License-Identifier: Apache-2.0
"""What `import monai_crossd` brings, in a process of its own."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import monai_crossd

LATER = ["data", "demo", "training", "visualize"]
PROGRAM = """
import sys
import monai
before = set(sys.modules)
import monai_crossd
brought = set(sys.modules) - before
late = [name for name in sorted(brought) if name.split(".")[1:2] and name.split(".")[1] in {later!r}]
assert not late, late
assert not {{name.partition(".")[0] for name in brought}} & {{"SimpleITK", "nibabel", "matplotlib", "yaml"}}, brought
assert "torch._dynamo" not in brought
from monai.networks.layers import Conv
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
assert Conv["crossd", 3] is monai_crossd.conv.CrossDConv3d and Conv["acs", 3] is monai_crossd.ACSConv3d
assert "crossd_resnet18" in FLEXUNET_BACKBONE.register_dict
assert set({later!r}) <= set(dir(monai_crossd))
from monai_crossd import *  # every public name, the later ones too
assert all(name in globals() for name in monai_crossd.__all__)
assert data is monai_crossd.data is sys.modules["monai_crossd.data"]
"""


def test_import_brings_layers_and_encoders_and_leaves_the_rest_for_later():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(later=LATER)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", LATER)
def test_later_parts_are_attributes(name):
    assert getattr(monai_crossd, name) is importlib.import_module(f"monai_crossd.{name}")


@pytest.mark.parametrize("name", ["dat", "_missing", "Data"])
def test_what_is_not_there_is_no_attribute(name):
    with pytest.raises(AttributeError, match=f"monai_crossd.*{name}"):
        getattr(monai_crossd, name)
    assert not hasattr(monai_crossd, name)
