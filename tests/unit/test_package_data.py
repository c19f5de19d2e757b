"""What is no Python and stands in the packages must be named in pyproject.toml, or a wheel would lack it."""

from __future__ import annotations

import sys
from pathlib import Path

from test_cli import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_package_data_names_every_file_that_is_no_module() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    named: set[Path] = set()
    for package, patterns in setuptools["package-data"].items():
        folder = ROOT / package.replace(".", "/")
        assert (folder / "__init__.py").exists(), f"{package} is no package"
        for pattern in patterns:
            found = {*folder.glob(pattern)}
            assert found, f"{package}: {pattern} names nothing"
            named |= found
    others = {
        file
        for file in (ROOT / "steps").rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }
    assert others == named
