# SPDX-License-Identifier: Apache-2.0
"""Other processes that do not import torch and MONAI anew: forked, all of them, from one that has done so.

Real ones, which can be killed: only the six seconds before the first line of a program are gone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["pytest", "monai.bundle", "monai_crossd.data", "monai_crossd.training"])


def _main(function: Callable, arguments: tuple, folder: str, files: list[str], environment: dict[str, str]) -> None:
    multiprocessing.set_start_method(None, force=True)  # processes of its own start as usual
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    try:
        function(*arguments)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _module(name: str, arguments: tuple[str, ...]) -> None:
    sys.argv, sys.orig_argv = [name, *arguments], [sys.executable, "-m", name, *arguments]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def start(
    function: Callable, *arguments, folder: Path | None = None, log: Path | None = None, errors: Path | None = None
) -> BaseProcess:
    """Starts `function(*arguments)` in a process of its own; its output goes to the end of `log` and of `errors`."""
    files = [str(file) for file in (log, errors or log) if file is not None]
    place = str(folder or Path.cwd()), files, dict(os.environ)
    process = context.Process(target=_main, args=(function, arguments, *place))
    process.start()
    return process


def _code(code: str) -> None:
    sys.path.insert(0, os.getcwd())
    exec(code, {"__name__": "__main__"})


def start_module(name: str, *arguments: str, folder: Path) -> BaseProcess:
    """Starts `python -m name arguments` in the folder."""
    return start(_module, name, arguments, folder=folder, log=Path(os.devnull))


def run_module(name: str, *arguments: str, folder: Path, apart: bool = False) -> subprocess.CompletedProcess[str]:
    """What `python -m name arguments` in the folder gives; `stdout` holds both streams unless they are kept apart."""
    return _run(_module, name, arguments, folder=folder, apart=apart)


def run_code(code: str, folder: Path | None = None) -> str:
    """What `python -c code` in the folder prints."""
    done = _run(_code, code, folder=folder, apart=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(function: Callable, *arguments, folder: Path | None, apart: bool) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile() as log, tempfile.NamedTemporaryFile() as errors:
        files = Path(log.name), Path(errors.name)
        process = start(function, *arguments, folder=folder, log=files[0], errors=files[1] if apart else None)
        process.join(900)
        if process.is_alive():
            process.kill()
            process.join()
        texts = [file.read_text("utf-8") for file in files]
    return subprocess.CompletedProcess(arguments, process.exitcode, *texts)
