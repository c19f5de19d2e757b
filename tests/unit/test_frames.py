"""What nodes answer, cut off, changed and forged: each ends in a result, or in an error that names the node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clusters import on_hosts, on_loopback, seen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.core.base.errors import NodeFailed, Refused, StepsError
from steps.core.base.report import Report
from steps.core.checks import ports
from steps.core.config.model import Cluster, Node
from steps.core.context.nodes import Nodes
from steps.core.doctor import collect
from steps.core.etcd import client, instances
from steps.core.etcd.views import View
from steps.core.node.facts import Look
from steps.core.node.inspect_script import look_script
from steps.core.node.resources import Directory, File, Promise, User
from steps.core.procedures import data_holders
from steps.core.transport.shell_session import Result, Session, SessionError

NAME = "etcd-1"
RECORDED = Path(__file__).with_name("etcdctl")


class Answering:
    """Hosts of which each answers every script with the same words."""

    def __init__(self, words: str) -> None:
        self._words = words

    def run(self, _node: Node, _script: str, **_how: Any) -> Result:
        return Result(0, self._words, "")


def asked(cluster: Cluster, words: str) -> Any:
    return Nodes(cluster, Answering(words), Report(), dry=True)  # type: ignore[arg-type]


def names_the_node(work: Callable[[], object]) -> None:
    try:
        work()
    except StepsError as error:
        assert NAME in error.message  # noqa: PT017 - no error is fine as well


def said(script: str) -> bytes:
    run = ["sh", "-c", script]
    return subprocess.run(run, env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, capture_output=True, check=True).stdout


def looked_at() -> bytes:
    """A real look at this machine, and behind it what only a host with systemd says."""
    cluster = on_loopback()
    resources = [File("/etc/hostname", Promise("")), File("/etc/hosts", Promise("")), Directory("/etc"), User("root")]
    here = said(look_script(cluster, cluster.nodes[0], resources))
    unit = "LoadState=loaded\nMainPID=812\nNRestarts=3\nExecStart={ path=/usr/local/bin/etcd ; argv[]=a=b }"
    argv = "/usr/local/bin/etcd\n--name=etcd-1\n"
    more = (
        f"systemd=252\nunit {len(unit)}\n{unit}\nprocess 812 {'a' * 64} 1700000000 {len(argv)}\n{argv}\n"
        "stranger /etc\nx\nstate 3 done\nlink /l\nlinks\n/etc\nwalhead= 00 01 02\nliving=same\nversion=3.5.16\n"
    )
    return more.encode() + here


LOOKS = looked_at()


def framed(words: str, text: str) -> str:
    return f"{words} {len(text.encode())}\n{text}\n"


INSTANCES = framed("etcd 812", "exe /usr/bin/etcd\nword --name=a\ngroup 0::/a.service\n.") + framed("etcd 9", ".")
PARTS = {
    "state": "state running 5\n",
    "log": "",
    "etcd": framed("answer status 0", "[]"),
    "others": "pid 7 (backup)\n",
    "instances": INSTANCES,
    "owners": "other:x /var/lib/etcd/wal\n",
}
WORDS = [b"0", b"-1", b"7", b"99999999999999999999", b"", b" ", b"\n", b"\t", b"\xff", b"\x00", "\u0663".encode(), b"x"]


@st.composite
def mutated(draw: st.DrawFn, answer: bytes) -> str:
    """`answer`, cut off, or with some spans removed, repeated, replaced or taken from elsewhere in it."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(answer)))
        end = draw(st.integers(start, min(len(answer), start + 60)))
        kind = draw(st.sampled_from(["cut", "removed", "repeated", "word", "bytes", "moved"]))
        if kind == "cut":
            answer = answer[:start]
        elif kind == "moved":
            at = draw(st.integers(0, len(answer)))
            answer = answer[:at] + answer[start:end] + answer[at:]
        else:
            new = {"removed": st.just(b""), "repeated": st.just(answer[start:end] * 2)}
            new |= {"word": st.sampled_from(WORDS), "bytes": st.binary(max_size=9)}
            answer = answer[:start] + draw(new[kind]) + answer[end:]
    return answer.decode("utf-8", "surrogateescape")


@st.composite
def spoilt(draw: st.DrawFn, answer: bytes) -> str:
    """`answer` with one of its words replaced: most of what a parser reads is short among long texts."""
    words = answer.split(b" ")
    lines = answer.split(b"\n")
    if draw(st.booleans()):
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(WORDS))
        return b" ".join(words).decode("utf-8", "surrogateescape")
    at = draw(st.integers(0, len(lines) - 1))
    head = lines[at].split(b"=")[0].split(b" ")
    head[-1] = draw(st.sampled_from(WORDS))
    lines[at] = draw(st.sampled_from([b" ".join(head), b"=".join([lines[at].split(b"=")[0], head[-1]]), b""]))
    return b"\n".join(lines).decode("utf-8", "surrogateescape")


