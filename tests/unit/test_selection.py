"""--node narrows: what names no node never means all of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from invoke import Collection
from invoke.exceptions import ParseError
from invoke.parser import Parser
from invoke.tasks import Call

from steps.core.base.errors import UsageError
from steps.core.cli.options import selection

NS: Collection = runpy.run_path(str(Path(__file__).parents[2] / "tasks.py"))["ns"]


def selected(*words: str) -> object:
    contexts = Parser(contexts=NS.to_contexts()).parse_argv(list(words))
    return selection([Call(NS[context.name], kwargs=context.as_kwargs) for context in contexts], "node")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("certs units", None),
        ("certs --node etcd-2", ("etcd-2",)),
        ("certs units --node etcd-2", ("etcd-2",)),
        ("certs --node etcd-2 units --node etcd-2", ("etcd-2",)),
        ("certs --node etcd-2 --node etcd-3", ("etcd-2", "etcd-3")),
        ("certs --node=etcd-2,etcd-3,", ("etcd-2", "etcd-3")),
    ],
)
def test_one_selection_covers_the_command_line(line: str, names: object) -> None:
    assert selected(*line.split()) == names


@pytest.mark.parametrize("line", ["reset --node", "reset --node --yes demo", "status --json --node"])
def test_a_selection_without_a_value_is_refused(line: str) -> None:
    with pytest.raises(ParseError, match="needed value"):
        selected(*line.split())


@pytest.mark.parametrize("value", ["", " ", ","])
def test_a_selection_of_nothing_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--node names nothing"):
        selected("reset", "--node", value)


def test_two_selections_are_refused() -> None:
    with pytest.raises(UsageError, match="etcd-2 and etcd-3"):
        selected("certs", "--node", "etcd-2", "units", "--node", "etcd-3")
