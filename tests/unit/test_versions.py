"""What is known of etcd's releases, and from which a minor upgrade may start."""

from __future__ import annotations

from pathlib import Path

import pytest

from steps.core.base import versions

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("version", ["3.4.19", "3.4.22", "3.5.6", "3.5.33", "3.6.5", "3.7.0", "3.8.0"])
def test_refusal_release_that_keeps_its_data_is_accepted(version: str) -> None:
    assert versions.refusal(version) == ("", "")


@pytest.mark.parametrize("version", ["2.3.8", "3.3.27", "4.0.0"])
def test_refusal_other_series_is_refused(version: str) -> None:
    assert versions.refusal(version) == (f'found "{version}", allowed series 3.4, 3.5, 3.6, 3.7', "")


@pytest.mark.parametrize("version", ["3.5.0", "3.5.5", "3.4.20", "3.4.21", "3.6.0", "3.6.4"])
def test_refusal_release_that_corrupts_data_is_refused_with_another(version: str) -> None:
    message, hint = versions.refusal(version)
    assert message.startswith(f"{version}: ")
    assert hint in {"use 3.4.44 or later", "use 3.5.33 or later", "use 3.6.14 or later"}
    assert versions.refusal(hint.split()[1]) == ("", "")


WARNED = {
    "3.4.45": "etcd 3.4.45: 3.4 is at its end of life, without fixes: upgrade to 3.5, then to 3.6",
    "3.5.2": "etcd 3.5.2: members can end up with different data (etcd-io/etcd#13766) "
    "and 13 more known defects: use 3.5.33 or later",
    "3.5.16": "etcd 3.5.16: a snapshot applied during defragmentation can corrupt the data (etcd-io/etcd#20271) "
    "and 9 more known defects: use 3.5.33 or later",
    "3.5.32": "etcd 3.5.32: unfinished TLS handshakes can exhaust a member (CVE-2026-73500) (GHSA-6vch-q96h-7gc3) "
    "and 1 more known defect: use 3.5.33 or later",
    "3.6.13": "etcd 3.6.13: unfinished TLS handshakes can exhaust a member (CVE-2026-73500) (GHSA-6vch-q96h-7gc3) "
    "and 1 more known defect: use 3.6.14 or later",
    "3.7.0": "etcd 3.7.0: unfinished TLS handshakes can exhaust a member (CVE-2026-73500) (GHSA-6vch-q96h-7gc3) "
    "and 1 more known defect: use 3.7.1 or later",
    "3.8.0": "etcd 3.8 is newer than 3.7, the newest that this program knows",
    "3.7.0-rc.1": "etcd 3.7.0-rc.1 is not a release",
    "": "etcd  is not a release",
    **dict.fromkeys(("3.5.33", "3.5.35", "3.6.14", "3.7.1"), ""),
}


@pytest.mark.parametrize(("version", "said"), WARNED.items())
def test_warning_names_the_worst_and_what_to_use(version: str, said: str) -> None:
    assert versions.warning(version) == said


STEPS = [
    ("3.5.30", "3.5.16", ""),  # a lower patch release
    ("3.4.27", "3.5.33", ""),
    ("3.4.27", "3.6.14", "etcd 3.4.27 -> 3.6.14 skips a minor release: go by 3.5 first"),
    ("3.5.33", "3.7.1", "etcd 3.5.33 -> 3.7.1 skips a minor release: go by 3.6 first"),
    ("3.5.31", "3.6.14", "etcd 3.5.31 -> 3.6.14: every member must run 3.5.32 or later first"),
    ("3.5.32", "3.6.14", ""),
    ("3.6.10", "3.7.1", "etcd 3.6.10 -> 3.7.1: every member must run 3.6.11 or later first"),
    ("3.6.11", "3.7.1", ""),
    ("3.7.1", "3.8.0", ""),
    (
        "3.6.14",
        "3.5.33",
        "etcd 3.6.14 has written this member's data: 3.5.33 cannot read it. Restore a snapshot to go back",
    ),
    ("3.5.33", "4.0.0", "etcd 3.5.33 -> 4.0.0 skips a minor release: go by 3.6 first"),
]


@pytest.mark.parametrize(("seen", "wanted", "said"), STEPS)
def test_step_one_minor_at_a_time_and_only_from_its_floor(seen: str, wanted: str, said: str) -> None:
    assert versions.step(seen, wanted) == said


@pytest.mark.parametrize(("version", "minor"), [("3.5.16", (3, 5)), ("3.10.0", (3, 10)), ("4.0.1-rc.0", (4, 0))])
def test_minor(version: str, minor: tuple[int, int]) -> None:
    assert versions.series(version) == minor


def test_the_documentation_lists_every_defect() -> None:
    text = (DOCS / "reference/releases.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| refused |", "| warned of |"))]
    assert rows == [
        f"| {what} | {', '.join(map(span, defect.patches.items()))} | {defect.what} | {defect.source} |"
        for what, defects in (("refused", versions.REFUSED), ("warned of", versions.DEFECTS))
        for defect in defects
    ]


def span(item: tuple[versions.Minor, tuple[int, int | None]]) -> str:
    minor, (first, last) = str(item[0]), item[1]
    if last is None:
        return f"all of {minor}"
    return f"{minor}.{first}" if first == last else f"{minor}.{first} to {minor}.{last}"


def test_version_is_compared_as_numbers_and_shown_as_written() -> None:
    written = ["3.5.9", "3.5.10", "3.10.0", "4.0.0-rc.1"]
    found = sorted(map(versions.Version.parse, reversed(written)))
    assert [str(version) for version in found] == written
    assert versions.Version.parse("3.5.16-rc.1") == versions.Version(3, 5, 16)


@pytest.mark.parametrize(("text", "known"), [("3.5.16", True), ("3.5.16-rc.1", False), ("3.5", False), ("no", False)])
def test_is_release_is_three_numbers_and_nothing_else(text: str, known: bool) -> None:  # noqa: FBT001 - a column
    assert versions.is_release(text) is known
