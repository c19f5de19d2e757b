"""What no fault may touch (CA, data, locks, other writers) and what none may leave (temporary files, scripts)."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from conftest import Writing, Written
from deploy import MANAGED, PROCESS, Deployed, leftovers
from host import Host, each

LOCK = "/run/etcd-steps/lock"
SECONDS = 30  # a killed run's last script may still wait for etcdctl
# A member's data is itself while its directory is: etcd writes in it all the time. At rest its files are, too.
DATA = """
cd /data/etcd 2>/dev/null || exit 0
stat -c 'place %n %i' data/member data/member/snap 2>/dev/null
for f in wal/*.wal; do [ ! -e "$f" ] || stat -c 'place %n %i' wal; break; done
[ "$(systemctl show etcd -P MainPID)" != 0 ] || find . -type f -exec sha256sum {} +
"""
NODE_CA = "sha256sum /etc/etcd/cert/ca.pem 2>/dev/null || true"
SHELLS = "ps -eo pid,args | grep -e 'steps[-][*]' -e 'etcdct[l]' -e 'gzip -d[c]' || true"
# As deploy.FILES, but a directory's times are left out: what is staged in it and removed changes them.
FILES = (
    f"find {MANAGED} -type d -printf '%p %i %m %u:%g\\n' -o -printf '%p %i %m %u:%g %s %T@ %C@ %l\\n' | sort; {PROCESS}"
)
STAGED_ELSEWHERE = "find /tmp -mindepth 1 -maxdepth 1 -name 'tmp.*'"


@dataclass(frozen=True)
class Kept:
    """`ca`: file → digest, on the controller and the hosts; `data`: lines about each host's data."""

    ca: dict[str, str]
    data: dict[str, frozenset[str]]


def kept(cluster: Deployed) -> Kept:
    ca = {str(file): digest(file) for file in sorted((cluster.work / "ca").rglob("*")) if file.is_file()}
    for host, said in zip(cluster.hosts, each(lambda host: host.sh(NODE_CA), cluster.hosts), strict=True):
        if said:
            ca[host.name] = said
    seen = each(lambda host: host.sh(DATA), cluster.hosts)
    return Kept(ca, {host.name: frozenset(said.splitlines()) for host, said in zip(cluster.hosts, seen, strict=True)})


@contextmanager
def intact(cluster: Deployed, writing: Writing | None = None, *, still: Sequence[Host] = ()) -> Iterator[None]:
    """What is done inside leaves CA, data and locks as they were, nothing temporary, and no failed write.

    `writing`: the fixture, where a cluster serves. `still`: hosts on which no managed file or process changes at all.
    """
    before, old = kept(cluster), files(still)
    with writing(**cluster.operator) if writing else nullcontext(None) as written:
        yield
    if written is not None:
        nothing_lost(written)
    touched = [sorted({*was.splitlines()} ^ {*now.splitlines()}) for was, now in zip(old, files(still), strict=True)]
    assert not any(touched), touched
    same(before, kept(cluster))
    tidy(cluster)


def files(hosts: Sequence[Host]) -> list[str]:
    """What we keep on each host, and its living process."""
    return each(lambda host: host.sh(FILES), hosts)


def nothing_lost(written: Written) -> None:
    assert written.result["acknowledged"] > 20, written.result
    assert (written.result["lost"], written.result["missing"]) == (0, 0), written.result


def same(before: Kept, after: Kept) -> None:
    """What was there is there, unchanged; more may have come."""
    for file, was in before.ca.items():
        assert after.ca.get(file) == was, f"{file}: the CA changed"
    for name, lines in before.data.items():
        now = after.data[name]
        assert places(lines) <= places(now), f"{name}: its data is not where it was: {places(lines) - places(now)}"
        at_rest = lines - places(lines)
        if now - places(now):  # and still at rest
            assert at_rest <= now, f"{name}: its data changed: {at_rest - now}"


def places(lines: frozenset[str]) -> frozenset[str]:
    return frozenset(line for line in lines if line.startswith("place "))


def tidy(cluster: Deployed) -> None:
    """No lock is held, no script runs and nothing temporary lies anywhere."""
    free(cluster)
    assert not (left := leftovers(cluster.hosts)), left
    assert not "".join(each(lambda host: host.sh(STAGED_ELSEWHERE), cluster.hosts))
    assert not temporary(cluster.work)
    assert not temporary(cluster.lab.state / "cache")


def free(cluster: Deployed) -> None:
    """Waits until every lock is free and every script has ended; both die with the run, if not in the same instant."""
    end = time.monotonic() + SECONDS
    while held := holding(cluster):
        assert time.monotonic() < end, held


def holding(cluster: Deployed) -> str:
    """Who still holds a lock or runs for us; empty when nobody does."""
    script = f"[ ! -e {LOCK} ] || flock --nonblock {LOCK} true || echo locked by $(cat {LOCK}); {SHELLS}"
    said = each(lambda host: host.sh(script), cluster.hosts)
    held = [f"{host.name}: {what}" for host, what in zip(cluster.hosts, said, strict=True) if what]
    lock = cluster.work / "lock"
    if lock.exists():
        with lock.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.append(f"{lock} is locked")
    return "\n".join(held)


def temporary(folder: Path) -> list[Path]:
    """Half-written files and directories of the controller's."""
    return [path for path in folder.rglob("*") if path.suffix in {".new", ".part", ".tmp"}]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
