"""Asking etcd: etcdctl scripts as text, and what they answer as data. Everything runs under `env -i` with deadlines."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from steps.core.base.frames import Answer, Damaged, head
from steps.core.base.shell import call, quoted, text
from steps.core.config.model import Cluster, Node
from steps.core.etcd.views import Alarm, Auth, Member, Status, View
from steps.core.node.guard import ENTER, SAFE

COMMAND_TIMEOUT = 10  # seconds, of one etcdctl command
STATUS_TIMEOUT = 3  # seconds of one endpoint: they are asked in turn, and those that are down must not hide the rest
PROBE_TTL = 20  # seconds, longer than any command: then etcd itself removes what was written as a trial
T = TypeVar("T")
_HEAD = re.compile(r"(answer|said) [a-z]+ [0-9]{1,3}")  # of a frame: which, of what, the exit code
ALARMS = {1: "NOSPACE", 2: "CORRUPT"}  # etcd's api/etcdserverpb/rpc.proto, AlarmType


def ctl(cluster: Cluster, node: Node, *, deadline: int = COMMAND_TIMEOUT + 5) -> str:
    """A shell function `ctl` that runs the node's etcdctl with the node's own certificate; `deadline` in seconds."""
    words = [f"{node.paths.bin}/etcdctl", "--dial-timeout=3s", f"--command-timeout={COMMAND_TIMEOUT}s"]
    if cluster.tls.enabled:
        cert = node.paths.cert
        words += [f"--cacert={cert}/ca.pem", f"--cert={cert}/etcd.pem", f"--key={cert}/etcd-key.pem"]
    return _function(words, deadline)


def _function(words: Sequence[str], deadline: int = COMMAND_TIMEOUT + 5) -> str:
    return f'ctl() {{ timeout {deadline} env -i {quoted(words)} "$@" </dev/null; }}\n'


def own_urls(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """Every client URL that the node's unit listens on: its own address, and loopback."""
    own = cluster.client_url(node)
    if node.ip in ("127.0.0.1", "::1"):
        return (own,)
    scheme = "http" if cluster.tls.plain_loopback or not cluster.tls.enabled else "https"
    return own, f"{scheme}://127.0.0.1:{node.client_port}"


_ASK = text(__file__, "ask.sh")


def asking(etcdctl: Sequence[str], endpoint: str) -> str:
    """Health and member list of an etcd that is not this tool's, by the words of its own etcdctl; `parse` reads it."""
    own = quoted([f"--endpoints={endpoint}"])
    return (
        f"{_function(etcdctl)}{_ASK}ask health {own} -w json endpoint health | also members {own} -w json member list\n"
    )


def version_script(cluster: Cluster, node: Node) -> str:
    """The status of the node's own member alone, for `parse`; nothing where another user than root may change etcdctl.

    That is asked here, for it runs before the preflight has refused such a node.
    """
    words = quoted([f"--endpoints={cluster.client_url(node)}", f"--command-timeout={STATUS_TIMEOUT}s"])
    guard = f"{ENTER}{SAFE}safe {quoted([f'{node.paths.bin}/etcdctl'])} || exit 0\n" if cluster.systemd else ""
    return f"{guard}{ctl(cluster, node)}{_ASK}ask status {words} -w json endpoint status\ntrue\n"


def members_script(cluster: Cluster, node: Node, endpoints: Sequence[str]) -> str:
    """The member list alone, from whichever of `endpoints` answers first; `parse` reads it."""
    words = quoted([f"--endpoints={','.join(endpoints)}", f"--command-timeout={STATUS_TIMEOUT}s"])
    return f"{ctl(cluster, node)}{_ASK}ask members {words} -w json member list\ntrue\n"


def peers_script(cluster: Cluster, node: Node, endpoints: Sequence[str]) -> str:
    """Status and health of other members, asked from `node`; each gets STATUS_TIMEOUT, for most of them are down."""
    some = quoted([f"--endpoints={','.join(endpoints)}", f"--command-timeout={STATUS_TIMEOUT}s"])
    status, health = f"ask status {some} -w json endpoint status", f"also health {some} -w json endpoint health"
    return f"{ctl(cluster, node)}{_ASK}{status} | {health}\n"


