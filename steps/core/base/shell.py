"""Shell text: files that stand next to the modules that use them, and quoted words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path


def quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def call(function: str, *words: str) -> str:
    """Return the line that calls a shell function, or a program, with these words."""
    return f"{quoted([function, *words])}\n"


def assigned(**variables: str) -> str:
    """Return the lines that set these shell variables."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


@cache
def text(module: str, name: str) -> str:
    """Return a shell file next to `module` (its __file__), as nodes get it: without the lines that are comments."""
    lines = (Path(module).parent / name).read_text(encoding="utf-8").splitlines()
    return "".join(f"{line.strip()}\n" for line in lines if line.strip() and not line.strip().startswith("#"))
