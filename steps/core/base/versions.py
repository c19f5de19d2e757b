"""What is known of etcd's releases: which are refused, which have defects, and from which a minor upgrade may start.

Sources: etcd-io/etcd, CHANGELOG/CHANGELOG-3.4.md to 3.7.md and the issues named here; etcd-io/website,
docs/v3.6/upgrades and docs/v3.6/op-guide/versioning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

Minor = tuple[int, int]

KNOWN: tuple[Minor, ...] = ((3, 4), (3, 5), (3, 6), (3, 7))
END_OF_LIFE: tuple[Minor, ...] = ((3, 4),)  # since 2026-05-15


class Defect(NamedTuple):
    """`patches`: minor release → the first and the last patch release with the defect; a last of None: not fixed."""

    what: str
    source: str
    patches: Mapping[Minor, tuple[int, int | None]]


# With these, data can be lost or corrupted: they are refused.
REFUSED: tuple[Defect, ...] = (
    Defect("members can end up with different data", "etcd-io/etcd#13766", {(3, 5): (0, 2)}),
    Defect("a crash during defragmentation can corrupt the data", "etcd-io/etcd#14733", {(3, 5): (0, 5)}),
    Defect("a new member can get wrong auth data", "etcd-io/etcd#14648", {(3, 5): (5, 5), (3, 4): (20, 21)}),
    Defect("a snapshot applied during defragmentation can corrupt the data", "etcd-io/etcd#20271", {(3, 6): (0, 4)}),
)
# With these, a warning names the release to use. The worst come first.
DEFECTS: tuple[Defect, ...] = (
    Defect(
        "a snapshot applied during defragmentation can corrupt the data",
        "etcd-io/etcd#20271",
        {(3, 4): (0, 37), (3, 5): (0, 22)},
    ),
    Defect("a transaction can be written in part", "etcd-io/etcd#18799", {(3, 5): (0, 16)}),
    Defect("the leader can revoke leases wrongly", "etcd-io/etcd#17425", {(3, 5): (0, 12)}),
    Defect("a watch can lose events after a compaction", "etcd-io/etcd#17612", {(3, 5): (0, 12)}),
    Defect("a watch can miss a delete event", "etcd-io/etcd#19251", {(3, 4): (0, 35), (3, 5): (0, 17)}),
    Defect(
        "a watch on a future revision gets old events",
        "etcd-io/etcd#20286",
        {(3, 4): (0, 37), (3, 5): (0, 21), (3, 6): (0, 1)},
    ),
    Defect("a watch can get wrong events", "etcd-io/etcd#21443", {(3, 6): (0, 8)}),
    Defect("reads can be stale", "etcd-io/etcd#21417", {(3, 4): (0, 41), (3, 5): (0, 27), (3, 6): (0, 8)}),
    Defect("an update of a learner can promote it", "etcd-io/etcd#21694", {(3, 5): (0, 30), (3, 6): (0, 11)}),
    Defect(
        "with auth on, the member list and the alarms need the role root",
        "etcd-io/etcd#21549",
        {(3, 4): (42, 42), (3, 5): (28, 28), (3, 6): (9, 9)},
    ),
    Defect(
        "auth can be bypassed (CVE-2026-33413)",
        "GHSA-q8m4-xhhv-38mg",
        {(3, 4): (0, 41), (3, 5): (0, 27), (3, 6): (0, 8)},
    ),
    Defect(
        "a transaction can read without permission (CVE-2026-44283)",
        "etcd-io/etcd#21681",
        {(3, 4): (0, 43), (3, 5): (0, 29), (3, 6): (0, 10)},
    ),
    Defect(
        "unfinished TLS handshakes can exhaust a member (CVE-2026-73500)",
        "GHSA-6vch-q96h-7gc3",
        {(3, 4): (0, None), (3, 5): (0, 32), (3, 6): (0, 13), (3, 7): (0, 0)},
    ),
    Defect(
        "a watch can see keys without permission",
        "GHSA-xg4h-6gfc-h4m8",
        {(3, 4): (0, None), (3, 5): (0, 32), (3, 6): (0, 13), (3, 7): (0, 0)},
    ),
)
# Below its floor no member may go to the next minor release: what it has written makes the next one fail to start, or
# brings back members that were removed (etcd-io/etcd#19557, #20793, #20967, #21889; docs/v3.6/upgrades/upgrade_3_6).
FLOORS: Mapping[Minor, tuple[int, int, int]] = {(3, 5): (3, 5, 32), (3, 6): (3, 6, 11)}


def number(version: str) -> tuple[int, int, int]:
    """3.5.16 → (3, 5, 16); so is 3.5.16-rc.1. Raises ValueError where it is no version."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"{version!r} is no version of etcd")
    return int(found[1]), int(found[2]), int(found[3])


def minor(version: str) -> Minor:
    """3.5.16 → (3, 5)."""
    return number(version)[:2]


def dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))


def series() -> str:
    """The minor releases that this program knows, for people."""
    return ", ".join(map(dotted, KNOWN))


def refusal(version: str) -> tuple[str, str]:
    """Why `version` is refused, and what to use; two empty strings where it is not."""
    if minor(version) < KNOWN[0] or number(version)[0] > KNOWN[-1][0]:
        return f'found "{version}", allowed series {series()}', ""
    found = _of(version, REFUSED)
    if not found:
        return "", ""
    return f"{version}: {_listed(found)}", f"use {_fixed(version)} or later"


def warning(version: str) -> str:
    """What should be known about running `version`, and what to use; empty where there is nothing."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"etcd {version} is not a release"
    own = minor(version)
    if own > KNOWN[-1]:
        return f"etcd {dotted(own)} is newer than {dotted(KNOWN[-1])}, the newest that this program knows"
    if own in END_OF_LIFE:
        return f"etcd {version}: {dotted(own)} is at its end of life, without fixes: upgrade to 3.5, then to 3.6"
    found = _of(version, (*REFUSED, *DEFECTS))
    if not found:
        return ""
    more = f" and {len(found) - 1} more known defect{'s' * (len(found) > 2)}" if len(found) > 1 else ""  # noqa: PLR2004 - a plural
    return f"etcd {version}: {_listed(found[:1])}{more}: use {_fixed(version)} or later"


def step(seen: str, wanted: str) -> str:
    """Why data that `seen` has written may not be opened by `wanted`; empty where it may. A lower patch may."""
    now, then = minor(seen), minor(wanted)
    if then < now:
        return f"etcd {seen} has written this member's data: {wanted} cannot read it. Restore a snapshot to go back"
    if then[0] != now[0] or then[1] > now[1] + 1:
        return f"etcd {seen} -> {wanted} skips a minor release: go by {now[0]}.{now[1] + 1} first"
    if then != now and number(seen) < (floor := FLOORS.get(now, ())):
        return f"etcd {seen} -> {wanted}: every member must run {dotted(floor)} or later first"
    return ""


def _of(version: str, defects: tuple[Defect, ...]) -> list[Defect]:
    own, patch = minor(version), number(version)[2]
    found = []
    for defect in defects:
        first, last = defect.patches.get(own, (1, 0))
        if first <= patch and (last is None or patch <= last):
            found.append(defect)
    return found


def _fixed(version: str) -> str:
    """The first patch release of the same minor in which all is fixed that ever was."""
    own = minor(version)
    lasts = [defect.patches[own][1] or 0 for defect in (*REFUSED, *DEFECTS) if own in defect.patches]
    return f"{dotted(own)}.{max(lasts) + 1}"


def _listed(defects: list[Defect]) -> str:
    return "; ".join(f"{defect.what} ({defect.source})" for defect in defects)
