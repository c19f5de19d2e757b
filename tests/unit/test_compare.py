"""What differs between what a node should have and what was seen: one change a row, nothing where all is well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.core.base.digest import digest
from steps.core.base.errors import Refused
from steps.core.node.diff import Change, changes, seen_after, unified, with_block
from steps.core.node.facts import Entry, Look, NodeFacts
from steps.core.node.resources import (
    Blob,
    Block,
    Command,
    Directory,
    File,
    Promise,
    Resource,
    Service,
    Stream,
    Symlink,
    User,
)

UNIT = File("/etc/systemd/system/etcd.service", "[Unit]\nnew\n")
KEY = File("/etc/etcd/cert/key.pem", "PRIVATE", 0o600, "etcd", "etcd", secret=True)
BINARY = File(
    "/usr/local/bin/etcd", Blob(Path("/cache/etcd"), "b" * 64, Stream(Path("/cache/all"), ()), "etcd 3.5.16"), 0o755
)
DATA = Directory("/data/etcd", 0o700, "etcd", "etcd")
LINK = Symlink("/etc/etcd/cert/live", "gen-2")
HOSTS = Block("/etc/hosts", "etcd-steps demo", "10.0.0.1 etcd-1\n")
SERVICE = Service("etcd.service")
OFF = Service("cron", enabled=False, running=False)
COMMAND = Command(("sysctl", "-w", "vm.swappiness=1"), "test -e /x")


def file_entry(resource: File, text: str, **changes: object) -> Entry:
    entry = Entry("file", resource.mode, resource.owner, resource.group, digest(text.encode()), content=text, mtime=1)
    return replace(entry, **changes)


def look(resource: Resource | None = None, entry: Entry | None = None, **more: object) -> Look:
    entries = {resource.path: entry} if entry is not None and hasattr(resource, "path") else {}
    return Look(entries=entries, facts=NodeFacts(), **more)


FINE = [
    (UNIT, look(UNIT, file_entry(UNIT, "[Unit]\nnew\n"))),
    (KEY, look(KEY, replace(file_entry(KEY, "PRIVATE"), content=None))),
    (BINARY, look(BINARY, Entry("file", 0o755, "root", "root", "b" * 64))),
    (DATA, look(DATA, Entry("dir", 0o700, "etcd", "etcd"))),
    (LINK, look(LINK, Entry("link", 0o777, target="gen-2"))),
    (HOSTS, look(HOSTS, Entry("file", content=with_block("127.0.0.1 localhost\n", HOSTS)))),
    (User("etcd"), look(users=frozenset({"etcd"}))),
    (SERVICE, look(states={SERVICE.key: "enabled active"})),
    (OFF, look(states={OFF.key: "disabled inactive"})),
    (COMMAND, look(states={COMMAND.key: "done"})),
]


@pytest.mark.parametrize(("resource", "found"), FINE, ids=lambda value: type(value).__name__)
def test_nothing_differs_where_all_is_well(resource: Resource, found: Look) -> None:
    assert changes([resource], found, owners=True) == []


DIFFERENT = [
    (UNIT, look(), "/etc/systemd/system/etcd.service is created"),
    (UNIT, look(UNIT, file_entry(UNIT, "old\n")), "/etc/systemd/system/etcd.service is replaced"),
    (UNIT, look(UNIT, file_entry(UNIT, "[Unit]\nnew\n", mode=0o600)), f"{UNIT.path} mode 0600 -> 0644"),
    (
        UNIT,
        look(UNIT, file_entry(UNIT, "[Unit]\nnew\n", mode=0o4755, owner="bob")),
        f"{UNIT.path} mode 4755 -> 0644, owner bob:root -> root:root",
    ),
    (UNIT, look(UNIT, Entry("dir", 0o644, "root", "root")), "/etc/systemd/system/etcd.service is replaced"),
    (UNIT, look(UNIT, Entry("link", 0o777, target="/dev/null")), "/etc/systemd/system/etcd.service is replaced"),
    (KEY, look(), "/etc/etcd/cert/key.pem is created (secret, not shown)"),
    (KEY, look(KEY, file_entry(KEY, "OLD", content=None)), "/etc/etcd/cert/key.pem is replaced (secret, not shown)"),
    (BINARY, look(), f"/usr/local/bin/etcd is created: etcd 3.5.16 (b2sum {'b' * 12})"),
    (
        BINARY,
        look(BINARY, Entry("file", 0o755, "root", "root", "a" * 64)),
        f"/usr/local/bin/etcd is replaced: etcd 3.5.16 (b2sum {'a' * 12} -> {'b' * 12})",
    ),
    (File("/x", Promise("a certificate")), look(), "/x: a certificate"),
    (DATA, look(), "/data/etcd/ is created"),
    (
        DATA,
        look(DATA, Entry("dir", 0o755, "root", "root")),
        "/data/etcd/ mode 0755 -> 0700, owner root:root -> etcd:etcd",
    ),
    (LINK, look(), "/etc/etcd/cert/live -> gen-2"),
    (LINK, look(LINK, Entry("link", target="gen-1")), "/etc/etcd/cert/live -> gen-2"),
    (LINK, look(LINK, Entry("dir")), "/etc/etcd/cert/live -> gen-2"),
    (HOSTS, look(HOSTS, Entry("file", content="127.0.0.1 localhost\n")), "/etc/hosts: block 'etcd-steps demo'"),
    (User("etcd"), look(), "user etcd is created"),
    (SERVICE, look(states={SERVICE.key: "enabled inactive"}), "service etcd.service: enabled and active"),
    (SERVICE, look(states={SERVICE.key: " "}), "service etcd.service: enabled and active"),
    (COMMAND, look(), "runs sysctl -w vm.swappiness=1"),
]


@pytest.mark.parametrize(
    ("resource", "found", "what"), DIFFERENT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_differs_is_one_change_in_words(resource: Resource, found: Look, what: str) -> None:
    (change,) = changes([resource], found, owners=True)
    assert change.what == what
    assert change.resource == resource
    again = seen_after(found, [change], now=2)
    promised = isinstance(resource, File) and isinstance(resource.content, Promise)
    assert (changes([resource], again, owners=True) == []) is not promised, "what was applied is known"


@pytest.mark.parametrize("resource", [UNIT, DATA])
def test_owners_do_not_count_where_everything_is_one_users(resource: File | Directory) -> None:
    entry = file_entry(UNIT, "[Unit]\nnew\n") if resource is UNIT else Entry("dir", 0o700)
    mine = look(resource, replace(entry, owner="me", group="me"))
    assert changes([resource], mine, owners=False) == []
    assert changes([resource], mine, owners=True) != []


def test_a_text_shows_its_diff_a_secret_a_binary_and_a_mode_do_not() -> None:
    old = look(UNIT, file_entry(UNIT, "[Unit]\nold\n"))
    assert changes([UNIT], old, owners=True)[0].diff == (
        f"--- {UNIT.path} (now)\n+++ {UNIT.path} (then)\n@@ -1,2 +1,2 @@\n [Unit]\n-old\n+new\n"
    )
    secret = changes([KEY], look(KEY, file_entry(KEY, "TOPSECRET")), owners=True)[0]
    assert secret.diff == ""
    assert "SECRET" not in secret.what
    assert changes([BINARY], look(), owners=True)[0].diff == ""
    mode = changes([UNIT], look(UNIT, file_entry(UNIT, "[Unit]\nnew\n", mode=0)), owners=True)[0]
    assert (mode.diff, mode.content) == ("", False)


def test_content_may_depend_on_the_node() -> None:
    by_arch = File("/x", lambda seen: f"made for {seen.arch}\n")
    arm = Look(entries={}, facts=NodeFacts(cpu="aarch64"))
    change = changes([by_arch], arm, owners=True)[0]
    assert isinstance(change.resource, File)
    assert "+made for arm64" in change.diff


def test_the_order_of_the_resources_is_kept() -> None:
    resources = [DATA, UNIT, LINK, User("etcd")]
    assert [change.resource for change in changes(resources, look(), owners=True)] == resources


# -- blocks in a file that belongs to others ----------------------------------------------------------------------

BEGIN, END = "# BEGIN etcd-steps demo\n", "# END etcd-steps demo\n"
MINE = f"{BEGIN}10.0.0.1 etcd-1\n{END}"
BLOCKS = {
    "appended": ("127.0.0.1 localhost\n", f"127.0.0.1 localhost\n{MINE}"),
    "to an empty file": ("", MINE),
    "after a line without an end": ("a", f"a\n{MINE}"),
    "in its old place": (f"a\n{BEGIN}old\n{END}b\n", f"a\n{MINE}b\n"),
    "beside another cluster's": (
        "# BEGIN etcd-steps demo-2\nx\n# END etcd-steps demo-2\n",
        f"# BEGIN etcd-steps demo-2\nx\n# END etcd-steps demo-2\n{MINE}",
    ),
    "unchanged": (f"a\n{MINE}b\n", f"a\n{MINE}b\n"),
}


@pytest.mark.parametrize(("before", "after"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_is_put(before: str, after: str) -> None:
    assert with_block(before, HOSTS) == after


def test_a_file_that_was_not_read_gets_no_block() -> None:
    """It would lose all that is in it."""
    with pytest.raises(Refused, match="/etc/hosts cannot be read, or is larger than 64 KB"):
        changes([HOSTS], look(HOSTS, Entry("file", content=None)), owners=True)


def test_a_diff_shows_on_any_terminal() -> None:
    told = unified("/etc/hosts", "caf\udce9\n", "cafe\n")
    assert told.encode()
    assert "+cafe" in told


def test_a_block_that_lost_its_end_loses_nobodys_line() -> None:
    assert "192.168.1.9 somebody\n" in with_block(f"a\n{BEGIN}old\n192.168.1.9 somebody\n", HOSTS)


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r")).filter(lambda text: "# BEGIN" not in text)


@given(before=LINES, first=LINES, second=LINES)
def test_a_block_is_replaced_as_a_whole_and_taken_out_again(before: str, first: str, second: str) -> None:
    one, two = (Block("/f", "m", text and text.rstrip("\n") + "\n") for text in (first, second))
    once = with_block(before, one)
    assert once.startswith(before)
    assert with_block(once, one) == once
    assert with_block(once, two) in (with_block(before, two), with_block(before + "\n", two))
    assert with_block(once, Block("/f", "m", "")).rstrip("\n") == before.rstrip("\n")


def test_a_diff_ends_its_lines() -> None:
    assert unified("/f", "a", "b").splitlines()[-2:] == ["-a", "+b"]


def test_a_promise_is_never_taken_for_done() -> None:
    promised = File("/x", Promise("later"))
    after = seen_after(look(), [Change(promised, "")], now=1)
    assert changes([promised], after, owners=True)[0].what == "/x: later"
