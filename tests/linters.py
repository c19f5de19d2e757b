"""Where the linters are: `tests/run --all` installs them, into a venv of their own, for they bring much with them."""

from __future__ import annotations

from pathlib import Path

import pytest

BIN = Path(__file__).parent / "audit" / ".venv" / "bin"


def tool(name: str) -> str:
    """Return the path of a linter, or skip the test where it is not installed."""
    if not (BIN / name).exists():
        pytest.skip("the linters are installed by tests/run --all")
    return str(BIN / name)
