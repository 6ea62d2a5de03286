# SPDX-License-Identifier: Apache-2.0
"""The config of a bundle's run, kept beside its result."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import yaml
from monai.bundle import ConfigParser
from monai.config import PathLike, get_config_values, get_optional_config_values

from .._callers import callers
from .._replacing import replacing
from .._version import __version__

__all__ = ["save_run_config"]

_before: dict[Path, bytes | None] = {}  # what stood where this process wrote a config; None: nothing


class _Dumper(yaml.SafeDumper):
    """Writes what YAML has no form for, such as a device that a program set, as its text."""


_Dumper.add_multi_representer(object, lambda dumper, value: dumper.represent_str(str(value)))


def running_parser() -> ConfigParser:
    """Parser of the bundle whose expression is being evaluated, with what the command line overrides."""
    for frame in callers():
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
    raise RuntimeError("No bundle is running: call this from a bundle's config.")


def _git_commit() -> str | None:
    """Commit of this package's checkout; None if it was installed without one."""
    folder = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # other git commands may be running
    # a package in an environment inside of somebody else's checkout is not of that checkout
    commands = [
        ["ls-files", "--error-unmatch", Path(__file__).name],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    ]
    text = ""
    for command in commands:
        try:
            done = subprocess.run(["git", *command], cwd=folder, env=environment, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        if done.returncode:
            return None
        text = done.stdout.strip()
    return text


def _environment(config: Mapping[str, Any]) -> dict[str, str]:
    found = {**get_config_values(), **get_optional_config_values()}
    versions = {name: str(version) for name, version in found.items() if "NOT INSTALLED" not in str(version)}
    commit = _git_commit()
    bundle = config.get("_meta_", {})
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "folder": os.getcwd(),
        **({"bundle": f"{bundle.get('name', '')} {bundle['version']}".strip()} if "version" in bundle else {}),
        "monai_crossd": __version__ + (f" (commit {commit})" if commit else ""),
        **versions,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU",
        "processes": str(idist.get_world_size()),
    }


def save_run_config(
    output_dir: PathLike, config: Mapping[str, Any] | ConfigParser | None = None, filename: str = "config.yaml"
) -> Path:
    """Writes the config that a bundle runs with, all files merged and overridden, so that the file runs again.

    Date, command, versions, git commit and device stand in its head as comments. In a distributed run, call it after
    the process group is initialised: the first process writes.

    Args:
        output_dir: folder of the result; it is made.
        config: to write; by default that of the bundle whose config calls this.
        filename: of the file, to tell an evaluation from the training in the same folder.

    Returns:
        Path of the file.

    Raises:
        RuntimeError: When no config is given and no bundle is running.

    Example:
        .. code-block:: yaml

            initialize:
            - "$monai_crossd.training.save_run_config(@output_dir)"
    """
    values: Mapping[str, Any] = (
        running_parser().get() if config is None else config.get() if isinstance(config, ConfigParser) else config
    )
    path = Path(output_dir) / filename
    if idist.get_rank() != 0:
        return path
    head = "".join(f"# {name}: {value}\n" for name, value in _environment(values).items())
    body = {name: value for name, value in values.items() if name != ConfigParser.meta_key}
    text = yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    _before[path.resolve()] = path.read_bytes() if path.is_file() else None
    with replacing(path) as temporary:
        temporary.write_text(head + text, encoding="utf-8")
    return path


def put_back_config(output_dir: PathLike, filename: str = "config.yaml") -> None:
    """Undoes :func:`save_run_config` of this process: the run is refused, and what lies there is of the one before.

    Args:
        output_dir: folder of the result.
        filename: of the file.
    """
    path = (Path(output_dir) / filename).resolve()
    if path not in _before:
        return
    content = _before.pop(path)
    if content is None:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)
