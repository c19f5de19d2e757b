"""A WAL's head says whose it is; anything else says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.core.etcd.wal import HEAD, cluster_id

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
