# SPDX-License-Identifier: Apache-2.0
"""docs/api.md, made of docstrings: `python docs/make_api.py`.

What `monai_crossd` itself exports stands there in full, the names of its parts with the first line of their docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path
from types import ModuleType

import monai_crossd

HEAD = """# API

Made by `python docs/make_api.py` from docstrings; `help(name)` shows the arguments of the names in the tables below.
"""
SECTIONS = ("Args", "Attributes", "Example", "Examples", "Raises", "References", "Returns", "Shape", "Yields")


def parts() -> list[ModuleType]:
    """Public modules of the package that say what they export, after the package itself."""
    names = [f"monai_crossd.{found.name}" for found in pkgutil.iter_modules(monai_crossd.__path__)]
    modules = [importlib.import_module(name) for name in names if not name.rpartition(".")[2].startswith("_")]
    return [monai_crossd, *(module for module in modules if getattr(module, "__all__", None))]


def exported(module: ModuleType) -> dict[str, object]:
    """Functions and classes that a module exports, by name."""
    values = {name: getattr(module, name) for name in sorted(module.__all__)}
    return {name: value for name, value in values.items() if inspect.isclass(value) or inspect.isfunction(value)}


def docstring(value: object) -> str:
    """Docstring of its own, not one of a base class."""
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return inspect.cleandoc(own or "")


def first_line(value: object) -> str:
    """First sentence or paragraph of a docstring, in one line."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(docstring(value).partition("\n\n")[0].split()))


def signature(name: str, value: object) -> str:
    """As it is called: without annotations, which are long, and without a class's `self`."""
    parameters = inspect.signature(value).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return name + str(inspect.Signature(bare))


def markdown(text: str) -> str:
    """A docstring in Google's style."""
    heading = re.compile(rf"^({'|'.join(SECTIONS)}):$", re.MULTILINE)
    opening, *sections = heading.split(text)
    blocks = [opening.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        body = textwrap.dedent(body.strip("\n")).rstrip()
        if title.startswith("Example"):
            blocks.append(f"```python\n{body}\n```")
        elif title in ("Args", "Attributes", "Raises"):
            items = re.sub(r"^(\S.*?):(?=\s)", r"- `\1`:", body, flags=re.MULTILINE)
            blocks.append(f"*{title}*\n\n" + re.sub(r"^ {4}", "  ", items, flags=re.MULTILINE))
        else:
            blocks.append(f"*{title}*: {body}")
    return "\n\n".join(blocks)


def page() -> str:
    """The whole page."""
    blocks, shown = [HEAD], []
    for module in parts():
        names = {name: value for name, value in exported(module).items() if value not in shown}
        shown += names.values()
        if not names:
            continue
        blocks.append(f"## {module.__name__}\n\n{first_line(module)}\n")
        if module is monai_crossd:
            for name, value in names.items():
                blocks.append(f"### {name}\n\n`{signature(name, value)}`\n\n{markdown(docstring(value))}\n")
        else:
            rows = "\n".join(f"| `{name}` | {first_line(value)} |" for name, value in names.items())
            blocks.append(f"| name | what it is |\n|---|---|\n{rows}\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    path = Path(__file__).with_name("api.md")
    path.write_text(page(), "utf-8")
    print(path)
