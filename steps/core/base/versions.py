"""What is known of etcd's releases: which are refused, which have defects, and from which a minor upgrade may start.

Sources: etcd-io/etcd, CHANGELOG/CHANGELOG-3.4.md to 3.7.md and the issues named here; etcd-io/website,
docs/v3.6/upgrades and docs/v3.6/op-guide/versioning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Minor(NamedTuple):
    """A minor release, as 3.5; compared as its numbers."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, order=True)
class Version:
    """One version of etcd, compared as its numbers. `suffix` ("-rc.1") is not compared: only releases are deployed."""

    major: int
    minor: int
    patch: int
    suffix: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read 3.5.16 or 3.5.16-rc.1. Raises ValueError where it is no version."""
        found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(.*)", text, re.ASCII | re.DOTALL)
        if found is None:
            raise ValueError(f"{text!r} is no version of etcd")
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4])

    @property
    def series(self) -> Minor:
        """The minor release that it belongs to."""
        return Minor(self.major, self.minor)

    def __str__(self) -> str:
        return f"{self.series}.{self.patch}{self.suffix}"


def is_release(text: str) -> bool:
    """Return whether this is the version of a release: three numbers and nothing else."""
    try:
        return not Version.parse(text).suffix
    except ValueError:
        return False


def series(text: str) -> Minor:
    """Return the minor release of a version: 3.5.16 → 3.5. Raises ValueError where it is none."""
    return Version.parse(text).series


KNOWN = (Minor(3, 4), Minor(3, 5), Minor(3, 6), Minor(3, 7))
END_OF_LIFE = (Minor(3, 4),)  # since 2026-05-15


class Defect(NamedTuple):
    """`patches`: minor release → the first and the last patch release with the defect; a last of None: not fixed."""

    what: str
    source: str
    patches: Mapping[Minor, tuple[int, int | None]]


# With these, data can be lost or corrupted: they are refused.
REFUSED: tuple[Defect, ...] = (
    Defect("members can end up with different data", "etcd-io/etcd#13766", {Minor(3, 5): (0, 2)}),
    Defect("a crash during defragmentation can corrupt the data", "etcd-io/etcd#14733", {Minor(3, 5): (0, 5)}),
    Defect("a new member can get wrong auth data", "etcd-io/etcd#14648", {Minor(3, 5): (5, 5), Minor(3, 4): (20, 21)}),
    Defect(
        "a snapshot applied during defragmentation can corrupt the data", "etcd-io/etcd#20271", {Minor(3, 6): (0, 4)}
    ),
)
# With these, a warning names the release to use. The worst come first.
DEFECTS: tuple[Defect, ...] = (
    Defect(
        "a snapshot applied during defragmentation can corrupt the data",
        "etcd-io/etcd#20271",
        {Minor(3, 4): (0, 37), Minor(3, 5): (0, 22)},
    ),
    Defect("a transaction can be written in part", "etcd-io/etcd#18799", {Minor(3, 5): (0, 16)}),
    Defect("the leader can revoke leases wrongly", "etcd-io/etcd#17425", {Minor(3, 5): (0, 12)}),
    Defect("a watch can lose events after a compaction", "etcd-io/etcd#17612", {Minor(3, 5): (0, 12)}),
    Defect("a watch can miss a delete event", "etcd-io/etcd#19251", {Minor(3, 4): (0, 35), Minor(3, 5): (0, 17)}),
    Defect(
        "a watch on a future revision gets old events",
        "etcd-io/etcd#20286",
        {Minor(3, 4): (0, 37), Minor(3, 5): (0, 21), Minor(3, 6): (0, 1)},
    ),
    Defect("a watch can get wrong events", "etcd-io/etcd#21443", {Minor(3, 6): (0, 8)}),
    Defect(
        "reads can be stale", "etcd-io/etcd#21417", {Minor(3, 4): (0, 41), Minor(3, 5): (0, 27), Minor(3, 6): (0, 8)}
    ),
    Defect("an update of a learner can promote it", "etcd-io/etcd#21694", {Minor(3, 5): (0, 30), Minor(3, 6): (0, 11)}),
    Defect(
        "with auth on, the member list and the alarms need the role root",
        "etcd-io/etcd#21549",
        {Minor(3, 4): (42, 42), Minor(3, 5): (28, 28), Minor(3, 6): (9, 9)},
    ),
    Defect(
        "auth can be bypassed (CVE-2026-33413)",
        "GHSA-q8m4-xhhv-38mg",
        {Minor(3, 4): (0, 41), Minor(3, 5): (0, 27), Minor(3, 6): (0, 8)},
    ),
    Defect(
        "a transaction can read without permission (CVE-2026-44283)",
        "etcd-io/etcd#21681",
        {Minor(3, 4): (0, 43), Minor(3, 5): (0, 29), Minor(3, 6): (0, 10)},
    ),
    Defect(
        "unfinished TLS handshakes can exhaust a member (CVE-2026-73500)",
        "GHSA-6vch-q96h-7gc3",
        {Minor(3, 4): (0, None), Minor(3, 5): (0, 32), Minor(3, 6): (0, 13), Minor(3, 7): (0, 0)},
    ),
    Defect(
        "a watch can see keys without permission",
        "GHSA-xg4h-6gfc-h4m8",
        {Minor(3, 4): (0, None), Minor(3, 5): (0, 32), Minor(3, 6): (0, 13), Minor(3, 7): (0, 0)},
    ),
)
# Below its floor no member may go to the next minor release: what it has written makes the next one fail to start, or
# brings back members that were removed (etcd-io/etcd#19557, #20793, #20967, #21889; docs/v3.6/upgrades/upgrade_3_6).
FLOORS: Mapping[Minor, Version] = {Minor(3, 5): Version(3, 5, 32), Minor(3, 6): Version(3, 6, 11)}


def refusal(version: str) -> tuple[str, str]:
    """Why `version` is refused, and what to use; two empty strings where it is not."""
    own = series(version)
    if own < KNOWN[0] or own.major > KNOWN[-1].major:
        return f'found "{version}", allowed series {", ".join(map(str, KNOWN))}', ""
    found = _of(version, REFUSED)
    if not found:
        return "", ""
    return f"{version}: {_listed(found)}", f"use {_fixed(version)} or later"


def warning(version: str) -> str:
    """What should be known about running `version`, and what to use; empty where there is nothing."""
    if not is_release(version):
        return f"etcd {version} is not a release"
    own = series(version)
    if own > KNOWN[-1]:
        return f"etcd {own} is newer than {KNOWN[-1]}, the newest that this program knows"
    if own in END_OF_LIFE:
        return f"etcd {version}: {own} is at its end of life, without fixes: upgrade to 3.5, then to 3.6"
    found = _of(version, (*REFUSED, *DEFECTS))
    if not found:
        return ""
    more = f" and {len(found) - 1} more known defect{'s' * (len(found) > 2)}" if len(found) > 1 else ""  # noqa: PLR2004 - a plural
    return f"etcd {version}: {_listed(found[:1])}{more}: use {_fixed(version)} or later"


def step(seen: str, wanted: str) -> str:
    """Why data that `seen` has written may not be opened by `wanted`; empty where it may. A lower patch may."""
    now, then = series(seen), series(wanted)
    if then < now:
        return f"etcd {seen} has written this member's data: {wanted} cannot read it. Restore a snapshot to go back"
    following = Minor(now.major, now.minor + 1)
    if then.major != now.major or then > following:
        return f"etcd {seen} -> {wanted} skips a minor release: go by {following} first"
    floor = FLOORS.get(now)
    if then != now and floor is not None and Version.parse(seen) < floor:
        return f"etcd {seen} -> {wanted}: every member must run {floor} or later first"
    return ""


def _of(version: str, defects: tuple[Defect, ...]) -> list[Defect]:
    own = Version.parse(version)
    found = []
    for defect in defects:
        first, last = defect.patches.get(own.series, (1, 0))
        if first <= own.patch and (last is None or own.patch <= last):
            found.append(defect)
    return found


def _fixed(version: str) -> str:
    """The first patch release of the same minor in which all is fixed that ever was."""
    own = series(version)
    lasts = [defect.patches[own][1] or 0 for defect in (*REFUSED, *DEFECTS) if own in defect.patches]
    return f"{own}.{max(lasts) + 1}"


def _listed(defects: list[Defect]) -> str:
    return "; ".join(f"{defect.what} ({defect.source})" for defect in defects)
