"""Whatever ends a command, the terminal is as it was; and an output that cannot be written is no traceback."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyte
import pytest
from ports import free_ports

ROOT = Path(__file__).parents[2]
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"
BARS = re.compile("[━╸╺]|[0-9]:[0-9]{2}:[0-9]{2}")  # rich's bars, and the time next to them

# `slow` shows live rows, and then does what it was told to.
PLUGIN = """\
import time
from pathlib import Path

from invoke import task
from steps.api import StepFailed, hookimpl

@task
def slow(c, end):
    ctx = c.command.open()

    def work(node):
        Path("busy").touch()
        deadline = time.monotonic() + (60 if end == "wait" else 0.3)
        while time.monotonic() < deadline and not ctx.hosts.interrupted:
            time.sleep(0.01)
        if end == "fail":
            raise StepFailed(f"{node.name}: it broke")
        if end == "bug":
            raise RuntimeError("a bug")

    ctx.each(c.command.nodes, work)
    c.command.report.line("came to its end")

@hookimpl
def etcd_tasks():
    return [slow]
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("tasks.py", "invoke.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    nodes = ""
    ports = iter(free_ports(6))
    for number in (1, 2, 3):
        nodes += f'[[nodes]]\nname = "etcd-{number}"\nip = "127.0.0.1"\n'
        nodes += f"client_port = {next(ports)}\npeer_port = {next(ports)}\n"
    head = '[cluster]\nname = "demo"\n[etcd]\nversion = "3.5.16"\n[hosts]\ntransport = "local"\n'
    (tmp_path / "etcd.toml").write_text(head + nodes)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "slow.py").write_text(PLUGIN)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD", "PYTHON", "LC_", "LANG"))}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LANG": "C.UTF-8", **more}


@dataclass
class Shown:
    code: int
    raw: bytes
    screen: pyte.Screen
    unchanged: bool  # the terminal's own settings

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)


def on_terminal(
    clone: Path, line: str, *, columns: int = 80, act: Callable[[subprocess.Popen[bytes], int], None] | None = None
) -> Shown:
    """Runs `invoke LINE` on a terminal; `act` is called once its first live rows are there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    before = termios.tcgetattr(theirs)
    argv = [sys.executable, "-m", "invoke", *line.split()]
    process = subprocess.Popen(
        argv, cwd=clone, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    raw, end = b"", time.monotonic() + 60
    try:
        while process.poll() is None or select.select([ours], [], [], 0.05)[0]:
            assert time.monotonic() < end, raw.decode()
            if select.select([ours], [], [], 0.05)[0]:
                raw += os.read(ours, 1 << 16)
            if act is not None and HIDE in raw and (clone / "busy").exists():
                act(process, ours)
                act = None
    finally:
        process.kill()
        process.wait()
    unchanged = termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
    screen = pyte.Screen(columns, 50)
    screen.set_mode(pyte.modes.LNM)
    pyte.ByteStream(screen).feed(raw)
    return Shown(process.returncode, raw, screen, unchanged)


def as_it_was(shown: Shown) -> bool:
    assert not BARS.search(shown.text), shown.text
    assert shown.raw.rfind(SHOW) >= shown.raw.rfind(HIDE), shown.text
    assert not shown.screen.cursor.hidden
    return shown.unchanged


def signalled(number: signal.Signals) -> Callable[[subprocess.Popen[bytes], int], None]:
    return lambda process, _ours: process.send_signal(number)


ENDS: dict[str, tuple[str, int, Callable[[subprocess.Popen[bytes], int], None] | None]] = {
    "normal": ("slow --end well", 0, None),
    "an error of a step": ("slow --end fail", 1, None),
    "a bug": ("slow --end bug", 1, None),
    "SIGINT": ("slow --end wait", 130, signalled(signal.SIGINT)),
    "SIGTERM": ("slow --end wait", 130, signalled(signal.SIGTERM)),
    "SIGHUP": ("slow --end wait", 130, signalled(signal.SIGHUP)),
    "status": ("status", 5, None),
    "doctor": ("doctor", 5, None),
    "plan": ("plan", 4, None),
    "verify": ("verify", 5, None),
    "stop": ("stop", 0, None),
    "reset": ("reset --yes demo", 0, None),
    "reset without its name": ("reset --yes other", 3, None),
    "start before anything is deployed": ("start --node etcd-1", 3, None),
    "no such node": ("status --node etcd-9", 2, None),
    "no such file": ("status --config nowhere.toml", 2, None),
}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(("line", "code", "act"), ENDS.values(), ids=ENDS)
def test_terminal_after_any_end_is_as_it_was(
    clone: Path, line: str, code: int, act: Callable[[subprocess.Popen[bytes], int], None] | None, columns: int
) -> None:
    shown = on_terminal(clone, line, columns=columns, act=act)
    assert as_it_was(shown)
    assert shown.code == code or line.startswith("start"), shown.text


def test_terminal_after_two_interrupts_is_as_it_was(clone: Path) -> None:
    def twice(process: subprocess.Popen[bytes], _ours: int) -> None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)

    shown = on_terminal(clone, "slow --end wait", act=twice)
    assert as_it_was(shown)
    assert shown.code in (1, 130, -signal.SIGINT)  # the second one may find Python at its end


@pytest.mark.parametrize("columns", [80, 120])
def test_status_on_a_terminal_cuts_no_endpoint(clone: Path, columns: int) -> None:
    file = clone / "etcd.toml"
    port = re.findall(r"client_port = (\d+)", file.read_text())
    shown = on_terminal(clone, "status", columns=columns)
    assert all(f"https://127.0.0.1:{each}" in shown.text for each in port), shown.text
    assert "CERT" in shown.text


# -- outputs that cannot be written -------------------------------------------------------------------------------


def by_shell(clone: Path, line: str, **more: str) -> tuple[int, str]:
    """The exit code and stderr of `invoke LINE`, with the shell's redirections."""
    script = f"{sys.executable} -m invoke {line}"
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=clone,
        env=environment(**more),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    said = (ended.stdout + ended.stderr).decode("utf-8", "surrogateescape")
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    return ended.returncode, said


