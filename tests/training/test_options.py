# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.bundle.scripts import create_workflow as create

from monai_crossd.training.options import find_faults

BUNDLES = Path(__file__).parents[2] / "bundles"
CONFIG = {
    "imports": ["$import monai_crossd"],
    "conv": "crossd",
    "dataset_dir": "demo",
    "max_epochs": 8,
    "learning_rate": 0.003,
    "resume": False,
    "roi_size": [96, 96, 8],
    "pixdim": None,
    "intensity": {"window": "wide"},
    "device": "$'cpu'",
    "datasets": [],
    "unused": 1,
    "network_def": {
        "_target_": "monai.networks.nets.FlexibleUNet",
        "in_channels": 1,
        "out_channels": 2,
        "backbone": "x",
    },
    "free": {"_target_": "builtins.dict", "pair_of_names": 1},
    "train": {
        "lr_of_it": "@learning_rate",
        "trainer": {"_target_": "monai.engines.SupervisedTrainer", "max_epochs": "@max_epochs", "device": "@device"},
        "handlers": [{"_target_": "monai.handlers.StatsHandler", "iteration_log": False}],
    },
    "initialize": [
        "$monai_crossd.training.check_options()",
        "$(@conv, @dataset_dir, @roi_size, @pixdim, @resume, @intensity, @datasets, @free, @network_def)",
    ],
    "run": ["$(@train#trainer, @train#handlers, @train#lr_of_it)"],
}

# what is given: None where it is right, else what the message says
OPTIONS = {
    "right": ({"conv": "acs", "max_epochs": 3, "learning_rate": 1, "roi_size": [8, 8, 8], "resume": True}, None),
    "of MONAI": ({"run_id": "run", "meta_file": None, "bundle_root": "."}, None),
    "expressions": ({"max_epochs": "$2+3", "roi_size": "@datasets", "resume": "$bool(1)"}, None),
    "a number as a name": ({"dataset_dir": 2024}, None),
    "anything where nothing stood": ({"pixdim": [1, 1, 1]}, None),
    "nested": ({"train#trainer#max_epochs": 3, "train::handlers::0::iteration_log": True}, None),
    "an argument with a default": ({"network_def#pretrained": True, "train#trainer#amp": True}, None),
    "of a free component": ({"free#other": 1}, None),
    "within a dictionary": ({"intensity#other": 1}, None),
    "not used, but there": ({"unused": 2}, None),
    "two letters": ({"convv": "acs"}, "convv is no option of this bundle; did you mean conv?"),
    "an r": ({"dataset_dirr": "x"}, "dataset_dirr is no option of this bundle; did you mean dataset_dir?"),
    "upper case": ({"Max_Epochs": 1}, "Max_Epochs is no option of this bundle; did you mean max_epochs?"),
    "a hyphen": ({"max-epochs": 1}, "did you mean max_epochs?"),
    "part": ({"epochs": 1}, "did you mean max_epochs?"),
    "of MONAI, wrong": ({"run_idd": "x"}, "did you mean run_id?"),
    "inside of a component": (
        {"in_channels": 2},
        "in_channels is no option of this bundle; did you mean network_def#in_channels?",
    ),
    "nothing near": ({"zzz": 1}, "zzz is no option of this bundle; nothing uses it."),
    "nested, a section": ({"train#lr": 1}, "train#lr is no option of this bundle"),
    "nested, a component": (
        {"network_def#conv": "x"},
        "is no option of monai.networks.nets.FlexibleUNet; it has in_channels, out_",
    ),
    "nested, near": ({"network_def#in_channel": 1}, "did you mean in_channels?"),
    "nested, two deep": (
        {"train#trainer#max_epoch": 1},
        "no option of monai.engines.SupervisedTrainer; did you mean max_epochs?",
    ),
    "nested, in a list": ({"train#handlers#0#iteration_lo": 1}, "did you mean iteration_log?"),
    "free, near": ({"free#pair_of_name": 1}, "did you mean pair_of_names?"),
    "text for a number": ({"max_epochs": "abc"}, "max_epochs is 'abc'; expected a whole number, as 8."),
    "half an epoch": ({"max_epochs": 2.5}, "expected a whole number"),
    "truth for a number": ({"max_epochs": True}, "expected a whole number"),
    "text for a rate": ({"learning_rate": "1e-3x"}, "learning_rate is '1e-3x'; expected a number, as 0.003."),
    "text for truth": ({"resume": "false"}, "resume is 'false'; expected True or False."),
    "two of three": ({"roi_size": [96, 96]}, "roi_size is [96, 96]; expected 3 numbers, as [96, 96, 8]."),
    "one of three": ({"roi_size": 96}, "roi_size is 96; expected 3 numbers"),
    "text in numbers": ({"roi_size": [96, 96, "a"]}, "expected 3 numbers"),
    "null": ({"dataset_dir": "null"}, "dataset_dir is 'null', a text on the command line; nothing is written '$None'."),
    "nothing": ({"pixdim": "$None", "intensity": "$None"}, None),
    "nested value": ({"network_def#in_channels": "one"}, "network_def#in_channels is 'one'; expected a whole"),
}


