# SPDX-License-Identifier: Apache-2.0
"""Options of a bundle's run, checked before anything is read: MONAI takes every name and every value."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.scripts import create_workflow
from monai.bundle.workflows import ConfigWorkflow
from monai.utils.module import locate

from .._callers import callers

__all__ = ["check_options", "find_faults"]

SEP = ReferenceResolver.sep
# arguments of MONAI's own; what else it looks for, and what its experiment tracking adds
_MONAI = {"config_file", "args_file", "workflow_name", *inspect.signature(ConfigWorkflow.__init__).parameters}
_KNOWN = {
    *("imports", "initialize", "run", "finalize", "bundle_root", ConfigParser.meta_key),
    *("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0", "output_dir"),
    *(str(part["id"]).partition(SEP)[0] for part in (TrainProperties | InferProperties).values()),
}
NULL = "'$None'"  # on the command line: MONAI leaves None out, and null is a text there
# what `conv` took before it said the layer alone
_FORMER = {
    "i3d": "inflate: i3d",
    "center": "inflate: center",
    "centre": "inflate: center",
    "bank": "inflate: bank",
    "conv3d": f"weights_2d: null (--weights_2d {NULL})",
}


@functools.cache
def _locator() -> ComponentLocator:
    return ComponentLocator()


def _shown(path: str) -> str:
    return path.replace(SEP, "#")


def _near(name: str, names: Iterable[str], cutoff: float = 0.7) -> str | None:
    lower = {other.lower(): other for other in names if other != name}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return lower[found[0]] if found else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _parts(config: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every id of a config that names no argument of a component, and its value."""
    for name, value in config.items():
        path = f"{prefix}{name}"
        if path.partition(SEP)[0] != ConfigParser.meta_key:
            yield path, value
            if isinstance(value, Mapping) and not ConfigComponent.is_instantiable(value):
                yield from _parts(value, f"{path}{SEP}")


