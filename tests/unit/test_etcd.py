"""What etcdctl says, read: captured from etcdctl 3.4.23 and 3.5.16 asking three members, and garbage."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import on_hosts, on_loopback
from hypothesis import given
from hypothesis import strategies as st

from steps.core.etcd.ask import View, ask_script, ctl, own_urls, parse
from steps.core.etcd.gate import problems
from steps.core.model import Cluster

CAPTURED = Path(__file__).with_name("etcdctl")
VERSIONS = {"3.4.23": 51179, "3.5.16": 52179}
BY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def captured(version: str, state: str) -> View:
    return parse((CAPTURED / f"{version}-{state}.txt").read_text())


def asked(version: str) -> Cluster:
    return on_loopback(port=VERSIONS[version])


@BY_VERSION
def test_healthy(version: str) -> None:
    view, cluster = captured(version, "healthy"), asked(version)
    urls = [cluster.client_url(node) for node in cluster.nodes]
    assert problems(cluster, view) == []
    assert sorted(view.statuses) == sorted(view.hashes) == urls
    assert view.health == dict.fromkeys(urls, "")
    assert {status.version for status in view.statuses.values()} == {version}
    assert view.members is not None
    assert {member.name: member.peer_urls for member in view.members} == {
        node.name: (cluster.peer_url(node),) for node in cluster.nodes
    }
    ids = {member.id for member in view.members}
    assert ids == {status.id for status in view.statuses.values()}
    assert {status.leader for status in view.statuses.values()} < ids
    assert all(member.started and not member.learner for member in view.members)
    assert len({status.cluster_id for status in view.statuses.values()}) == len(set(view.hashes.values())) == 1
    assert (view.alarms, view.written, view.errors) == ((), "", {})


@BY_VERSION
def test_an_alarm(version: str) -> None:
    """3.4.23 calls an endpoint healthy that has no space left: the alarm list says it, and so does the write."""
    view, cluster = captured(version, "nospace"), asked(version)
    assert view.members is not None
    culprit = view.alarms[0].removeprefix("NOSPACE on ")
    assert culprit in {member.id for member in view.members}
    assert view.written == "failed to grant lease (etcdserver: mvcc: database space exceeded)"
    assert f"alarm NOSPACE on {culprit}" in problems(cluster, view)
    assert all("NOSPACE" in wrong for wrong in view.health.values()) is (version != "3.4.23")


@BY_VERSION
def test_one_member_is_down(version: str) -> None:
    """What etcdctl logs meanwhile, in JSON, and its own complaints stand between the answers."""
    view, cluster = captured(version, "one-stopped"), asked(version)
    first, second, third = (cluster.client_url(node) for node in cluster.nodes)
    assert sorted(view.statuses) == sorted(view.hashes) == [first, second]
    assert view.health[third] == "context deadline exceeded"
    assert view.errors["status"] == f"Failed to get the status of endpoint {third} (context deadline exceeded)"
    assert f"etcd-3 does not answer at {third}: context deadline exceeded" in problems(cluster, view)


@BY_VERSION
def test_no_quorum(version: str) -> None:
    """The member that still lives is seen although two do not answer."""
    view, cluster = captured(version, "no-quorum"), asked(version)
    assert list(view.statuses) == [cluster.client_url(cluster.nodes[0])]
    assert "" not in view.health.values()
    assert view.written
    assert problems(cluster, view)


@BY_VERSION
def test_nobody_answers(version: str) -> None:
    view, cluster = captured(version, "all-stopped"), asked(version)
    assert (view.statuses, view.members, view.hashes, view.alarms) == ({}, None, {}, ())
    assert view.written == "failed to grant lease (context deadline exceeded)"
    assert problems(cluster, view)[-1] == "the member list is not to be had: context deadline exceeded"


def answer(name: str, text: str, code: int = 0) -> str:
    return f"answer {name} {code} {len(text.encode())}\n{text}\n"


def test_a_value_that_does_not_come_back() -> None:
    put = answer("put", '{"header":{"revision":5}}')
    assert parse(put + "read=same\n").written == ""
    assert parse(put + "read=other\n").written == "read back 'other'"
    assert parse(put).written == "read back ''"
    assert parse(answer("put", "Error: etcdserver: request timed out", 1)).written == "etcdserver: request timed out"


def test_a_learner_and_a_member_that_has_not_started() -> None:
    members = '{"header":{},"members":[{"ID":10,"peerURLs":["https://10.0.0.4:2380"],"isLearner":true}]}'
    (member,) = parse(answer("members", members)).members or ()
    assert (member.id, member.started, member.learner, member.client_urls) == ("a", False, True, ())


SHAPES = [
    "[]",
    "[1]",
    "[null]",
    "{}",
    "[{}]",
    '[{"Endpoint":"x","Status":null}]',
    '[{"Endpoint":"x","Status":{"header":{"member_id":"y","cluster_id":1},"version":"3"}}]',
    '[{"Endpoint":"x","HashKV":{"hash":"y"}}]',
    '{"header":{},"members":null}',
    '{"header":{},"members":[7]}',
    "memberID:x alarm:NOSPACE",
    "{",
    "",
]


@pytest.mark.parametrize("text", SHAPES)
def test_an_answer_of_another_shape_is_none(text: str) -> None:
    view = parse("".join(answer(name, text) for name in ("status", "health", "members", "alarms", "put", "hashes")))
    assert (view.statuses, view.health, view.hashes, view.alarms) == ({}, {}, {}, ())
    assert problems(on_loopback(), view), "what cannot be read opens no gate"


@given(said=st.lists(st.binary() | st.sampled_from([b"\n", b"answer ", b"answer x 0 5\n", b"read=", b"status 0 9"])))
def test_garbage_never_raises(said: list[bytes]) -> None:
    parse(b"".join(said).decode("utf-8", "surrogateescape"))


@given(version=st.sampled_from(sorted(VERSIONS)), cut=st.integers(0, 5000), junk=st.binary(max_size=20))
def test_an_answer_that_breaks_off_never_raises(version: str, cut: int, junk: bytes) -> None:
    whole = (CAPTURED / f"{version}-healthy.txt").read_bytes()
    text = (whole[:cut] + junk + whole[cut + len(junk) :]).decode("utf-8", "surrogateescape")
    parse(text)
    parse((whole[:cut] + junk).decode("utf-8", "surrogateescape"))


# -- the scripts --------------------------------------------------------------------------------------------------


def test_etcdctl_gets_an_empty_environment_explicit_endpoints_and_deadlines() -> None:
    cluster = on_hosts()
    script = ask_script(cluster, cluster.nodes[0], ["https://10.0.0.1:2379"], members=True, probe="etcd-steps/verify/x")
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    assert "timeout 15 env -i ETCDCTL_API=3 /usr/local/bin/etcdctl --dial-timeout=3s --command-timeout=10s" in script
    assert "--cacert=/etc/etcd/cert/ca.pem --cert=/etc/etcd/cert/etcd.pem --key=/etc/etcd/cert/etcd-key.pem" in script
    calls = re.findall(r"\b(?:ask|also) ([a-z]+) (\S+)", script)
    assert [name for name, _ in calls] == ["status", "health", "members", "alarms", "lease", "hashes", "put", "hashes"]
    assert all(word.startswith("--endpoints=https://10.0.0.1:2379") for _, word in calls)
    assert "--cluster" not in script


def test_without_tls_there_are_no_certificates() -> None:
    cluster = on_hosts("[tls]\nenabled = false\n")
    assert "cert" not in ctl(cluster, cluster.nodes[0])


def test_every_url_of_the_unit_is_asked() -> None:
    safe, plain = on_hosts(), on_hosts("[tls]\nplain_loopback = true\n")
    assert own_urls(safe, safe.nodes[1]) == ("https://10.0.0.2:2379", "https://127.0.0.1:2379")
    assert own_urls(plain, plain.nodes[1]) == ("https://10.0.0.2:2379", "http://127.0.0.1:2379")
    local = on_loopback()
    assert own_urls(local, local.nodes[0]) == ("https://127.0.0.1:2379",)
    six = replace(safe, nodes=(replace(safe.nodes[0], ip="fd00::1"),))
    assert own_urls(six, six.nodes[0])[0] == "https://[fd00::1]:2379"
