"""What etcd answers, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
class ExpectedMember:
    """A member that there should be. `client_url`: where it answers now, or else where it will."""

    name: str
    peer_url: str
    client_url: str


@dataclass(frozen=True)
class Alarm:
    """`kind`: NOSPACE, CORRUPT, or "number N" of one that is not known by name. `member`: its ID, lower-case hex."""

    kind: str
    member: str

    def __str__(self) -> str:
        return f"{self.kind} on {self.member}"


@dataclass(frozen=True)
class View:
    """What was answered through one node. An endpoint missing in `statuses` did not answer.

    `health`: endpoint → "" or what is wrong. `alarms`: unknown where `errors` has "alarms".
    `members`: None where no member list was given. `errors`: why a call failed, by its name.
    """

    statuses: Mapping[str, Status] = field(default_factory=dict)
    health: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Member, ...] | None = None
    alarms: tuple[Alarm, ...] = ()
    hashes: Mapping[str, int] = field(default_factory=dict)
    written: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Auth:
    """Whether etcd's auth is on; None where that is unknown, and `why` says etcd's own words for it."""

    on: bool | None
    why: str = ""
