"""What a mirror says of etcd's tarballs: SHA256SUMS, in the folder of each release."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from steps.core.release import tarball

MAX_SUMS = 1_000_000  # bytes


def folder(mirror: str, version: str) -> str:
    """Return the URL of a release's folder."""
    return f"{mirror.rstrip('/')}/v{version}"


def sums(url: str, into: Path, deadline: float) -> str:
    """Return the text of SHA256SUMS in the folder `url`. Raises as web.download does."""
    from steps.core.release import web  # its client is for nothing where the cache has the release

    file = into / "SHA256SUMS"
    try:
        web.download(f"{url}/SHA256SUMS", file, who="github", deadline=deadline, limit=MAX_SUMS)
        return file.read_text(errors="replace")
    finally:
        file.unlink(missing_ok=True)


def digests(mirror: str, version: str, deadline: float) -> Mapping[str, str]:
    """Return what the mirror says today: architecture → hex digest of its tarball. Raises as web.download does."""
    with TemporaryDirectory() as scratch:
        known = tarball.sums(sums(folder(mirror, version), Path(scratch), deadline))
    named = re.compile(rf"{re.escape(tarball.stem(version, ''))}([a-z0-9]+)\.tar\.gz")
    return {found[1]: known[name] for name in sorted(known) if (found := named.fullmatch(name))}
