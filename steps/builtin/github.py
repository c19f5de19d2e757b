"""Release source "github": etcd's own tarballs, from GitHub or from a mirror that is laid out alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steps.core.base.urls import shown
from steps.core.release import published, tarball
from steps.core.release.releases import TarballRelease

MAX_TARBALL = 500_000_000  # bytes


@dataclass(frozen=True)
class GithubSource:
    """{mirror}/v{version}/etcd-v{version}-linux-{arch}.tar.gz, with SHA256SUMS in the same folder.

    `sha256` pins tarballs: architecture → hex digest; SHA256SUMS is not asked then. `progress` is given the bytes that
    have come and the bytes in all, None where the server does not say.
    """

    mirror: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[int, int | None], None] | None = None

    def fetch(self, version: str, arch: str, into: Path, deadline: float) -> TarballRelease:
        """See ReleaseSource. A wrong digest, a SHA256SUMS that lacks the file and an unsafe redirect are StepFailed."""
        from steps.core.release import web  # its client is for nothing where the cache has the release

        ends = time.monotonic() + deadline
        folder, name = published.folder(self.mirror, version), f"{tarball.stem(version, arch)}.tar.gz"
        url, part = f"{folder}/{name}", into / name
        pin = self.sha256.get(arch, "").lower()
        try:
            if pin:
                proof = "the sha256 pinned in [release]"
            else:
                proof = f"{shown(folder)}/SHA256SUMS"
                pin = tarball.digest_in(published.sums(folder, into, deadline), name, proof)
            left = ends - time.monotonic()
            web.download(url, part, who="github", deadline=left, limit=MAX_TARBALL, progress=self.progress)
            tarball.verify(part, pin, shown(url), proof)
            binaries = tarball.unpack(part, version, arch, into, who="github")
        finally:
            part.unlink(missing_ok=True)
        return TarballRelease(binaries, origin=shown(url), verified_by=proof, tarball=pin)