def _components(value: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
    if ConfigComponent.is_instantiable(value):
        yield path, value
    if isinstance(value, (Mapping, list)):
        for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _components(part, f"{path}{SEP}{name}".removeprefix(SEP))


def _look_up(config: Any, path: str) -> Any:
    """The value at an id, or KeyError."""
    for name in path.split(SEP):
        try:
            config = config[int(name)] if isinstance(config, list) else config[name]
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise KeyError(path) from error
    return config


def _has(config: Any, path: str) -> bool:
    try:
        _look_up(config, path)
    except KeyError:
        return False
    return True


def _deeper(config: Any, name: str, path: str = "") -> Iterator[str]:
    """Ids inside of sections and components whose last part is a name."""
    if isinstance(config, (Mapping, list)):
        for key, part in config.items() if isinstance(config, Mapping) else enumerate(config):
            whole = f"{path}{SEP}{key}".removeprefix(SEP)
            if key == name and path:
                yield whole
            yield from _deeper(part, name, whole)


def _unused(config: Mapping, given: Mapping[str, Any], files: Mapping[str, Any]) -> Iterator[str]:
    """Names that nothing in the config refers to: given ones, and those that resemble one that is used."""
    used = {path for text in _texts(config) for path in ReferenceResolver.match_refs_pattern(text)}
    used = {ReferenceResolver.normalize_id(path) for path in used}
    parents = {SEP.join(path.split(SEP)[:n]) for path in used for n in range(1, path.count(SEP) + 2)}
    known = {path for path, _ in _parts(config) if path in parents or path in _KNOWN}
    for path, value in _parts(config):
        inside = any(path.startswith(other + SEP) for other in used)  # of a dictionary that is used whole
        expressions = isinstance(value, list) and any(str(part).startswith("$") for part in value)  # to be run
        if path in parents or path in _KNOWN or inside or expressions:
            continue
        section, _, name = path.rpartition(SEP)
        beside = [other.rpartition(SEP)[2] for other in known | _MONAI if other.rpartition(SEP)[0] == section]
        is_new = path in given and not _has(files, path)
        # an overlay may leave an option without use, and may have names of its own
        near = _near(name, beside, 0.7 if is_new else 0.85)
        meant = f"{section}{SEP}{near}".removeprefix(SEP) if near else next(_deeper(files, name), None)
        if near or is_new:
            hint = f"did you mean {_shown(meant)}?" if meant else "nothing uses it."
            yield f"{_shown(path)} is no option of this bundle; {hint}"


def _foreign(config: Mapping, given: Mapping[str, Any], files: Mapping[str, Any]) -> Iterator[str]:
    """Arguments that a component does not have."""
    for path, component in _components(config):
        target = component["_target_"]
        if not isinstance(target, str):
            continue
        found = locate(str(ConfigComponent(component, locator=_locator()).resolve_module_name()))
        try:
            parameters: Mapping[str, Any] = inspect.signature(found).parameters
            any_name = any(part.kind is part.VAR_KEYWORD for part in parameters.values())
        except (TypeError, ValueError):  # of C
            parameters, any_name = {}, True
        written = set(_look_up(files, path)) if path and _has(files, path) else set()
        for name in component:
            whole = f"{path}{SEP}{name}"
            if name.startswith("_") or name in parameters or (any_name and (whole not in given or name in written)):
                continue
            near = _near(name, {*parameters, *written})
            if near or not any_name:
                names = ", ".join(parameters)
                hint = f"did you mean {near}?" if near else f"it has {names}."
                yield f"{_shown(whole)} is no option of {target}; {hint}"


def _nothing(given: Mapping[str, Any], files: Mapping[str, Any]) -> Iterator[str]:
    """Values that were meant to be nothing, and do not arrive as that."""
    for path, value in given.items():
        if value == "null" or (value is None and _has(files, path) and _look_up(files, path) is not None):
            arrives = "a text" if value else "which MONAI leaves out"
            yield f"{_shown(path)} is {value!r}, {arrives} on the command line; nothing is written {NULL}."


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _expected(value: Any, old: Any) -> str | None:
    """What should stand in place of a value, where another kind stood in the files; None where it may."""
    if old is None or (isinstance(value, str) and value[:1] in ("$", "@", "%")) or isinstance(old, str):
        return None
    if isinstance(old, bool):
        return None if isinstance(value, bool) else "True or False"
    if isinstance(old, int):
        return None if isinstance(value, int) and not isinstance(value, bool) else f"a whole number, as {old}"
    if isinstance(old, float):
        return None if _number(value) else f"a number, as {old}"
    if isinstance(old, list) and old and all(map(_number, old)):
        fits = isinstance(value, (list, tuple)) and len(value) == len(old) and all(map(_number, value))
        return None if fits else f"{len(old)} numbers, as {old}"
    return None


def find_faults(
    config: Mapping, given: Mapping[str, Any] | None = None, files: Mapping[str, Any] | None = None
) -> list[str]:
    """Finds options that a config cannot mean, in words.

    Args:
        config: of the run, all files merged and overridden.
        given: what was given beside the files, values by id; None where it is not known.
        files: the files alone, merged.

    Returns:
        A sentence for each name that nothing uses (of those in the files only what resembles one that is used), each
        argument that its component does not have, each value of another kind than in the files, and each word that
        is no longer one.

    Example:
        >>> find_faults({"conv": "crossd", "run": ["$print(@conv)"], "convv": "acs"})
        ['convv is no option of this bundle; did you mean conv?']
    """
    given = {ReferenceResolver.normalize_id(name): value for name, value in (given or {}).items()}
    files = files or {}
    faults = [*_unused(config, given, files), *_foreign(config, given, files), *_nothing(given, files)]
    if (conv := config.get("conv")) in _FORMER:
        faults.append(f"{conv} is no convolution: conv: conv, {_FORMER[conv]}.")
    for path, value in given.items():
        expected = _expected(value, _look_up(files, path)) if _has(files, path) else None
        if expected:
            faults.append(f"{_shown(path)} is {value!r}; expected {expected}.")
    return faults


def _variables_of(function: Callable) -> Mapping[str, Any] | None:
    """Variables of the innermost running call of a function."""
    return next((frame.f_locals for frame in callers() if frame.f_code is function.__code__), None)


def check_options() -> None:
    """Raises where a running bundle was given an option that it does not have, or a value of another kind.

    Call it first in a bundle's ``initialize``.

    Raises:
        ValueError: When there is such an option; each is named, with the nearest name or what was expected.
        RuntimeError: When no bundle is running.

    Example:
        .. code-block:: yaml

            initialize:
            - "$monai_crossd.training.check_options()"
    """
    running = _variables_of(ConfigParser.get_parsed_content)
    if running is None:
        raise RuntimeError("No bundle is running: call check_options from a bundle's config.")
    config = running["self"].get()
    outer = _variables_of(create_workflow)
    given, files = None, None
    if outer is not None and "_args" in outer:
        # update_kwargs leaves None out of _args
        given = {name: value for name, value in (outer["kwargs"] | outer["_args"]).items() if name not in _MONAI}
        files = ConfigParser.load_config_files(outer["config_file"]) if outer["config_file"] else None
    if faults := find_faults(config, given, files):
        raise ValueError("\n".join(faults))
