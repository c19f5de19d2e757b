"""What etcdctl says, read: recorded from etcdctl 3.4.23 to 3.7.3 asking three members, and garbage."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import on_hosts, on_loopback
from hypothesis import given
from hypothesis import strategies as st

from steps.core.config.model import Cluster
from steps.core.etcd.client import ask_script, ctl, own_urls, parse
from steps.core.etcd.views import Alarm, View
from steps.core.health.gate import expected, problems
from steps.env import environment

CAPTURED = Path(__file__).with_name("etcdctl")
VERSIONS = {"3.4.23": 51179, "3.5.16": 52179, "3.6.16": 53179, "3.7.3": 54179}
BY_VERSION = pytest.mark.parametrize("version", VERSIONS)


def captured(version: str, state: str) -> View:
    return parse((CAPTURED / f"{version}-{state}.txt").read_text())


def asked(version: str) -> Cluster:
    return on_loopback(port=VERSIONS[version])


@BY_VERSION
def test_healthy(version: str) -> None:
    view, cluster = captured(version, "healthy"), asked(version)
    urls = [cluster.client_url(node) for node in cluster.nodes]
    assert problems(view, expected(cluster)) == []
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
    culprit = view.alarms[0].member
    assert culprit in {member.id for member in view.members}
    assert view.written == "failed to grant lease (etcdserver: mvcc: database space exceeded)"
    assert f"alarm NOSPACE on {culprit}" in map(str, problems(view, expected(cluster)))
    assert all("NOSPACE" in wrong for wrong in view.health.values()) is (version != "3.4.23")


@BY_VERSION
def test_one_member_is_down(version: str) -> None:
    """What etcdctl logs meanwhile, in JSON, and its own complaints stand between the answers."""
    view, cluster = captured(version, "one-stopped"), asked(version)
    first, second, third = (cluster.client_url(node) for node in cluster.nodes)
    assert sorted(view.statuses) == sorted(view.hashes) == [first, second]
    assert view.health[third] == "context deadline exceeded"
    assert view.errors["status"] == f"Failed to get the status of endpoint {third} (context deadline exceeded)"
    assert f"etcd-3 does not answer at {third}: context deadline exceeded" in map(
        str, problems(view, expected(cluster))
    )


@BY_VERSION
def test_no_quorum(version: str) -> None:
    """The member that still lives is seen although two do not answer."""
    view, cluster = captured(version, "no-quorum"), asked(version)
    assert list(view.statuses) == [cluster.client_url(cluster.nodes[0])]
    assert "" not in view.health.values()
    assert view.written
    assert problems(view, expected(cluster))


@BY_VERSION
def test_nobody_answers(version: str) -> None:
    view, cluster = captured(version, "all-stopped"), asked(version)
    assert (view.statuses, view.members, view.hashes, view.alarms) == ({}, None, {}, ())
    assert view.errors["lease"] == "failed to grant lease (context deadline exceeded)"
    assert [str(problem) for problem in problems(view, expected(cluster))[-2:]] == [
        "the member list is not to be had: context deadline exceeded",
        "the alarms are unknown: context deadline exceeded",
    ]


STATES = ("healthy", "nospace", "one-stopped", "no-quorum", "all-stopped")
CALLS = {"members": "member", "alarms": "alarm", "hashes": "hashkv", "read": "get"}  # where the word is another one


def stood_in(folder: Path, version: str, state: str) -> Cluster:
    """A cluster of this machine, etcdctl of its first node answering what was recorded."""
    cluster = on_loopback(folder / "etcd.toml", port=VERSIONS[version])
    binaries = Path(cluster.nodes[0].paths.bin)
    said = binaries / "said"
    said.mkdir(parents=True)
    for call in ("status", "health", "member", "alarm", "lease", "put", "get", "hashkv"):
        (said / f"{call}.err").touch()
        (said / f"{call}.code").write_text("0")
    rest = (CAPTURED / f"{version}-{state}.txt").read_text()
    while frame := re.search(r"^(answer|said) ([a-z]+) (\d+) (\d+)\n", rest, re.MULTILINE):
        size, call = int(frame[4]), CALLS.get(frame[2], frame[2])
        text, rest = rest[frame.end() :][:size], rest[frame.end() + size + 1 :]
        if frame[1] == "answer":
            (said / f"{call}.code").write_text(frame[3])
        if call != "get":  # prints what was put
            (said / (call if frame[1] == "answer" else f"{call}.err")).write_text(text + "\n")
    (binaries / "etcdctl").symlink_to(CAPTURED / "stand-in")
    return cluster


def asked_of_a_stand_in(cluster: Cluster) -> View:
    node = cluster.nodes[0]
    urls = [cluster.client_url(each) for each in cluster.nodes]
    script = ask_script(cluster, node, urls, members=True, probe="etcd-steps/verify/x")
    done = subprocess.run(
        ["sh", "-c", script], env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, capture_output=True, check=True
    )
    assert done.stderr == b""
    return parse(done.stdout.decode())


@pytest.mark.parametrize("state", STATES)
@BY_VERSION
def test_ask_script_reads_what_etcdctl_prints_and_not_what_it_logs(tmp_path: Path, version: str, state: str) -> None:
    assert asked_of_a_stand_in(stood_in(tmp_path, version, state)) == captured(version, state)


@BY_VERSION
def test_ask_script_value_that_does_not_come_back_is_a_failed_write(tmp_path: Path, version: str) -> None:
    cluster = stood_in(tmp_path, version, "healthy")
    said = Path(cluster.nodes[0].paths.bin) / "said"
    (said / "get").write_text("other\n")
    assert asked_of_a_stand_in(cluster).written == "read back 'other'"


def answer(name: str, text: str, code: int = 0, said: str = "") -> str:
    framed = f"answer {name} {code} {len(text.encode())}\n{text}\n"
    return framed + (f"said {name} 0 {len(said.encode())}\n{said}\n" if said else "")


def test_parse_value_read_back_must_be_the_one_written() -> None:
    put = answer("put", '{"header":{"revision":5}}') + "wrote=a-1\n"
    log = '{"level":"warn","msg":"unrecognized environment variable"}'
    assert parse(put + answer("read", "a-1", said=log)).written == ""
    assert parse(put + answer("read", "other")).written == "read back 'other'"
    assert parse(put + answer("read", "", 1, "Error: etcdserver: not capable")).written == "etcdserver: not capable"
    assert parse(put).written == "read back ''"
    failed = answer("put", "", 1, "Error: etcdserver: request timed out")
    assert parse(failed).written == "etcdserver: request timed out"


ALARMED = {
    "none": ('{"header":{"revision":2}}', ()),
    "none in 3.4": ("{}", ()),
    "two kinds": (
        '{"alarms":[{"memberID":161,"alarm":1},{"memberID":178,"alarm":2}]}',
        (Alarm("NOSPACE", "a1"), Alarm("CORRUPT", "b2")),
    ),
    "a new kind": ('{"alarms":[{"memberID":161,"alarm":3}]}', (Alarm("number 3", "a1"),)),
}


@pytest.mark.parametrize(("text", "alarms"), ALARMED.values(), ids=ALARMED.keys())
def test_parse_alarms_are_read_as_json(text: str, alarms: tuple[Alarm, ...]) -> None:
    view = parse(answer("alarms", text))
    assert (view.alarms, view.errors) == (alarms, {})


@pytest.mark.parametrize(
    "asked_for", [answer("alarms", "", 1, "Error: etcdserver: permission denied"), answer("alarms", "x")]
)
def test_problems_alarms_that_could_not_be_asked_open_no_gate(asked_for: str) -> None:
    whole = (CAPTURED / "3.7.3-healthy.txt").read_text()
    found = problems(parse(whole + asked_for), expected(asked("3.7.3")))
    assert [problem.code for problem in found] == ["gate.alarms-unknown"]


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
    "null",
    '{"alarms":[7]}',
    '[{"endpoint":"x"}]',
    "{",
    "",
]


@pytest.mark.parametrize("text", SHAPES)
def test_an_answer_of_another_shape_is_none(text: str) -> None:
    view = parse("".join(answer(name, text) for name in ("status", "health", "members", "alarms", "put", "hashes")))
    assert (view.statuses, view.health, view.hashes, view.alarms) == ({}, {}, {}, ())
    assert problems(view, expected(on_loopback())), "what cannot be read opens no gate"


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
    assert "timeout 15 env -i /usr/local/bin/etcdctl --dial-timeout=3s --command-timeout=10s" in script
    assert "--cacert=/etc/etcd/cert/ca.pem --cert=/etc/etcd/cert/etcd.pem --key=/etc/etcd/cert/etcd-key.pem" in script
    functions, _, composed = script.partition("answers=$(")
    calls = re.findall(r"\b(?:ask|also) ([a-z]+) (\S+)", composed)
    assert [name for name, _ in calls] == ["status", "health", "members", "alarms", "lease"]
    own, all_of_them = "--endpoints=https://10.0.0.1:2379", "https://10.0.0.2:2379,https://10.0.0.3:2379"
    assert all(word.startswith(own) for _, word in calls)
    assert composed.endswith(f"\ntrial {own} {own},{all_of_them} etcd-steps/verify/x\n")
    trial, expected_calls = (
        functions.partition("trial()")[2],
        [("hashes", "2"), ("put", "1"), ("read", "1"), ("hashes", "2")],
    )
    assert re.findall(r'\b(?:ask|also) ([a-z]+) "\$(.)"', trial) == expected_calls
    assert "--cluster" not in script


def test_environment_exports_only_what_every_etcdctl_knows() -> None:
    exported = set(re.findall(r"export (\w+)=", environment(on_hosts())))
    assert exported == {"PATH", *(f"ETCDCTL_{name}" for name in ("ENDPOINTS", "CACERT", "CERT", "KEY"))}


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