def ask_script(cluster: Cluster, node: Node, endpoints: Sequence[str], *, members: bool, probe: str = "") -> str:
    """Status and health of `endpoints`; member list and alarms; with `probe` (a key) a write, a read and hashes."""
    everyone = ",".join(cluster.client_url(each) for each in cluster.nodes)
    some = quoted([f"--endpoints={','.join(endpoints)}"])
    own = quoted([f"--endpoints={cluster.client_url(node)}"])
    asked = [
        f"ask status {some} --command-timeout={STATUS_TIMEOUT}s -w json endpoint status",
        f"also health {some} -w json endpoint health",
    ]
    if members:
        asked += [f"also members {own} -w json member list", f"also alarms {own} -w json alarm list"]
    if not probe:
        return f"{ctl(cluster, node)}{_ASK}{' | '.join(asked)}\n"
    asked.append(f"also lease {own} lease grant {PROBE_TTL}")
    trial = call("trial", f"--endpoints={cluster.client_url(node)}", f"--endpoints={everyone}", probe)
    answers = f"answers=$({' | '.join(asked)})\nprintf '%s\\n' \"$answers\"\n"
    return f"{ctl(cluster, node)}{_ASK}{answers}{trial}"


def hashes_script(cluster: Cluster, node: Node, endpoints: Sequence[str], revision: int) -> str:
    """What each of `endpoints` has as the hash of its data at one revision; `parse` reads it. Only reads."""
    words = quoted([f"--endpoints={','.join(endpoints)}", f"--rev={revision}"])
    return f"{ctl(cluster, node)}{_ASK}ask hashes {words} -w json endpoint hashkv\ntrue\n"


@dataclass(frozen=True)
class _Answer:
    """What one call of etcdctl ended with, printed, and logged."""

    code: int
    out: str
    err: str = ""

    @property
    def wrong(self) -> str:
        """Why it failed; empty where it did not. etcdctl logs first, may answer in part, and ends with `Error: …`."""
        if not self.code:
            return ""
        lines = [line for line in self.err.splitlines() if line.strip() and line[0] != "{"]
        said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return (said or lines or ["no answer"])[-1][:300]

    @property
    def json(self) -> Any:
        """The document that was printed; None where there is none."""
        with suppress(ValueError):
            return json.loads(self.out)
        return None


def auth_script(cluster: Cluster, node: Node) -> str:
    """Whether auth is on, for `parse_auth`: 3.4 cannot be asked for it. Only reads.

    Where auth is off, etcd ignores the login of a user that does not exist; else it refuses that.
    """
    words = quoted([f"--endpoints={cluster.client_url(node)}", f"--user=etcd-steps:{secrets.token_hex(8)}"])
    return f"{ctl(cluster, node)}{_ASK}ask login {words} -w json get --keys-only etcd-steps\ntrue\n"


def move_leader_script(cluster: Cluster, node: Node, to: str) -> str:
    """Has the node's own member, which leads, make the member `to` (an ID) the leader; ends where that fails."""
    words = quoted([f"--endpoints={cluster.client_url(node)}", "move-leader", to])
    return f"{ctl(cluster, node)}ctl {words} >&2 || exit 1\n"


def snapshot_script(cluster: Cluster, node: Node, seconds: int) -> str:
    """Saves the data of the node's member in at most `seconds`, prints the file, and removes it."""
    words = quoted([f"--endpoints={cluster.client_url(node)}", f"--command-timeout={seconds}s", "snapshot", "save"])
    return (
        ctl(cluster, node, deadline=seconds)
        + "d=$(mktemp -d /var/tmp/etcd-steps.XXXXXX) || exit 1; trap 'rm -rf \"$d\"' EXIT\n"
        + f'ctl {words} "$d/db" >&2 && cat "$d/db"\n'
    )


