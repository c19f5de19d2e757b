"""Release source "debian": the distribution's own etcd packages, fetched by apt as any user, installed nowhere."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from steps.core.base.architectures import debian_name
from steps.core.base.errors import SourceUnavailable
from steps.core.base.urls import masked_url
from steps.core.release.binaries import BINARIES, run
from steps.core.release.contracts import Release

PACKAGES = ("etcd-server", "etcd-client")

# Over the machine's own configuration, whose proxy and login settings stay. Nothing unsigned is accepted and no hook
# of the machine runs, whatever that configuration says. Sandbox: apt's own user could not read a private directory.
_CONF = """\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::PDiffs "false";
Acquire::Retries "2";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""


@dataclass(frozen=True)
class Entry:
    """One line of sources.list, or one paragraph of a .sources file: the parts that say which archive and whose key."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: Mapping[str, str]  # Signed-By, Check-Valid-Until: as they stand in deb822


def parse_list(text: str) -> list[Entry]:
    """The `deb` lines of a one-line-style file (sources.list(5))."""
    entries = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)", line)
        if match:
            pairs = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
            kept = {key: pairs[key.lower()].replace(",", " ") for key in _KEPT if key.lower() in pairs}
            entries.append(Entry((match[2],), (match[3],), tuple(match[4].split()), kept))
    return entries


def parse_deb822(text: str) -> list[Entry]:
    """The enabled `deb` paragraphs of a deb822-style file (sources.list(5))."""
    entries = []
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", lines):
        found = re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        fields = {key.lower(): value.strip() for key, value in found}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {"no", "false"}:
            continue
        uris, suites, components = (tuple(fields.get(key, "").split()) for key in ("uris", "suites", "components"))
        kept = {key: fields[key.lower()] for key in _KEPT if key.lower() in fields}
        entries.append(Entry(uris, suites, components, kept))
    return entries


_KEPT = ("Signed-By", "Check-Valid-Until")


def main_archive(entries: Sequence[Entry], suite: str, distribution: str, codename: str) -> Entry | None:
    """Debian's main archive among everything that is configured, as an entry for `suite`; None where there is none.

    First what is signed by Debian's own keyring, then what is mirrored under the name debian, then, on Debian, whatever
    serves the machine's own suite. Security, updates and backports have a dash or a slash in their suite.
    """
    ranked: list[tuple[int, int, Entry]] = []
    for entry in entries:
        plain = [name for name in entry.suites if re.fullmatch(r"[a-z]+", name)]
        if not plain or "main" not in entry.components:
            continue
        for uri in entry.uris:
            likely = [
                "debian-archive" in entry.options.get("Signed-By", ""),
                bool(re.search(r"/debian(\.list)?/?$", uri)),
                distribution == "debian" and codename in plain,
            ]
            if any(likely) and not uri.startswith("cdrom:"):
                ranked.append((likely.index(True), len(ranked), Entry((uri,), (suite,), ("main",), entry.options)))
    return min(ranked)[2] if ranked else None


def upstream(version: str) -> str:
    """Upstream's version in Debian's: epoch, revision and repacking suffix removed (deb-version(7))."""
    bare = re.sub(r"^\d+:", "", version)
    return re.split(r"[+~]", bare.rpartition("-")[0] or bare)[0]


@dataclass(frozen=True)
class DebianSource:
    """`suite` is a suite's codename (trixie); `state` is a directory of ours where apt keeps its lists."""

    suite: str
    state: Path

    def fetch(self, version: str, arch: str, into: Path, deadline: float) -> Release:
        """See ReleaseSource."""
        with _opened(self.suite, arch, self.state, deadline) as apt:
            full = apt.version(PACKAGES)
            if upstream(full) != version:
                raise SourceUnavailable(f"debian: {self.suite} has {upstream(full)}, not {version}")
            tree = into / "tree"
            apt.unpack([f"{package}={full}" for package in PACKAGES], tree)
            binaries = {}
            for name in BINARIES:
                if (tree / "usr/bin" / name).is_file():
                    binaries[name] = (tree / "usr/bin" / name).rename(into / name)
            shutil.rmtree(tree)
            origin = f"{masked_url(apt.archive.uris[0])} {self.suite} etcd {full}"
            return Release(binaries, origin=origin, verified_by="apt (the archive's signature)")


def offered(suite: str, arch: str, state: Path, deadline: float) -> str:
    """The version of etcd, in upstream's words (3.5.16), that a suite has. Raises SourceUnavailable."""
    with _opened(suite, arch, state, deadline) as apt:
        return upstream(apt.version(PACKAGES))


def unpacked(packages: Sequence[str], suite: str, arch: str, *, state: Path, into: Path, deadline: float) -> str:
    """Unpacks packages built from one source into the new directory `into`; returns Debian's version of them.

    Raises SourceUnavailable.
    """
    with _opened(suite, arch, state, deadline) as apt:
        full = apt.version(packages)
        apt.unpack([f"{package}={full}" for package in packages], into)
        return full