# words of version 0.1, which said the layer and the way to fill it in one
FORMER = {
    "i3d": "i3d is no convolution: conv: conv, inflate: i3d.",
    "center": "center is no convolution: conv: conv, inflate: center.",
    "centre": "centre is no convolution: conv: conv, inflate: center.",
    "bank": "bank is no convolution: conv: conv, inflate: bank.",
    "conv3d": "conv3d is no convolution: conv: conv, weights_2d: null (--weights_2d '$None').",
}


def override(given):
    parser = ConfigParser(json.loads(json.dumps(CONFIG)))
    for name, value in given.items():
        parser[name] = value
    parser.parse()
    return parser.get()


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_checked(case):
    given, expected = OPTIONS[case]
    given = {name: value for name, value in given.items() if name not in ("run_id", "meta_file")}
    found = find_faults(override(given), given, CONFIG)
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


@pytest.mark.parametrize("word", [*FORMER, "conv", "acs"])
def test_words_that_conv_took_before_name_those_of_now(word):
    found = find_faults(override({"conv": word}), {"conv": word}, CONFIG)
    assert found == ([FORMER[word]] if word in FORMER else [])


@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_none_of_the_command_line_is_not_left_out_in_silence(write):
    path = write({**CONFIG, "initialize": [CONFIG["initialize"][0], CONFIG["initialize"][1]]})
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=path, workflow_type=None, dataset_dir=None, pixdim=None)
    expected = "dataset_dir is None, which MONAI leaves out on the command line; nothing is written '$None'."
    assert str(caught.value.__cause__) == expected


def test_every_fault_is_named():
    given = {"convv": 1, "max_epochs": "a", "network_def#conv": 1}
    assert len(find_faults(override(given), given, CONFIG)) == 3


@pytest.fixture
def write(tmp_path):
    def write(config, name="train.json"):
        (tmp_path / name).write_text(json.dumps(config))
        return str(tmp_path / name)

    (tmp_path / "metadata.json").write_text(json.dumps({"version": "1"}))
    return write


@pytest.mark.parametrize("case", [name for name in OPTIONS if name not in ("nested, a component", "nested, near")])
@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_a_bundle_checks_before_anything_is_read(write, case):
    """As `monai.bundle run` and `run_workflow` make it, whose arguments nobody hands on."""
    given, expected = OPTIONS[case]
    path = write({**CONFIG, "initialize": [CONFIG["initialize"][0], "$1/0", CONFIG["initialize"][1]]})
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=path, workflow_type=None, **given)
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError if expected is None else ValueError)
    assert expected is None or expected in str(cause)


@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_names_of_an_overlay_are_its_own(write):
    path, overlay = write(CONFIG), write({"notes": "mine", "evaluating": ["$1"], "unused": 3}, "overlay.json")
    wrong = write({"convv": "acs"}, "wrong.json")
    config = ConfigParser.load_config_files([path, overlay])
    assert not find_faults(config, {}, config)
    config = ConfigParser.load_config_files([path, wrong])
    assert find_faults(config, {}, config) == ["convv is no option of this bundle; did you mean conv?"]
    assert create is create_workflow


@pytest.mark.parametrize(("name", "value", "passes"), [("convv", "acs", False), ("conv", "acs", True)])
def test_a_workflow_without_the_command(write, name, value, passes):
    """As MonaiAlgo makes it."""
    path = write({**CONFIG, "initialize": CONFIG["initialize"][:1], "run": CONFIG["initialize"][1:]})
    workflow = ConfigWorkflow(config_file=path, workflow_type=None, logging_file=False, **{name: value})
    if passes:
        workflow.initialize()
    else:
        with pytest.raises(RuntimeError) as caught:
            workflow.initialize()
        assert str(caught.value.__cause__) == "convv is no option of this bundle; did you mean conv?"


CONFIGS = [path for path in sorted(BUNDLES.glob("*/configs/*")) if path.name not in ("logging.conf", "metadata.json")]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_our_own_configs_hold_no_fault(path):
    alone = path.name in ("train.yaml", "inference.json") or path.name.endswith("_study.yaml")
    parser = ConfigParser()
    base = path.with_name("inference.json" if path.suffix == ".json" else "train.yaml")
    parser.read_config([str(path)] if alone else [str(base), str(path)])
    if path.name.endswith("_study.yaml"):  # no bundle's config, but a study's
        return
    files = parser.get()
    parser.parse()
    assert find_faults(parser.get(), {}, files) == []
