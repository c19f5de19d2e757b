"""What stop and reset share: all nodes are reached first, and a script that fails names node and task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts

from steps.core.base.errors import StepsError
from steps.core.procedures.scripts import end
from steps.core.transport.shell_session import Result

CLUSTER = on_hosts()


def ended(result: Result, *, dry: bool = False) -> list[str]:
    """What is done to whom, in this order."""
    events: list[str] = []

    def sh(node: Any, script: str, deadline: float) -> Result:
        events.append(f"{node.name}: {script} in {deadline} s")
        return result

    ctx: Any = SimpleNamespace(
        dry=dry,
        sh=sh,
        reach=lambda nodes: events.append(f"reach {len(nodes)}"),
        change=lambda message, node: events.append(f"{node.name}: {message}"),
        each=lambda nodes, work: [work(node) for node in nodes],
    )
    end(ctx, CLUSTER.nodes[:2], "stop", lambda node: f"end {node.name}", plan="will be stopped", done="stopped")
    return events


def test_end_reaches_all_nodes_before_the_first_script() -> None:
    first, second = (
        ["etcd-1: end etcd-1 in 150 s", "etcd-1: stopped"],
        ["etcd-2: end etcd-2 in 150 s", "etcd-2: stopped"],
    )
    assert ended(Result(0, "", "")) == ["reach 2", *first, *second]


def test_end_in_a_plan_runs_no_script() -> None:
    assert ended(Result(1, "", ""), dry=True) == ["reach 2", "etcd-1: will be stopped", "etcd-2: will be stopped"]


@pytest.mark.parametrize(("err", "said"), [("no such unit\n", "no such unit"), ("", "exit code 3")])
def test_end_script_that_fails_names_node_task_and_cause(err: str, said: str) -> None:
    with pytest.raises(StepsError, match=f"^etcd-1: stop: {said}$"):
        ended(Result(3, "", err))