@contextmanager
def _opened(suite: str, arch: str, state: Path, deadline: float) -> Iterator[_Apt]:
    """apt with fresh lists of that suite alone, in a directory of its own, which one process uses at a time."""
    for program in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        if not shutil.which(program):
            raise SourceUnavailable(f"debian: this machine has no {program}")
    folder = state.absolute() / f"{suite}-{arch}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ends = time.monotonic() + deadline
    try:
        with filelock.FileLock(folder / "lock", timeout=deadline):
            apt = _Apt(folder, suite, arch, _archive(suite, ends), ends)
            apt.update()
            yield apt
    except filelock.Timeout as error:
        raise SourceUnavailable(f"debian: another run held {folder} for {deadline:.0f} s") from error


def _archive(suite: str, ends: float) -> Entry:
    shell = "LIST Dir::Etc::sourcelist/f PARTS Dir::Etc::sourceparts/d"
    words = _ask(["apt-config", "shell", *shell.split()], ends)
    places = dict(word.split("=", 1) for word in shlex.split(words) if "=" in word)
    files = [Path(places["LIST"]), *sorted(Path(places["PARTS"]).glob("*"))]
    entries: list[Entry] = []
    for file in files:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(file.suffix)
        if parse and file.is_file():
            try:
                entries += parse(file.read_text(errors="replace"))
            except OSError as error:
                raise SourceUnavailable(f"debian: cannot read {file}: {error.strerror}") from error
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    archive = main_archive(entries, suite, release.get("ID", ""), release.get("VERSION_CODENAME", ""))
    if archive is None:
        name = release.get("PRETTY_NAME", "this machine")
        raise SourceUnavailable(f"debian: apt of this machine ({name}) is not configured for Debian's archive")
    return archive


def _ask(argv: Sequence[str | Path], ends: float, cwd: Path | None = None) -> str:
    """A program's output; SourceUnavailable with its own first complaint where it fails or is not done in time."""
    left = ends - time.monotonic()
    try:
        result = run(argv, deadline=left, cwd=cwd, env={**os.environ, "LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired) as error:
        cause = error.strerror if isinstance(error, OSError) else f"was not done in {max(left, 0):.1f} s"
        raise SourceUnavailable(f"debian: {argv[0]}: {cause}") from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "Err:", "dpkg-deb: error:"))]
        said = (lines or result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[0]
        raise SourceUnavailable(f"debian: {argv[0]}: {said.removeprefix('E: ')}")
    return result.stdout


@dataclass(frozen=True)
class _Apt:
    folder: Path
    suite: str
    arch: str
    archive: Entry
    ends: float

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        places = {
            "Dir::State": self.folder / "state",
            "Dir::State::lists": self.folder / "state/lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Cache::archives": self.folder / "cache/archives",
            "Dir::Etc::sourcelist": self.folder / "debian.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
        }
        options = [word for key, value in places.items() for word in ("-o", f"{key}={value}")]
        return _ask([program, "-c", self.folder / "apt.conf", "-qq", *options, *arguments], self.ends, cwd)

    def update(self) -> None:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        arch = debian_name(self.arch)
        fields = {
            "Types": "deb",
            "URIs": self.archive.uris[0],
            "Suites": self.suite,
            "Components": "main",
            "Architectures": arch,
            "Targets": "Packages",
            **self.archive.options,
        }
        sources = self.folder / "debian.sources"
        sources.touch(mode=0o600)  # the machine's URI may carry a login
        sources.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        (self.folder / "apt.conf").write_text(_CONF.format(arch=arch))
        (self.folder / "status").write_text("")  # nothing is installed: no dependency of this machine counts
        self._run("apt-get", "update")
        form = "$(ORIGIN)/$(LABEL)"
        labels = set(self._run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines())
        if labels != {"Debian/Debian"}:
            called = ", ".join(sorted(labels)) or "nothing"
            raise SourceUnavailable(f"debian: {self.archive.uris[0]} calls itself {called}, not Debian")

    def version(self, packages: Sequence[str]) -> str:
        """The one version that all these packages have."""
        versions = set()
        for package in packages:
            listed = self._run("apt-cache", "madison", package).splitlines()
            if not listed:
                raise SourceUnavailable(f"debian: {self.suite} has no {package} for {self.arch}")
            versions.add(listed[0].split("|")[1].strip())
        if len(versions) > 1:
            raise SourceUnavailable(f"debian: {self.suite} has several versions: {', '.join(sorted(versions))}")
        return versions.pop()

    def unpack(self, packages: Sequence[str], into: Path) -> None:
        """Downloads and unpacks; apt has compared each package with the signed lists."""
        into.mkdir()
        fetched = into / ".packages"
        fetched.mkdir()
        self._run("apt-get", "download", *packages, cwd=fetched)
        for package in sorted(fetched.glob("*.deb")):
            _ask(["dpkg-deb", "--extract", package, into], self.ends)
        shutil.rmtree(fetched)
