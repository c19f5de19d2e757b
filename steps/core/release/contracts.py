"""What a release source gives: etcd's binaries on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Release:
    """etcd's binaries on the controller: name → file (etcd, etcdctl, and etcdutl where the release has it).

    `origin` says where they came from, `verified_by` what proves that they are whole.
    """

    binaries: Mapping[str, Path]
    origin: str
    verified_by: str


class ReleaseSource(Protocol):
    def fetch(self, version: str, arch: str, into: Path, deadline: float) -> Release:
        """Puts the binaries of etcd `version` (3.5.16) for `arch` (amd64, arm64 …) into the empty directory `into`.

        `deadline` is in seconds from now. Raises SourceUnavailable, in one line, where this source cannot serve;
        any other error (a wrong digest, say) stops the search.
        """
        ...
