"""The log of runs: what is kept, how long, and what a killed run leaves."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from invoke import Collection, Context, task
from invoke.executor import Executor
from invoke.parser import Parser
from invoke.tasks import Call

from steps.core.cli.audit_log import KEPT, RunLog, command_line, runs

NS: Collection = runpy.run_path(str(Path(__file__).parents[2] / "tasks.py"))["ns"]


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path / "log", who="ann@desk", command="invoke all", nodes=("etcd-1", "etcd-2"))


def files(folder: Path) -> list[Path]:
    return sorted((folder / "log").iterdir())


def test_a_run_is_read_back(log: RunLog, tmp_path: Path) -> None:
    log.event("change", "units", "etcd-1, etcd-2", "/x is replaced\n  Zürich \udcff")
    log.event("warning", "start", "", "--accept-downtime")
    log.end(1, "etcd-1: start failed\nmore of it")
    (run,) = runs(tmp_path / "log")
    assert (run.run, run.who, run.command, run.nodes) == (log.run, "ann@desk", "invoke all", ("etcd-1", "etcd-2"))
    assert (run.code, run.changes, run.result) == (1, 1, "exit 1: etcd-1: start failed")
    assert run.error == "etcd-1: start failed\nmore of it"
    assert run.seconds is not None
    assert 0 <= run.seconds < 10
    change, warning = run.events
    assert (change["step"], change["node"]) == ("units", "etcd-1, etcd-2")
    assert change["what"] == "/x is replaced\n  Zürich \udcff"
    assert warning["event"] == "warning"


def test_a_run_without_an_end_is_no_success(log: RunLog, tmp_path: Path) -> None:
    log.event("change", "certs", "etcd-1", "made")
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes() + b'{"event": "end", "co')  # killed in the middle of a line
    (run,) = runs(tmp_path / "log")
    assert (run.code, run.seconds, run.changes) == (None, None, 1)
    assert run.result == "no end: it goes on, or it was killed"


def test_it_is_for_its_owner_alone(log: RunLog, tmp_path: Path) -> None:
    (file,) = files(tmp_path)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [json.loads(line)["event"] for line in file.read_text().splitlines()] == ["start"]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(KEPT + 5):
        (folder / f"20200101-{number:06}-7.jsonl").write_text('{"event": "start"}\n')
    log = RunLog(folder, who="", command="", nodes=())
    names = [file.stem for file in files(tmp_path)]
    assert len(names) == KEPT
    assert (names[0], names[-1]) == ("20200101-000006-7", log.run)
    assert next(runs(folder)).run == log.run


def calls(*words: str) -> list[Call]:
    contexts = Parser(contexts=NS.to_contexts()).parse_argv(list(words))
    return Executor(NS).normalize([context for context in contexts if context.name])


@pytest.mark.parametrize(
    "line",
    [
        "invoke all",
        "invoke start --node etcd-2 --node etcd-3 --accept-downtime",
        "invoke certs --renew units",
        "invoke stop --yes 'it'\"'\"'s'",
    ],
)
def test_the_command_line_stands_there_with_its_overrides(line: str) -> None:
    import shlex

    assert command_line(calls(*shlex.split(line)[1:])) == line


def test_values_of_foreign_tasks_do_not() -> None:
    @task
    def login(_c: Context, password: str = "") -> None:
        del password

    assert command_line([Call(login, kwargs={"password": "hunter2"})]) == "invoke login"
