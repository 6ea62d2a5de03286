# SPDX-License-Identifier: Apache-2.0
"""What `import monai_crossd` brings, in a process of its own."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import monai_crossd
from monai_crossd.conv.factory import CONVOLUTIONS
from monai_crossd.networks import CrossDResNetEncoder

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


@pytest.mark.slow
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


STATE = """
import json, locale, logging, os, random, sys, warnings
import matplotlib, numpy, torch
import monai.bundle, monai.data, monai.engines, monai.handlers, monai.networks.nets, monai.transforms
from monai.data.image_writer import SUPPORTED_WRITERS
from monai.networks.layers import factories
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from monai.transforms.io.array import SUPPORTED_READERS

def log_state(log):
    return [log.level, log.propagate, log.disabled, [repr(handler) for handler in log.handlers]]

def state():
    loggers = {n: log for n, log in logging.Logger.manager.loggerDict.items() if isinstance(log, logging.Logger)}
    theirs = {n: log_state(log) for n, log in loggers.items() if n.partition(".")[0] in ("monai", "ignite", "torch")}
    return {
        "convolutions": [*factories.Conv.names],
        "backbones": {name: repr(entry) for name, entry in FLEXUNET_BACKBONE.register_dict.items()},
        "layers": [[*getattr(factories, name).names] for name in ("Act", "Dropout", "Norm", "Pad", "Pool")],
        "readers": [[name, repr(kind)] for name, kind in SUPPORTED_READERS.items()],
        "writers": [[name, repr(kinds)] for name, kinds in SUPPORTED_WRITERS.items()],
        "types": [repr(torch.get_default_dtype()), repr(torch.get_default_device())],
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "precision": [torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.is_grad_enabled(),
                      torch.backends.cudnn.deterministic, torch.are_deterministic_algorithms_enabled()],
        "random": [torch.initial_seed(), torch.get_rng_state().tolist(), repr(random.getstate()),
                   repr(numpy.random.get_state()), repr(monai.utils.misc.get_seed())],
        "warnings": [repr(entry) for entry in warnings.filters],
        "hooks": [repr(f) for f in (sys.excepthook, warnings.showwarning, torch.save, torch.load, torch.nn.Conv3d)],
        "logging": [logging.root.level, [repr(h) for h in logging.root.handlers], theirs],
        "process": [dict(os.environ), os.getcwd(), sys.path, locale.getlocale(), matplotlib.get_backend()],
        "printing": [repr(numpy.get_printoptions()), repr(torch._tensor_str.PRINT_OPTS)],
        "sharing": torch.multiprocessing.get_sharing_strategy(),
    }

before = state()
import monai_crossd
import monai_crossd.data, monai_crossd.demo, monai_crossd.training, monai_crossd.visualize
assert not logging.getLogger("monai_crossd").handlers
print("STATE", json.dumps([before, state()]))
"""


@pytest.mark.slow
def test_import_adds_names_of_ours_and_changes_nothing_else_of_the_process():
    """Layers in `Conv`, encoders in FLEXUNET_BACKBONE; all parts are imported, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", STATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.rpartition("STATE ")[2])
    names = before.pop("convolutions"), after.pop("convolutions")
    assert names[1][: len(names[0])] == names[0]
    added = set(names[1][len(names[0]) :])
    assert {"ACS", "CROSSD"} <= added <= {name.upper() for name in CONVOLUTIONS}
    backbones, found = before.pop("backbones"), after.pop("backbones")
    assert {name: found.pop(name) for name in backbones} == backbones
    assert set(found) == set(CrossDResNetEncoder.backbone_names)
    assert after == before
