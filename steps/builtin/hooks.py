"""The shipped backend and sources, through the same hooks as everybody's."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from steps.core.extensions.hookspecs import hookimpl

if TYPE_CHECKING:
    from steps.core.config.model import Cluster
    from steps.core.release.contracts import ReleaseSource
    from steps.core.tls.contracts import CARequest, CertBackend, LeafProfile

OFFERS = ("builtin", "path", "github", "debian")


class _Builtin:
    """The built-in backend, loaded when it is first needed: whoever only asks for its name need not wait for that."""

    @cached_property
    def _backend(self) -> CertBackend:
        from steps.builtin.ca import Builtin

        return Builtin()

    def ca(self, request: CARequest) -> bytes:
        return self._backend.ca(request)

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        return self._backend.sign(csr, profile)


@hookimpl
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    del cluster
    return _Builtin() if name == "builtin" else None


@hookimpl
def etcd_release_source(name: str, cluster: Cluster) -> ReleaseSource | None:
    release = cluster.release
    if name == "path":
        from steps.builtin.path import PathSource

        return PathSource(release.path, release.sha256, search_path=not cluster.systemd, work=cluster.work)
    if name == "github":
        from steps.builtin.github import GithubSource

        return GithubSource(release.mirror, release.sha256)
    if name == "debian":
        from steps.builtin.debian import DebianSource

        return DebianSource(release.suite, cluster.work / "apt")
    return None
