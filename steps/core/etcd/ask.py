"""Asking etcd: etcdctl scripts as text, and what they answer as data. Everything runs under `env -i` with deadlines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from steps.core.model import Cluster, Node
from steps.core.node.look_script import quoted

COMMAND_TIMEOUT = 10  # seconds, of one etcdctl command
STATUS_TIMEOUT = 3  # seconds of one endpoint: they are asked in turn, and those that are down must not hide the rest
PROBE_TTL = 20  # seconds, longer than any command: then etcd itself removes what was written as a trial
CLIENT_NAME = "operator"
T = TypeVar("T")
_ANSWER = re.compile(r"answer (?P<name>[a-z]+) (?P<code>[0-9]{1,3}) (?P<size>[0-9]{1,9})")


@dataclass(frozen=True)
class Status:
    """One member's own words. Ids in lower-case hex, as `member list` prints them; `db_size` in bytes."""

    endpoint: str
    id: str
    cluster_id: str
    leader: str
    version: str
    revision: int
    raft_index: int
    applied: int
    learner: bool
    db_size: int
    errors: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool

    @property
    def started(self) -> bool:
        return bool(self.name)


@dataclass(frozen=True)
class View:
    """What was answered through one node. An endpoint missing in `statuses` did not answer.


    `health`: endpoint → "" or what is wrong. `alarms`: "NOSPACE on <member id>". `members`: None where nobody
    answered.
    `errors`: what etcdctl said besides, by command.
    """

    statuses: Mapping[str, Status] = field(default_factory=dict)
    health: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Member, ...] | None = None
    alarms: tuple[str, ...] = ()
    hashes: Mapping[str, int] = field(default_factory=dict)
    written: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)


def ctl(cluster: Cluster, node: Node) -> str:
    """A shell function `ctl` that runs the node's etcdctl with the node's own certificate."""
    words = [f"{node.paths.bin}/etcdctl", "--dial-timeout=3s", f"--command-timeout={COMMAND_TIMEOUT}s"]
    if cluster.tls.enabled:
        cert = node.paths.cert
        words += [f"--cacert={cert}/ca.pem", f"--cert={cert}/etcd.pem", f"--key={cert}/etcd-key.pem"]
    return f'ctl() {{ timeout {COMMAND_TIMEOUT + 5} env -i ETCDCTL_API=3 {quoted(words)} "$@" </dev/null; }}\n'


