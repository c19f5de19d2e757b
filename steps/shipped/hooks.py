"""The shipped backend and sources, through the same hooks as everybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.core.hooks import hookimpl

if TYPE_CHECKING:
    from steps.core.contracts import CertBackend, ReleaseSource
    from steps.core.model import Cluster


@hookimpl
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    del cluster
    if name != "builtin":
        return None
    from steps.shipped.builtin import Builtin

    return Builtin()


@hookimpl
def etcd_release_source(name: str, cluster: Cluster) -> ReleaseSource | None:
    release = cluster.release
    if name == "path":
        from steps.shipped.path import PathSource

        return PathSource(release.path, release.sha256, search_path=not cluster.systemd)
    if name == "github":
        from steps.shipped.github import GithubSource

        return GithubSource(release.mirror, release.sha256)
    if name == "debian":
        from steps.shipped.debian import DebianSource

        return DebianSource(release.suite, cluster.work / "apt")
    return None
