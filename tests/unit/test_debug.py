"""--debug shows no password, wherever it comes from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from test_cli import ROOT, clone, invoke  # noqa: F401 - a fixture

from steps.core.cli.debug import HidePasswords, hide_passwords

SECRET = """corr'ect "horse\\"""


def hidden(text: str) -> str:
    import logging

    record = logging.LogRecord("invoke", logging.DEBUG, "", 0, text, (), None)
    assert HidePasswords().filter(record)
    return record.getMessage()


@given(st.text(alphabet="QWX'\"\\\\{}: ", min_size=1))
def test_hide_passwords_masks_any_password_of_a_dict(password: str) -> None:
    said = hidden(f"Overrides: {{'sudo': {{'password': {password!r}, 'user': 'root'}}, 'run': {{}}}}")
    assert said == "Overrides: {'sudo': {'password': '***', 'user': 'root'}, 'run': {}}"


def test_hide_passwords_leaves_the_rest_as_it_is() -> None:
    text = "Defaults: {'sudo': {'password': None, 'prompt': '[sudo] password: '}, 'timeouts': {'command': 3}}"
    assert hidden(text) == text
    hide_passwords()
    hide_passwords()


def test_debug_hides_sudos_password_of_the_environment(clone: Path) -> None:  # noqa: F811 - the fixture
    for line in ("--debug plugins", "--debug --dry units --node etcd-9"):
        _, out, err = invoke(clone, line, INVOKE_SUDO_PASSWORD=SECRET)
        assert "Environment variable config: {'sudo': {'password': '***'}}" in err
        for part in ("horse", "corr", repr(SECRET)[1:-1]):
            assert part not in out + err


def test_debug_hides_sudos_password_that_was_asked_for(clone: Path) -> None:  # noqa: F811 - the fixture
    env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    words = ["--debug", "--prompt-for-sudo-password", "plugins"]
    done = subprocess.run(
        ["setsid", "--wait", sys.executable, "-m", "invoke", *words],  # no terminal: it is read from stdin
        cwd=clone,
        env={**env, "PYTHONPATH": str(ROOT)},
        input=f"{SECRET}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'password': '***'" in done.stderr
    assert "horse" not in done.stdout + done.stderr
