"""What a command line opens, and that it is closed however the command line ends."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import filelock
import pytest
from invoke.tasks import Call

from steps.core.base.errors import UsageError
from steps.core.base.hints import Hints
from steps.core.cli.invocation import Invocation
from steps.core.cli.project import HouseTask
from steps.core.transport.node_lock import LOCK
from steps.core.transport.pool import Hosts
from steps.program import tasks

ROOT = Path(__file__).parents[2]
NS = tasks(ROOT)
CONFIG = """\
[cluster]
name = "demo"
[etcd]
version = "3.5.16"
[hosts]
transport = "local"
[[nodes]]
name = "etcd-1"
ip = "127.0.0.1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "etcd.toml").write_text(CONFIG)
    return tmp_path / "etcd.toml"


def invocation(file: Path, *names: str, dry: bool = False, **kwargs: Any) -> Invocation:
    calls = [Call(NS[name], kwargs={"config": str(file), **kwargs}) for name in names]
    house = NS[names[0]].house
    return Invocation(house, {}, calls, dry=dry, sudo_password=None, told=Event(), hints=Hints())


def locked(file: Path) -> bool:
    lock = filelock.FileLock(file.parent / ".etcd" / "demo" / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False


def ends(file: Path) -> list[dict[str, Any]]:
    lines = [line for log in (file.parent / ".etcd/demo/log").iterdir() for line in log.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["event"] == "end"]


def test_invocation_opens_once_what_the_end_closes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(Hosts, "close", lambda _hosts: closed.append(locked(file)))
    with invocation(file, "env") as command:
        assert not (file.parent / ".etcd").exists(), "nothing is opened before a task needs it"
        ctx = command.open()
        assert command.open() is ctx
        assert locked(file)
        command.ended(0, "")
    assert closed == [True], "the lock is the last to go"
    assert not locked(file)
    assert [event["code"] for event in ends(file)] == [0]


def test_invocation_that_raises_is_closed_and_its_log_says_a_bug(file: Path) -> None:
    def broken() -> None:
        with invocation(file, "env") as command:
            command.open()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert not locked(file)
    assert [(event["code"], event["error"]) for event in ends(file)] == [(1, "ended by a bug")]


def test_invocation_of_a_dry_run_takes_no_lock_and_writes_no_log(file: Path) -> None:
    with invocation(file, "env", dry=True) as command:
        assert command.open().dry
        assert not command.differs
        assert not locked(file)
    assert not (file.parent / ".etcd" / "demo" / "log").exists()


@pytest.mark.parametrize(
    ("names", "kwargs", "message"),
    [(("plan", "env"), {}, "plan stands alone"), (("env",), {"node": ["etcd-9"]}, "there is no such node")],
)
def test_invocation_that_cannot_be_run_is_refused_when_it_begins(
    file: Path, names: tuple[str, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message), invocation(file, *names, **kwargs):
        pass
    assert isinstance(NS[names[0]], HouseTask)