def own_urls(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """Every client URL that the node's unit listens on: its own address, and loopback."""
    own = cluster.client_url(node)
    if node.ip in ("127.0.0.1", "::1"):
        return (own,)
    scheme = "http" if cluster.tls.plain_loopback or not cluster.tls.enabled else "https"
    return own, f"{scheme}://127.0.0.1:{node.client_port}"


# `also` asks while what stands before it in the pipeline is asking, and answers behind it.
_ASK = """\
ask() { n=$1; shift; o=$(ctl "$@" 2>&1); printf 'answer %s %s %s\\n%s\\n' $n $? ${#o} "$o"; }
also() { b=$(ask "$@"); cat; printf '%s\\n' "$b"; }
"""


def members_script(cluster: Cluster, node: Node, endpoints: Sequence[str]) -> str:
    """The member list alone, from whichever of `endpoints` answers first; `parse` reads it."""
    words = quoted([f"--endpoints={','.join(endpoints)}", f"--command-timeout={STATUS_TIMEOUT}s"])
    return f"{ctl(cluster, node)}{_ASK}ask members {words} -w json member list\ntrue\n"


def ask_script(cluster: Cluster, node: Node, endpoints: Sequence[str], *, members: bool, probe: str = "") -> str:
    """Status and health of `endpoints`; member list and alarms; with `probe` (a key) a write, a read and hashes."""
    everyone = ",".join(cluster.client_url(each) for each in cluster.nodes)
    hashes = f"hashes {quoted([f'--endpoints={everyone}'])} -w json endpoint hashkv"
    some = quoted([f"--endpoints={','.join(endpoints)}"])
    own = quoted([f"--endpoints={cluster.client_url(node)}"])
    asked = [
        f"ask status {some} --command-timeout={STATUS_TIMEOUT}s -w json endpoint status",
        f"also health {some} endpoint health",
    ]
    if members:
        asked += [f"also members {own} -w json member list", f"also alarms {own} alarm list"]
    if not probe:
        return f"{ctl(cluster, node)}{_ASK}{' | '.join(asked)}\n"
    asked.append(f"also lease {own} lease grant {PROBE_TTL}")
    key = quoted([probe])
    return f"""{ctl(cluster, node)}{_ASK}a=$({" | ".join(asked)})
printf '%s\\n' "$a"
case $a in *'"Endpoint"'*) ;; *) exit 0;; esac
# Without a lease (no quorum, no space) nothing can be written.
l=${{a##*answer lease }}; [ "${{l%% *}}" = 0 ] || {{ ask {hashes}; exit 0; }}
l=${{l#*lease }}; l=${{l%% granted*}}; v="$l-$$"
w=$(ask put {own} -w json put --lease="$l" {key} "$v"); printf '%s\\n' "$w"
r=${{w#*\\"revision\\":}}; r=${{r%%[!0-9]*}}
{{ o=$(ctl {own} get --print-value-only {key} 2>&1); [ "$o" = "$v" ] && echo "read=same" || echo "read=$o"
}} | also {hashes} --rev="${{r:-0}}"
"""


def hashes_script(cluster: Cluster, node: Node, endpoints: Sequence[str], revision: int) -> str:
    """What each of `endpoints` has as the hash of its data at one revision; `parse` reads it. Only reads."""
    words = quoted([f"--endpoints={','.join(endpoints)}", f"--rev={revision}"])
    return f"{ctl(cluster, node)}{_ASK}ask hashes {words} -w json endpoint hashkv\ntrue\n"


def parse(output: str) -> View:
    """Reads what ask_script printed. Never raises: what cannot be read counts as not answered."""
    answers: dict[str, tuple[int, str]] = {}
    facts: dict[str, str] = {}
    rest = output
    while rest:
        line, _, rest = rest.partition("\n")
        if header := _ANSWER.fullmatch(line):
            raw, size = rest.encode("utf-8", "surrogateescape"), int(header["size"])
            answers[header["name"]] = (int(header["code"]), raw[:size].decode("utf-8", "surrogateescape"))
            rest = raw[size + 1 :].decode("utf-8", "surrogateescape")
        elif line.startswith("read="):
            facts["read"] = line[5:]
    errors = {name: _last(text) for name, (code, text) in answers.items() if code}
    statuses = {status.endpoint: status for status in _read(_json(answers.get("status")), _status)}
    written = ""
    if "put" in answers or (statuses and "lease" in errors):
        wrong = "" if facts.get("read") == "same" else f"read back {facts.get('read', '')!r}"
        written = errors.get("lease") or errors.get("put") or wrong
    return View(
        statuses=statuses,
        health=_health(answers.get("health", (0, ""))[1]),
        members=_members(answers.get("members")),
        alarms=_alarms(answers.get("alarms", (1, ""))),
        hashes=dict(_read(_json(answers.get("hashes")), _hash)),
        written=written,
        errors=errors,
    )


def _last(text: str) -> str:
    """The line that says why: etcdctl logs first, may answer in part, and ends with `Error: …`."""
    lines = [line for line in text.splitlines() if line.strip() and line[0] not in "[{"]
    said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (said or lines or ["no answer"])[-1][:300]


def _read(items: object, one: Callable[[Any], T]) -> Iterator[T]:
    """Those of a list that look as they should."""
    for item in items if isinstance(items, list) else ():
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            yield one(item)


def _json(answer: tuple[int, str] | None) -> Any:
    """The answer among the lines: etcdctl logs its warnings, JSON too, beside it."""
    for line in (answer or (1, ""))[1].splitlines():
        with suppress(ValueError):
            document = json.loads(line) if line[:1] in "[{" else None
            if isinstance(document, list) or (isinstance(document, dict) and "header" in document):
                return document
    return None


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


def _health(text: str) -> dict[str, str]:
    health = {}
    for line in text.splitlines():
        endpoint, found, reason = line.partition(" is unhealthy: ")
        if found:
            health[endpoint] = reason.removeprefix("failed to commit proposal: ")
        elif " is healthy: " in line:
            health[line.partition(" is healthy: ")[0]] = ""
    return health


def _members(answer: tuple[int, str] | None) -> tuple[Member, ...] | None:
    document = _json(answer)
    return tuple(_read(document.get("members"), _member)) if isinstance(document, dict) else None


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


def _alarms(answer: tuple[int, str]) -> tuple[str, ...]:
    """`memberID:8211f1d0f64f3269 alarm:NOSPACE`, one a line; the id is decimal."""
    alarms = re.findall(r"^memberID:([0-9]+) alarm:(\S+)", answer[1], re.MULTILINE)
    return tuple(f"{alarm} on {_hex(int(member))}" for member, alarm in alarms)