TASKS = {"status": 5, "doctor": 5, "verify": 5, "plan": 4, "contents": 0, "log": 0, "plugins": 0, "ca": 0, "stop": 0}


@pytest.mark.parametrize("task", [*TASKS, "status --json", "doctor --json"])
def test_stdout_closed_leaves_the_exit_code(clone: Path, task: str) -> None:
    assert by_shell(clone, f"{task} >&-")[0] == TASKS[task.split(maxsplit=1)[0]]


@pytest.mark.parametrize("task", [*TASKS, "status --json", "doctor --json"])
def test_stdout_full_is_a_failure_in_one_line(clone: Path, task: str) -> None:
    code, said = by_shell(clone, f"{task} >/dev/full")
    assert code == 1, said
    assert said.startswith("error: the output cannot be written: No space left on device\n"), said


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_stderr_lost_leaves_the_exit_code(clone: Path, task: str, where: str) -> None:
    assert by_shell(clone, f"{task} {where}")[0] == TASKS[task]


def test_reset_without_stdin_is_not_confirmed(clone: Path) -> None:
    assert by_shell(clone, "reset <&-")[0] == 3


@pytest.mark.parametrize("task", ["status", "plan", "contents"])
def test_a_reader_that_has_gone_ends_the_run_quietly(clone: Path, task: str) -> None:
    script = f"{sys.executable} -m invoke {task} | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment(), capture_output=True, timeout=60, check=False
    )
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr
    assert ended.returncode == 130


PLAIN = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "no coercion": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
ODD = """\
from invoke import task
from steps.api import hookimpl

@task
def odd(c):
    c.command.report.line("Zürich … → \\udcff")
    c.command.report.warn("Zürich …")

@hookimpl
def etcd_tasks():
    return [odd]
"""


@pytest.mark.parametrize("alphabet", PLAIN.values(), ids=PLAIN)
def test_an_ascii_terminal_gets_ascii(clone: Path, alphabet: dict[str, str]) -> None:
    (clone / "plugins" / "odd.py").write_text(ODD, encoding="utf-8")
    for task in ("status", "plan", "contents", "odd", "init --nodes a=10.0.0.1 --out Zürich.toml"):
        code, said = by_shell(clone, task, **alphabet)
        assert code in (0, 4, 5), said
    said = by_shell(clone, "odd", PYTHONIOENCODING="ascii")[1]
    assert "Z\\xfcrich ... -> \\udcff" in said
    assert "Zürich …" in by_shell(clone, "odd")[1]
