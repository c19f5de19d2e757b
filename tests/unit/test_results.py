"""What tests/run says at its end, and when .ci/run fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "results.py"
PASSED = '<testcase classname="tests.unit.test_x" name="a"/>'
FAILED = '<testcase classname="tests.unit.test_x" name="b"><failure message="no"/></testcase>'
BROKEN = '<testcase classname="tests.unit.test_x" name="c"><error message="no"/></testcase>'
HOST = '<testcase classname="tests.hosts.test_x" name="d"/>'
NO_HOST = '<testcase classname="tests.hosts.test_x" name="e"><skipped message="real hosts need root"/></testcase>'


def said(tmp_path: Path, *cases: str, hosts: bool = False) -> tuple[int, str]:
    file = tmp_path / "results.xml"
    file.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    argv = [sys.executable, SCRIPT, file, *(["--hosts"] if hosts else [])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_was_left_out_is_said_with_its_reason(tmp_path: Path) -> None:
    code, text = said(tmp_path, PASSED, FAILED, BROKEN, NO_HOST, NO_HOST)
    assert (code, text) == (0, "left out: 2 tests: real hosts need root\n1 passed, 2 failed\n")


def test_nothing_left_out(tmp_path: Path) -> None:
    assert said(tmp_path, PASSED, HOST, hosts=True) == (0, "left out: nothing\n2 passed, 0 failed\n")


@pytest.mark.parametrize("cases", [(PASSED,), (PASSED, NO_HOST), (PASSED, HOST, NO_HOST), ()])
def test_hosts_that_did_not_all_run_fail(cases: tuple[str, ...], tmp_path: Path) -> None:
    code, text = said(tmp_path, *cases, hosts=True)
    assert code == 1
    assert "did not all run" in text


def test_no_results_are_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "results.xml"
    file.write_text("")
    done = subprocess.run([sys.executable, SCRIPT, file], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pytest left no results" in done.stderr
