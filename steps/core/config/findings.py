"""What the rules of etcd.toml yield, and the tables that they read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from steps.core.config.schema import Etcd, NodeTable

KeyPath = tuple[str | int, ...]
Nodes = Mapping[int, NodeTable]


class Finding(NamedTuple):
    """A problem of etcd.toml without its line yet. `path` leads to the key; a warning stops nothing."""

    code: str
    path: KeyPath
    message: str
    hint: str = ""
    warning: bool = False


def having(nodes: Nodes, *fields: str) -> Iterator[tuple[int, NodeTable]]:
    return ((index, node) for index, node in nodes.items() if all(field in node.__dict__ for field in fields))


def flag_tables(etcd: Etcd, nodes: Nodes) -> Iterator[tuple[KeyPath, Mapping[str, str]]]:
    yield ("etcd", "flags"), etcd.flags
    for index, node in having(nodes, "flags"):
        yield ("nodes", index, "flags"), node.flags