def parse_auth(output: str) -> Auth:
    """Reads what auth_script printed. Never raises: what cannot be read leaves it unknown."""
    login = _answers(output)[0].get("login")
    if login is None:
        return Auth(None, "no answer")
    if not login.code:
        return Auth(on=False)
    return Auth(True if "authentication failed" in login.err else None, login.wrong)


def parse(output: str) -> View:
    """Reads what ask_script printed. Never raises: what cannot be read counts as not answered."""
    answers, wrote = _answers(output)
    errors = {name: answer.wrong for name, answer in answers.items() if answer.code}
    nothing = _Answer(1, "")
    alarms = answers.get("alarms", nothing).json
    if "alarms" in answers and not isinstance(alarms, dict):
        errors.setdefault("alarms", "no answer")
    statuses = {status.endpoint: status for status in _read(answers.get("status", nothing).json, _status)}
    written = ""
    if "put" in answers or (statuses and "lease" in errors):
        read = answers.get("read", nothing)
        wrong = "" if wrote and read.out == wrote else errors.get("read") or f"read back {read.out!r}"
        written = errors.get("lease") or errors.get("put") or wrong
    return View(
        statuses=statuses,
        health=dict(_read(answers.get("health", nothing).json, _health)),
        members=_members(answers.get("members", nothing).json),
        alarms=tuple(_read(alarms.get("alarms"), _alarm)) if isinstance(alarms, dict) else (),
        hashes=dict(_read(answers.get("hashes", nothing).json, _hash)),
        written=written,
        errors=errors,
    )


def _answers(output: str) -> tuple[dict[str, _Answer], str]:
    """The framed answers by name, and the value that was written as a trial."""
    answers: dict[str, _Answer] = {}
    wrote, rest = "", Answer(output)
    while rest:
        line = rest.line()
        found = head(line)
        if line.startswith("wrote="):
            wrote = line.removeprefix("wrote=")
        if found is None or not _HEAD.fullmatch(" ".join(found.words)):
            continue
        what, name, code = found.words
        try:
            content = rest.text(found.size)
        except Damaged:
            break  # this and what follows counts as not answered
        if what == "answer":
            answers[name] = _Answer(int(code), content)
        elif name in answers:
            answers[name] = replace(answers[name], err=content)
    return answers, wrote


def _read(items: object, one: Callable[[Any], T]) -> Iterator[T]:
    """Those of a list that look as they should."""
    for item in items if isinstance(items, list) else ():
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            yield one(item)


def _hex(number: int) -> str:
    return f"{number:x}"


def _status(raw: Mapping[str, Any]) -> Status:
    status = raw["Status"]
    header = status["header"]
    return Status(
        endpoint=raw["Endpoint"],
        id=_hex(header["member_id"]),
        cluster_id=_hex(header["cluster_id"]),
        leader=_hex(status.get("leader", 0)),
        version=status["version"],
        revision=header.get("revision", 0),
        raft_index=status.get("raftIndex", 0),
        applied=status.get("raftAppliedIndex", 0),
        learner=status.get("isLearner", False),
        db_size=status.get("dbSize", 0),
        errors=tuple(status.get("errors") or ()),
    )


def _health(raw: Mapping[str, Any]) -> tuple[str, str]:
    return str(raw["endpoint"]), "" if raw["health"] is True else str(raw.get("error") or "no reason given")


def _members(document: object) -> tuple[Member, ...] | None:
    found = document.get("members") if isinstance(document, dict) else None
    return tuple(_read(found, _member)) if isinstance(found, list) else None


def _member(raw: Mapping[str, Any]) -> Member:
    return Member(
        id=_hex(raw["ID"]),
        name=raw.get("name", ""),
        peer_urls=tuple(raw.get("peerURLs") or ()),
        client_urls=tuple(raw.get("clientURLs") or ()),
        learner=raw.get("isLearner", False),
    )


def _hash(raw: Mapping[str, Any]) -> tuple[str, int]:
    return str(raw["Endpoint"]), int(raw["HashKV"]["hash"])


def _alarm(raw: Mapping[str, Any]) -> Alarm:
    number = raw.get("alarm", 0)
    return Alarm(ALARMS.get(number, f"number {number}"), _hex(raw.get("memberID", 0)))
