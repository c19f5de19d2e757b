"""Release source "path": a tarball or a directory on the controller, or what is on its PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from steps.core.base.errors import SourceUnavailable
from steps.core.release import tarball
from steps.core.release.binaries import BINARIES, REQUIRED, elf_arch, own_arch, printed_version
from steps.core.release.contracts import Release
from steps.core.release.releases import RECORD, TarballRelease, default_cache

ENVIRONMENT = "environment.sh"  # what every work directory has


@dataclass(frozen=True)
class PathSource:
    """`path`: a release tarball (pinned in `sha256`, architecture → hex digest, or with SHA256SUMS beside it), or a
    directory of binaries. Without it, and with `search_path`, the etcd and etcdctl on this machine's PATH, never meant
    for another machine. Copies of our own are no source: those in a release cache, and in a cluster's work directory
    (`work` is this one's), which its environment.sh puts in front of the PATH.
    """

    path: Path | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    search_path: bool = False
    work: Path | None = None

    def fetch(self, version: str, arch: str, into: Path, deadline: float) -> Release:
        """See ReleaseSource. Reads local files only; `deadline` bounds each `--version`."""
        if self.path is None and not self.search_path:
            raise SourceUnavailable('path: [release] path is not set (PATH is searched only under service = "process")')
        files = self._files()
        if not files:
            what = f"{self.path} does not exist" if self.path else f"no etcd on this machine's PATH{self._skipped()}"
            raise SourceUnavailable(f"path: {what}")
        if self.path and any(_cached(file.resolve()) for file in files.values()):
            raise SourceUnavailable(f"path: {self.path} leads to this tool's own cache, which is no source of releases")
        if self.path and self.path.is_file():
            return self._tarball(self.path, version, arch, into)
        missing = [name for name in REQUIRED if name not in files]
        if missing:
            raise SourceUnavailable(f"path: no {missing[0]} {f'in {self.path}' if self.path else 'on the PATH'}")
        for name, file in files.items():
            _check(file, version, arch, deadline)
            shutil.copyfile(file, into / name)
            (into / name).chmod(0o755)
        proof = "its own --version" if arch == own_arch() else "its ELF header only"
        return Release({name: into / name for name in files}, origin=self._origin(files.values()), verified_by=proof)

    def still(self, origin: str) -> bool:
        """Whether what was cached from `origin` is what stands there now."""
        files = self._files()
        return bool(files) and origin == self._origin(files.values())

    def _files(self) -> dict[str, Path]:
        if self.path is None:
            places = os.pathsep.join(each for each in os.get_exec_path() if not self._own(Path(each)))
            found = {name: shutil.which(name, path=places) for name in BINARIES if self.search_path}
            return {name: Path(file).resolve() for name, file in found.items() if file}
        if self.path.is_dir():
            return {name: self.path / name for name in BINARIES if (self.path / name).is_file()}
        return {self.path.name: self.path} if self.path.is_file() else {}

    def _own(self, place: Path) -> bool:
        """Whether a directory on the PATH has copies of our own: links into the cache, a node's binaries."""
        homes = [each for home in (place.absolute(), place.resolve()) for each in (home, *home.parents)]
        if self.work and {self.work, self.work.resolve()} & {*homes}:
            return True
        linked = any(_cached((place / name).resolve()) for name in BINARIES)
        return linked or any(_seen(home / ENVIRONMENT) for home in homes if place.name == "bin")

    def _skipped(self) -> str:
        own = [each for each in os.get_exec_path() if self._own(Path(each))]
        return f" but this tool's own, in {', '.join(dict.fromkeys(own))}" if own else ""

    def _origin(self, files: Iterable[Path]) -> str:
        """Where they are and when they last changed: an edited path or a rebuilt binary is not what was cached."""
        newest = datetime.fromtimestamp(max(file.stat().st_mtime for file in files), timezone.utc)
        where = self.path or f"PATH ({' '.join(str(file) for file in files)})"
        return f"{where} of {newest.isoformat(timespec='microseconds')}"

    def _tarball(self, path: Path, version: str, arch: str, into: Path) -> TarballRelease:
        pin, sums = self.sha256.get(arch, "").lower(), path.parent / "SHA256SUMS"
        proof = "the sha256 pinned in [release]" if pin else str(sums)
        if not pin:
            if not sums.is_file():
                raise SourceUnavailable(f"path: {path} has neither a pin in [release] sha256 nor SHA256SUMS beside it")
            pin = tarball.digest_in(sums.read_text(errors="replace"), path.name, str(sums))
        tarball.verify(path, pin, str(path), proof)
        binaries = tarball.unpack(path, version, arch, into, who="path")
        return TarballRelease(binaries, origin=self._origin([path]), verified_by=proof, tarball=pin)


def _cached(file: Path) -> bool:
    """Whether it lies in a release cache: this user's, or another's, which its record tells."""
    return file.is_relative_to(default_cache().resolve()) or _seen(file.parent / RECORD)


def _seen(file: Path) -> bool:
    """Whether it is a file that this user can see: a PATH may name directories of others, as root's."""
    try:
        return file.is_file()
    except PermissionError:
        return False


def _check(file: Path, version: str, arch: str, deadline: float) -> None:
    """The architecture by the ELF header; the version too, where the binary can run here."""
    found = elf_arch(file)
    if found != arch:
        raise SourceUnavailable(f"path: {file} is {f'for {found}' if found else 'no ELF binary'}, not for {arch}")
    if arch != own_arch():
        return
    try:
        printed = printed_version(file, deadline=min(10, deadline))
    except ValueError as error:
        raise SourceUnavailable(f"path: {error}") from error
    if printed != version:
        raise SourceUnavailable(f"path: {file} is {printed}, not {version}")