def hostile(answer: bytes) -> st.SearchStrategy[str]:
    return mutated(answer) | spoilt(answer)


often = settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])


@often
@given(words=hostile(LOOKS), listing=st.booleans(), systemd=st.booleans())
def test_look_at_whatever_answer_ends_in_a_look_or_names_the_node(words: str, *, listing: bool, systemd: bool) -> None:
    cluster = on_hosts() if systemd else on_loopback()
    resources = [File("/etc/hostname", Promise("")), Directory("/etc"), User("root")]
    ctx = asked(cluster, words)

    def work() -> None:
        look = ctx.look_at(cluster.node(NAME), resources, listing=listing)
        assert isinstance(look, Look)
        assert look.facts.clock is not None

    names_the_node(work)


CUTS = {
    "at once": 0,
    "after a byte": 1,
    "early": 100,
    "half": len(LOOKS) // 2,
    "late": len(LOOKS) - 300,
    "at the end": len(LOOKS) - 2,
}


@pytest.mark.parametrize("at", CUTS.values(), ids=CUTS)  # a look is not equally long in each of xdist's processes
def test_look_at_answer_that_is_cut_off_is_refused(at: int) -> None:
    cluster = on_loopback()
    with pytest.raises(Refused, match="etcd-1: looking at it failed: "):
        asked(cluster, LOOKS[:at].decode("utf-8", "surrogateescape")).look_at(cluster.node(NAME))


@often
@given(words=hostile("".join(framed(f"part {name}", text) for name, text in PARTS.items()).encode()))
def test_doctors_case_of_whatever_answer_ends_in_evidence(words: str) -> None:
    cluster = on_hosts()
    names_the_node(lambda: collect.examined(asked(cluster, words), cluster.node(NAME)))


@often
@given(words=hostile(INSTANCES.encode()))
def test_instances_of_whatever_answer_end_in_some_or_name_the_node(words: str) -> None:
    cluster = on_hosts()
    node = cluster.node(NAME)
    names_the_node(lambda: asked(cluster, words).answer(node, instances.script(), instances.parse))


@often
@given(words=hostile(b"pid 812 (etcd)\npid 9 (back up)\n"))
def test_refuse_held_of_whatever_answer_names_the_node(words: str) -> None:
    cluster = on_hosts()
    names_the_node(lambda: data_holders.refuse_held(asked(cluster, words), cluster.node(NAME)))


@often
@given(words=hostile(b"11 pid 812 (etcd)\n12 pid 9 (back up)\n"))
def test_ports_of_whatever_answer_are_said_or_name_the_node(words: str) -> None:
    cluster = on_hosts()
    look = seen(on_hosts(), listening={2379: (("0", "11"),), 2380: (("0", "12"),)})
    names_the_node(lambda: list(ports.ports(asked(cluster, words), cluster.node(NAME), look)))


@often
@given(words=st.sampled_from(sorted(RECORDED.glob("*.txt"))).flatmap(lambda file: hostile(file.read_bytes())))
def test_etcdctls_answers_whatever_they_are_never_raise(words: str) -> None:
    assert isinstance(client.parse(words), View)


class Pipe:
    """A shell on a hostile host: it says `words`, in which TOKEN is the session's token."""

    def __init__(self, words: bytes) -> None:
        self._words, self._sent = words, b""

    def send(self, data: bytes) -> None:
        self._sent += data

    def recv(self, timeout: float) -> bytes:
        del timeout
        said, self._words = self._words.replace(b"TOKEN", self._sent.split(b"\n")[0]), b""
        return said

    def close(self) -> None: ...


@often
@given(words=hostile(b"ready\nhello\n\nTOKEN 0 3\nerr"))
def test_session_whatever_the_shell_says_ends_in_a_result_or_a_session_error(words: str) -> None:
    session = Session(Pipe(words.encode("utf-8", "surrogateescape")))
    try:
        result = session.run("true", deadline=5)
    except SessionError:
        return
    assert 0 <= result.code <= 999


def test_answer_that_cannot_be_read_is_the_nodes_failure() -> None:
    cluster = on_hosts()
    with pytest.raises(NodeFailed, match=r"^etcd-1: its answer cannot be read: "):
        asked(cluster, "etcd 7 900\nexe\n").answer(cluster.node(NAME), instances.script(), instances.parse)
