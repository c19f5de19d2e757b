"""A WAL's head says whose it is, its entries whether 3.5 wrote them; anything else says nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from clusters import on_loopback
from hypothesis import given
from hypothesis import strategies as st

from steps.core.node import wal_header as wal
from steps.core.node.wal_header import HEAD, cluster_id

# the first bytes of a segment that etcd 3.5.16 wrote for a cluster with the ID e4e4cb7b75f24ff3
SEGMENT = bytes.fromhex(
    "0400000000000084 0804100000000000 1f00000000000081 080110 9f9684d508 1a15"
    "08 a4bcecfdf9cef8816d 10 f39fc9afb7efb2f2e401 00 0e00000000000082 080510cbbf9fda02 1a0408001000 0000"
)


def test_the_id_is_that_of_the_cluster() -> None:
    assert cluster_id(SEGMENT) == "e4e4cb7b75f24ff3"
    assert cluster_id(SEGMENT.ljust(HEAD, b"\0")) == "e4e4cb7b75f24ff3"


@pytest.mark.parametrize("head", [b"", b"\0" * HEAD, SEGMENT[:40], b"\xff" * HEAD, b"SQLite format 3\0".ljust(HEAD)])
def test_what_is_no_whole_head_says_nothing(head: bytes) -> None:
    assert cluster_id(head) == ""


@given(st.binary(max_size=HEAD))
def test_no_bytes_are_too_strange(head: bytes) -> None:
    assert set(cluster_id(head)) <= set("0123456789abcdef")


# what stands before two v2 requests in a WAL that etcd 3.5.35 wrote: entries 7 and 9
V2 = {
    7: "00 9f 00 00 00 00 00 00 81 08 02 10 98 f8 f5 bd 0f 1a 94 01 08 00 10 02 18 07 22 8b 01 "
    "08 81 c0 f0 9e f3 c2 e8 c6 ac 01 12 03 50 55 54 1a 26",
    9: "00 85 08 02 10 c4 a5 c5 9f 0e 1a 41 08 00 10 02 18 09 22 39 08 82 c0 ee 9e f3 c2 e8 93 59 12 03 50 55 54 1a 0a",
}
PATHS = {7: "/0/members/793d329fd2495927/attributes", 9: "/0/version"}
LEFT = {
    "no snapshot": ([], True),
    "an old snapshot": (["0000000000000002-0000000000000008.snap"], True),
    "a snapshot behind them": (
        ["0000000000000002-0000000000000008.snap", "0000000000000004-0000000000000009.snap"],
        False,
    ),
}


@pytest.mark.parametrize(("snapshots", "left"), LEFT.values(), ids=LEFT.keys())
def test_v2_left_requests_behind_the_last_snapshot(tmp_path: Path, snapshots: list[str], *, left: bool) -> None:
    node = on_loopback(tmp_path / "etcd.toml").nodes[0]
    snap, log = Path(node.paths.data) / "member/snap", Path(node.paths.wal)
    for folder in (snap, log):
        folder.mkdir(parents=True)
    for name in ("db", *snapshots):
        (snap / name).touch()
    entries = [bytes.fromhex(V2[index]) + PATHS[index].encode() + b'"\x05\x00' for index in V2]
    (log / "0000000000000000-0000000000000000.wal").write_bytes(entries[0])  # nearer to the start than what is read
    (log / "0000000000000001-0000000000000008.wal").write_bytes(b"\n\0" * 999 + entries[1] + b"\0" * 4096)
    (log / "1.tmp").write_bytes(entries[1])
    done = subprocess.run(
        ["sh", "-c", wal.v2_script(node)],
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    assert done.stdout.count(b"entry ") == len(V2)
    assert wal.v2_left(done.stdout.decode()) is left


@pytest.mark.parametrize("output", ["", "db\n", "entry \n", "entry 2f 30 1a 0a\n"])
def test_v2_left_paths_in_what_clients_wrote_are_none(output: str) -> None:
    assert not wal.v2_left(output)
