"""A command that is told to end, ends: also where Python drops what the signal raised."""

from __future__ import annotations

import os
import signal

import pytest
from clusters import on_hosts

from steps.core.cli.executor import _signals
from steps.core.transport.pool import Hosts


class Deaf:
    """What is raised in its end, Python drops."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.getpid()  # here the handler runs


def test_what_python_drops_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    cluster = on_hosts()
    with _signals() as told:
        hosts = Hosts(cluster, locked=False, told=told)
        assert hosts.each(cluster.nodes, lambda node: node.name) == {node.name: node.name for node in cluster.nodes}
        dying = Deaf()
        del dying
        assert told.is_set()
        with pytest.raises(KeyboardInterrupt):
            hosts.each(cluster.nodes, lambda node: node.name)
    assert "Traceback" not in capfd.readouterr().err


def test_other_errors_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[type[BaseException]] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: heard.append(unraisable.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ValueError

    with _signals() as told:
        dying = Broken()
        del dying
    assert (heard, told.is_set()) == ([ValueError], False)
