# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys
import warnings

import pytest
from monai.data import Dataset
from monai.transforms import Compose, LoadImaged
from processes import run_module

from monai_crossd.training import claim_folders, messages
from monai_crossd.training.messages import begin_run, unwrapped


def wrap(cause, *texts):
    error = cause
    for text in texts:
        try:
            raise RuntimeError(text) from error
        except RuntimeError as outer:
            error = outer
    return error


@pytest.mark.parametrize(
    ("texts", "at"),
    [
        ((), 0),
        (("Failed to evaluate ConfigExpression: ...",), 0),
        (("applying transform <x>", "Failed to instantiate component 'x'", "Failed to evaluate y"), 0),
        (("x.nii.gz cannot be prepared", "Failed to evaluate y"), 1),
        (("Failed to evaluate y", "our message"), 2),
    ],
)
def test_our_error_is_found_in_those_around_it(texts, at):
    cause = ValueError("the cause")
    errors = [cause]
    for text in texts:
        errors.append(wrap(errors[-1], text))
    assert unwrapped(errors[-1]) is errors[at]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("last", ["last.pt", "none.pt", None])
def test_what_ends_a_run_is_said_last(tmp_path, capsys, kind, last):
    (tmp_path / "last.pt").write_text("")
    try:
        try:
            raise kind("learning_rate is 9; expected less")
        except ValueError as cause:
            raise RuntimeError("Failed to evaluate ConfigExpression") from cause
    except BaseException as error:
        messages._hook(tmp_path / last if last else None)(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert "Failed to evaluate" not in said
    if kind is ValueError:
        assert said.splitlines()[-1] == "ValueError: learning_rate is 9; expected less"
        assert "test_messages.py" in said
    elif last == "last.pt":
        assert said == f"Stopped. The same command with --resume True goes on from {tmp_path / 'last.pt'}.\n"
    elif last:
        assert said == f"Stopped before {tmp_path / 'none.pt'} was written: the same command begins anew.\n"
    else:
        assert said == "Stopped.\n"


def test_other_processes_keep_their_hook(monkeypatch):
    monkeypatch.setattr(messages, "check_options", lambda: None)
    before = sys.excepthook
    with warnings.catch_warnings():
        begin_run("out")
    assert sys.excepthook is before


def test_the_reader_that_nobody_chose_says_nothing(monkeypatch):
    monkeypatch.setattr(messages, "check_options", lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin_run()
        Dataset([], Compose([LoadImaged("image")]))
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["another"]


def test_a_bundle_ends_with_our_message(tmp_path):
    """As a user runs it: the option by its name, the interruption without a traceback."""
    config = {
        "imports": ["$import monai_crossd", "$import os", "$import signal"],
        "conv": "crossd",
        "output_dir": str(tmp_path),
        "initialize": ["$monai_crossd.training.begin_run(@output_dir)", "$print(@conv)"],
        # a shell's background job, as a CI may be, ignores it
        "run": ["$signal.signal(signal.SIGINT, signal.default_int_handler)", "$os.kill(os.getpid(), signal.SIGINT)"],
    }
    (tmp_path / "train.json").write_text(json.dumps(config))
    (tmp_path / "metadata.json").write_text(json.dumps({"version": "1"}))
    command = ["monai.bundle", "run", "--config_file", str(tmp_path / "train.json")]
    done = run_module(*command, "--convv", "acs", folder=tmp_path, apart=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: convv is no option of this bundle; did you mean conv?"
    assert "Failed to evaluate" not in done.stderr
    done = run_module(*command, folder=tmp_path, apart=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Stopped before")


@pytest.mark.parametrize("below", ["file", "file/folder", "file/a/b"])
def test_a_folder_that_cannot_be_made_is_named_before_the_training(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written .*--output_dir and --ckpt_dir") as caught:
        claim_folders(tmp_path / below)
    assert str(tmp_path / below) in str(caught.value)
