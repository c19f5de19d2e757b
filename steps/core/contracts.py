"""The types that plugins and the program exchange: certificates, releases, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from steps.core.context import Context

# The SAN of every client's certificate. etcd's peer port takes a certificate without SANs from any address, and one
# with SANs only from these (etcd client/pkg/transport, checkCertSAN). 100::/64 is the discard prefix (RFC 6666): no
# host has an address of it.
NO_HOST = "100::1"


@dataclass(frozen=True)
class CARequest:
    """What the CA should be. `dir` is the backend's private 0700 directory in the work directory."""

    cn: str
    subject: Mapping[str, str]
    key: str
    days: int
    dir: Path


@dataclass(frozen=True)
class LeafProfile:
    """What a leaf should be. `sans` are IP addresses and DNS names as plain text; `days` is its lifetime."""

    name: str
    kind: Literal["member", "client"]
    cn: str
    subject: Mapping[str, str]
    sans: tuple[str, ...]
    days: int


class CertBackend(Protocol):
    """Signs, and nothing else: keys and requests are made by the program, and what comes back is validated by it."""

    def ca(self, request: CARequest) -> bytes:
        """The CA certificate(s), PEM. Creates the CA on first use and never replaces it."""
        ...

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        """The leaf and its intermediates, PEM, for a PEM request. May be called concurrently."""
        ...


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


@dataclass(frozen=True)
class Check:
    """One more thing that verify looks at. `run` returns None where all is well, else what is wrong."""

    name: str
    run: Callable[[Context], str | None]
