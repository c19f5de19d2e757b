"""A release tarball: which digest it must have, and the few files that are taken out of it."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol, cast

from steps.core.base.errors import SourceUnavailable, StepFailed
from steps.core.release.binaries import BINARIES, REQUIRED

MAX_BINARY = 500_000_000  # bytes; etcd 3.5's largest binary has 26 MB
MAX_UNPACKED = 2_000_000_000  # bytes of the whole archive, skipped members and headers included

MAX_HEADERS = 10_000  # of the whole archive; etcd's has some fifty
MAX_EXTENSION = 1 << 20  # bytes of one header that names what follows it (pax, GNU's long names)
MAX_EXTENDED = 10  # such headers in a row: tarfile calls itself for each

_LINE = re.compile(r"^([0-9a-fA-F]{64})[ \t]+[* ]?(?:\./)?(\S.*?)\s*$")


def stem(version: str, arch: str) -> str:
    """The name of etcd's tarball without its suffix, and of the folder in it."""
    return f"etcd-v{version}-linux-{arch}"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sums(text: str) -> dict[str, str]:
    """SHA256SUMS as sha256sum(1) writes it: file name → lower-case hex digest. Lines of another form are left out."""
    found = (_LINE.match(line) for line in text.splitlines())
    return {match[2]: match[1].lower() for match in found if match}


def digest_in(text: str, name: str, where: str) -> str:
    """The digest of file `name` in the SHA256SUMS `text` that came from `where`. Raises StepFailed."""
    known = sums(text)
    if not known:
        start = " ".join(text.split())[:40]
        raise StepFailed(f"{where} is no list of SHA-256 digests; it begins with {start!r}")
    if name not in known:
        raise StepFailed(f"{where} lacks {name}", hint="compare the version, or pin the digest in [release] sha256")
    return known[name]


def verify(path: Path, expected: str, where: str, proof: str) -> None:
    """Raises StepFailed, with both digests, where the file is not the one that `proof` promises."""
    actual = sha256(path)
    if actual != expected:
        raise StepFailed(
            f"{where} is not what {proof} promises\n    expected sha256 {expected}\n    found    sha256 {actual}",
            hint="nothing was kept; find out who changed it before pinning another digest",
        )


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Capped:
    """A stream that ends in an error after `limit` bytes, whatever its reader believes: a bomb is never inflated."""

    def __init__(self, inner: _Readable, limit: int) -> None:
        self._inner = inner
        self._left = limit

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise tarfile.ReadError("it unpacks to more than a release has")
        data = self._inner.read(size)
        self._left -= len(data)
        return data


class _Sane(tarfile.TarInfo):
    """A header that makes tarfile neither read much at once, nor call itself, nor go on, without end."""

    _EXTENSIONS = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *tarfile.GNU_TYPES})

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Tarfile's own way in for subclasses: a header was read, and what belongs to it was not."""
        seen, row = getattr(archive, "seen", (0, 0))
        extension = self.type in self._EXTENSIONS
        seen, row = seen + 1, row + 1 if extension else 0
        archive.seen = (seen, row)  # type: ignore[attr-defined]  # of this reading alone
        if seen > MAX_HEADERS:
            raise tarfile.ReadError(f"it has more than {MAX_HEADERS} headers")
        if row > MAX_EXTENDED or (extension and self.size > MAX_EXTENSION) or self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"a header of type {self.type!r} with {self.size} bytes, which no release has")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]  # typeshed leaves it out

    def _no_sparse(self, *_: object) -> None:
        """A map of a sparse file may have as many entries as it likes."""
        raise tarfile.ReadError("a sparse file, which no release has")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_sparse


def unpack(path: Path, version: str, arch: str, into: Path, *, who: str) -> Mapping[str, Path]:
    """Takes etcd, etcdctl and etcdutl, where they are regular files of a sane size, out of a tarball; nothing else.

    No member decides on a path: each binary goes to `into`/its name (0755), which must not exist yet (never extractall:
    cpython#135034). Raises StepFailed for an archive that is damaged or hostile, SourceUnavailable for one that has
    no etcd or etcdctl of that version and architecture.
    """
    wanted = {f"{stem(version, arch)}/{name}": name for name in BINARIES}
    taken: dict[str, Path] = {}
    try:
        with gzip.open(path) as inflated:
            stream = cast("IO[bytes]", _Capped(inflated, MAX_UNPACKED))  # of which tarfile calls read() alone
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Sane) as archive:
                for member in archive:
                    name = wanted.get(member.name.removeprefix("./"))
                    content = archive.extractfile(member) if name and member.isreg() else None
                    if name is None or content is None:
                        continue
                    if member.size > MAX_BINARY or name in taken:
                        raise tarfile.ReadError(f"{member.name} has {member.size} bytes, or is there twice")
                    taken[name] = into / name
                    with taken[name].open("xb") as file:
                        shutil.copyfileobj(content, file)
                    taken[name].chmod(0o755)
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        ValueError,
    ) as error:  # tarfile's own, for numbers
        raise StepFailed(f"{who}: {path} is not a release tarball: {error}") from error
    missing = [name for name in REQUIRED if name not in taken]
    if missing:
        raise SourceUnavailable(f"{who}: {path.name} has no regular file {stem(version, arch)}/{missing[0]}")
    return taken
