"""Whose data is it? Every segment of etcd's write-ahead log begins with the IDs of the member and the cluster."""

from __future__ import annotations

import re
from shlex import quote

from steps.core.config.model import Node

HEAD = 128  # bytes of a segment that are enough
_TYPE, _DATA, _CLUSTER = 1, 3, 2  # fields of walpb.Record, of etcdserverpb.Metadata
_METADATA = 1  # the record type (etcd server/storage/wal: crc, then metadata, then all else)
_VARINT, _BYTES = 0, 2  # protobuf wire types
_BEFORE = 48  # bytes before a v2 path that hold its entry's head
# raftpb.Entry's index and data, which is an etcdserverpb.Request of 3.5: its ID, its method PUT, its path.
_VARINT_BYTES = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_V2_ENTRY = re.compile(
    rb"\x18(" + _VARINT_BYTES + rb")\x22" + _VARINT_BYTES + rb"\x08" + _VARINT_BYTES + rb"\x12\x03PUT\x1a.\Z", re.DOTALL
)
_PADDED = (1 << 56) - 1  # the top byte of a record's length says how it was padded to 8 bytes


def cluster_id(head: bytes) -> str:
    """The cluster's ID, in hex as `member list` prints it, from a segment's first bytes; empty if they are no WAL's."""
    try:
        for record in _records(head):
            fields = _fields(record)
            metadata = fields.get(_DATA)
            if fields.get(_TYPE) == _METADATA and isinstance(metadata, bytes):
                found = _fields(metadata).get(_CLUSTER)
                return f"{found:x}" if isinstance(found, int) else ""
    except (IndexError, ValueError):
        pass  # a torn or foreign file: nothing is known of it
    return ""


def v2_script(node: Node) -> str:
    """Prints the names of the node's raft snapshots, and what stands before each v2 path in its WAL, for `v2_left`.

    Until 3.5 members announced themselves, and the cluster's version was set, by requests of the v2 API.
    """
    snapshots, log = quote(f"{node.paths.data}/member/snap"), quote(node.paths.wal)
    return f"""\
ls {snapshots}
for f in {log}/*.wal; do
grep -a -b -o '/0/members/[0-9a-f]*/attributes\\|/0/version' "$f" | tail -n 500 | while IFS=: read -r at _; do
  n=$((at < {_BEFORE} ? at : {_BEFORE})); printf 'entry '
  tail -c +$((at - n + 1)) "$f" | head -c $n | od -An -v -tx1 | tr -d '\\n'; echo
done; done
true
"""


def v2_left(output: str) -> bool:
    """Whether etcd would replay a v2 request at its start: there is one behind the last snapshot."""
    snapshot, entry = 0, 0
    for line in output.splitlines():
        if name := re.fullmatch(r"[0-9a-f]{16}-([0-9a-f]{16})\.snap", line):
            snapshot = max(snapshot, int(name[1], 16))
        elif line.startswith("entry ") and (found := _V2_ENTRY.search(bytes.fromhex(line[6:]))):
            entry = max(entry, _varint(found[1], 0)[0])
    return entry > snapshot


def _records(head: bytes) -> list[bytes]:
    """The whole records among the first bytes: a length of 8 bytes, the record, padding to 8 bytes."""
    found, at = [], 0
    while at + 8 <= len(head):
        size = int.from_bytes(head[at : at + 8], "little") & _PADDED
        if size == 0 or at + 8 + size > len(head):
            break
        found.append(head[at + 8 : at + 8 + size])
        at += 8 + size + (-size) % 8
    return found


def _fields(message: bytes) -> dict[int, int | bytes]:
    """A protobuf message's fields by number, those of the two kinds that these messages have. Raises ValueError."""
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == _VARINT:
            fields[key >> 3] = value
        elif key & 7 == _BYTES:
            fields[key >> 3], at = message[at : at + value], at + value
        else:
            raise ValueError(f"wire type {key & 7}")
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if not byte & 0x80:
            return value, at
