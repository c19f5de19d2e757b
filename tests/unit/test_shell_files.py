"""The shell files that nodes run, and how Python puts words into them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from steps.core.base import digest
from steps.core.base.shell import assigned, call, text
from steps.core.node import apply

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "steps").rglob("*.sh"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_shell_file_is_posix_and_says_what_it_is(file: Path) -> None:
    assert (ROOT / file).read_text().startswith("# shellcheck shell=sh")
    sent = text(str(ROOT / file.with_name("x.py")), file.name)
    assert subprocess.run(["sh", "-n", "-c", sent], check=False).returncode == 0
    assert "\n#" not in sent


def test_call_and_assigned_quote_every_word() -> None:
    script = assigned(A="it's $HOME", B="\n") + 'f() { printf "%s|" "$A" "$B" "$@"; }\n' + call("f", "a b", "$(id)", "")
    assert subprocess.check_output(["sh", "-c", script], text=True) == "it's $HOME|\n|a b|$(id)||"


def test_apply_sh_stages_under_the_name_that_python_tidies() -> None:
    assert f"/{apply.STAGED}$$" in apply._FUNCTIONS
    assert digest.COMMAND == "b2sum -l 256"
