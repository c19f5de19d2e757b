"""The types that plugins and the program exchange: certificates, releases, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    pass

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
