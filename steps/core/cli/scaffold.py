"""The files that `invoke plugin.new` writes, from the templates next to this module."""

from __future__ import annotations

import re
from pathlib import Path

from steps.core.base.errors import Refused, UsageError
from steps.core.node.render import render

TEMPLATES = Path(__file__).with_name("templates")


def written(folder: Path, name: str, kind: str, *, dry: bool = False) -> tuple[Path, Path]:
    """Writes `folder`/NAME.py and `folder`/tests/test_NAME.py. Raises UsageError, and Refused where one is there.

    `dry`: writes nothing.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        raise UsageError(f"{name!r} cannot name a plugin: a-z and 0-9, a letter first")
    files = (folder / f"{name}.py", folder / "tests" / f"test_{name}.py")
    for file in files:
        if file.exists():
            raise Refused(f"{file} exists and is not written over", hint="take another name")
    if dry:
        return files
    for file, template in zip(files, (f"{kind}.py.j2", f"test_{kind}.py.j2"), strict=True):
        text = render(template, [TEMPLATES], name=name, **{"class": name.capitalize()})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return files
