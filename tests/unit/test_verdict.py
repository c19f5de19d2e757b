"""Healthy, degraded, lost, unhealthy, unknown: what could not be asked is never called unhealthy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_health import FIRST, SECOND, Ctx, asking, own, verified
from views import CLUSTER, FINE, URLS, status

from steps.core.base.errors import NodeFailed, Refused, Unhealthy, Unknown
from steps.core.etcd.views import View
from steps.core.health import health, judge
from steps.core.health.tls_probe import NO_CA, Found
from steps.core.health.verdict import Health
from steps.core.node.service import State
from steps.core.transport.shell_session import Result
from steps.verify import Verify

__all__ = ["asking"]

THIRD = CLUSTER.nodes[2]
NO_LOGIN = {node.name: Refused("root refused the login", node=node.name, hint="check [ssh]") for node in CLUSTER.nodes}
SILENT = View(health={URLS[2]: "connection refused"}, errors={"members": "no answer"})


def headless(number: int) -> View:
    """A member that runs and has no leader."""
    view = own(CLUSTER.nodes[number], FINE)
    (url,) = view.statuses
    return replace(view, statuses={url: status(number, leader="0")}, health={url: "no leader"}, members=None)


@pytest.fixture
def gathered(
    asking: Callable[..., Ctx], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Mapping[str, View | Exception]], Health]:
    """A look at the cluster where `says` is what each node says, "peers" what the speaker says of the others."""

    def made(says: Mapping[str, View | Exception], *, stopped: Sequence[str] = ()) -> Health:
        ctx = asking({name: said for name, said in says.items() if name != "peers"})

        def sh(node: Any, script: str, deadline: float = 0) -> Result:
            del script
            state = "state inactive/dead 0" if node.name in stopped else "state active/running 5"
            return Result(0, f"{node.name}\n{state}\n", "")

        monkeypatch.setattr(ctx.etcd, "status", lambda *_: says.get("peers", View()))
        monkeypatch.setattr(ctx, "sh", sh)
        return health.gather(ctx, CLUSTER.nodes, thorough=False)  # type: ignore[arg-type]  # a stand-in

    return made


CASES: dict[str, tuple[dict[str, View | Exception], Sequence[str], str, bool | None]] = {
    "all answer": ({}, (), "healthy", True),
    "one is stopped": ({"etcd-3": View()}, ("etcd-3",), "degraded", True),
    "two are stopped": (
        {"etcd-1": headless(0), "etcd-2": View(), "etcd-3": View()},
        ("etcd-2", "etcd-3"),
        "lost",
        False,
    ),
    "no host lets us in": (dict(NO_LOGIN), (), "unknown", None),
    "one host does not, its member is confirmed": (
        {"etcd-2": NO_LOGIN["etcd-2"], "peers": own(SECOND, FINE)},
        (),
        "unknown",
        True,
    ),
    "one host does not, its member does not answer": (
        {"etcd-3": NO_LOGIN["etcd-3"], "peers": SILENT},
        (),
        "degraded",
        True,
    ),
    "the one that answers has no leader": (
        {"etcd-1": headless(0), "etcd-2": NO_LOGIN["etcd-2"], "etcd-3": NO_LOGIN["etcd-3"]},
        (),
        "unhealthy",
        None,
    ),
    "an alarm, and a leader all the same": (
        {
            node.name: replace(own(node, FINE), health={URLS[n]: "Active Alarm(s)"})
            for n, node in enumerate(CLUSTER.nodes)
        },
        (),
        "degraded",
        True,
    ),
}


@pytest.mark.parametrize(("says", "stopped", "state", "quorum"), CASES.values(), ids=CASES)
def test_gather_of_what_is_met_returns_its_state(
    gathered: Callable[..., Health],
    says: dict[str, View | Exception],
    *,
    stopped: Sequence[str],
    state: str,
    quorum: bool | None,
) -> None:
    found = gathered(says, stopped=stopped)
    assert (found.state, found.quorum) == (state, quorum), found
    document = json.loads(json.dumps(found.as_json(CLUSTER)))
    assert (document["state"], document["quorum"]) == (state, quorum)
    assert document["healthy"] is (state == "healthy")
    error = found.error("doctor")
    kind = {"healthy": type(None), "unknown": Unknown}.get(state, Unhealthy)
    assert type(error) is kind


def test_gather_confirms_a_member_through_the_others(gathered: Callable[..., Health]) -> None:
    found = gathered({"etcd-2": NO_LOGIN["etcd-2"], "peers": own(SECOND, FINE)})
    (row,) = [member for member in found.members if member.name == "etcd-2"]
    assert (row.role, row.health) == ("follower", "healthy, host not checked")
    assert found.problems == []
    assert found.unknown == ["etcd-2: root refused the login; its member answers etcd-1 and is healthy"]
    error = found.error("doctor")
    assert error is not None
    assert (error.exit_code, error.hint) == (6, "check [ssh]")
    assert "what could be asked is healthy" in error.message


def test_gather_of_logins_that_are_not_root_is_unknown(
    asking: Callable[..., Ctx], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = asking({})
    monkeypatch.setattr(ctx, "sh", lambda *_, **__: Result(0, "uid 1000\n", ""))
    found = health.gather(ctx, CLUSTER.nodes, thorough=False)  # type: ignore[arg-type]  # a stand-in
    assert (found.state, found.problems) == ("unknown", [])
    assert found.unknown[0] == "etcd-1: we are logged in as uid 1000, not as root"
    assert found.hints[0] == "set [ssh] sudo = true, or another [ssh] user"


def test_gather_where_no_host_answers_calls_no_member_unhealthy(gathered: Callable[..., Health]) -> None:
    found = gathered(dict(NO_LOGIN))
    assert {member.health for member in found.members} == {"unknown"}
    error = found.error("doctor")
    assert error is not None
    assert "no member could be asked" in error.message
    assert "does not answer" not in error.message
    assert error.hint == "check [ssh]"


def test_gather_names_what_is_unknown_next_to_what_is_wrong(gathered: Callable[..., Health]) -> None:
    found = gathered({"etcd-2": NO_LOGIN["etcd-2"], "etcd-3": View(), "peers": own(SECOND, FINE)}, stopped=("etcd-3",))
    error = found.error("doctor")
    assert error is not None
    assert error.exit_code == 5
    assert "etcd-3: etcd is not running" in error.message
    assert "not checked: etcd-2: root refused the login" in error.message


# -- verify -------------------------------------------------------------------------------------------------------


def test_verify_without_a_ca_here_is_unknown(asking: Callable[..., Ctx]) -> None:
    ctx = asking(found={node.name: Found(unknown=[NO_CA]) for node in CLUSTER.nodes})
    with pytest.raises(Unknown) as caught:
        Verify().run(CLUSTER, CLUSTER.nodes, ctx)  # type: ignore[arg-type]  # a stand-in
    assert caught.value.message.count("this controller has no CA") == 1
    assert "what could be asked is healthy" in caught.value.message


def test_verify_of_a_plan_that_cannot_ask_is_refused(asking: Callable[..., Ctx]) -> None:
    ctx = asking(dict(NO_LOGIN), dry=True)
    with pytest.raises(Refused):
        Verify().run(CLUSTER, CLUSTER.nodes, ctx)  # type: ignore[arg-type]  # a stand-in


def test_verify_asks_no_plugin_of_a_host_that_was_not_asked(asking: Callable[..., Ctx]) -> None:
    ctx = asking({"etcd-1": NodeFailed("etcd-1", "lost")})
    message, told = verified(ctx)
    assert "etcd-1: lost" in message
    assert told["members"][0]["checked"] is False


def test_quorum_of_a_foreign_cluster_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(judge, "known_id", lambda _cluster: "ff")
    alien = replace(own(FIRST, FINE), statuses={URLS[0]: status(0, cluster_id="ee")})
    running = {node.name: State("active/running", 5) for node in CLUSTER.nodes}
    silent = {node.name: View() for node in CLUSTER.nodes[1:]}
    assert judge.quorum(CLUSTER, {"etcd-1": alien, **silent}, running) is False
