"""The cache of etcd releases on the controller, and the search through the configured sources."""

from __future__ import annotations

import gzip
import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import filelock

from steps.core.base.digest import digest, file_digest
from steps.core.base.errors import SourceUnavailable, StepFailed
from steps.core.base.hints import again
from steps.core.node.resources import SUFFIXES, Blob, Stream
from steps.core.release.binaries import BINARIES, REQUIRED, elf_arch, own_arch, printed_version
from steps.core.release.contracts import Release, ReleaseSource
from steps.core.release.tarball import stem

# Measured on the three binaries of 3.5.30 (68 MB), which share much of their code: gzip 4 25.0 MB in 1.3 s; zstd as one
# stream 16.5 MB at level 3 in 0.5 s, 15.3 MB at 6 in 1.2 s, 14.7 MB at 10 in 1.9 s (one by one: 22.6 MB at 6). A node
# unpacks gzip's in 0.45 s, zstd's in 0.15 s.
GZIP_LEVEL = 4
ZSTD_LEVEL = 10
# log2 of the bytes in which zstd looks for what it has seen, and that a node needs to unpack: the largest that zstd -d
# takes by itself. No more than the stream has, which is 68 MB.
WINDOW = 27
STREAM = "binaries"
RECORD = "release.json"  # of an entry: where it came from, its digests

Sources = Sequence[tuple[str, ReleaseSource]]


@dataclass(frozen=True)
class TarballRelease(Release):
    """A release out of a tarball with this SHA-256: the only kind that a pin can be compared with."""

    tarball: str = ""


@dataclass(frozen=True)
class Staged:
    """A release in the cache, verified a moment ago: binary's name → the file."""

    version: str
    arch: str
    binaries: Mapping[str, Blob]
    source: str
    origin: str
    verified_by: str
    tarball: str = ""  # its SHA-256, where it came out of one


def default_cache() -> Path:
    """$XDG_CACHE_HOME/etcd-steps, else ~/.cache/etcd-steps (XDG base directory specification: relative is ignored)."""
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "etcd-steps"


def _silent(message: str) -> None:
    """For whoever does not want to hear why the cache was not used."""


def cached(
    sources: Sources, version: str, arch: str, *, cache: Path, pin: str | None, say: Callable[[str], None] = _silent
) -> Staged | None:
    """What the cache has, if one of `sources` put it there and would again, it fits the pin and every digest holds.

    The sources count: a binary that came from this machine's PATH, or from the distribution, is not what a cluster
    that asks for the upstream release gets. A source may have `still(origin: str) -> bool`, asked whether what it once
    served from `origin` is current. All files are hashed every time (107 MB with the packed ones: about 0.1 s).
    Writes nothing.
    """
    doubts, found = [], list[tuple[int, Path, dict[str, Any]]]()
    order = [name for name, _ in sources]
    for folder in _entries(cache, version, arch):
        try:
            record = json.loads((folder / RECORD).read_text())
            doubt = foreign(record, dict(sources), pin)
            if not doubt:
                found.append((order.index(record["source"]), folder, record))
        except FileNotFoundError:
            doubt = f"{RECORD} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            doubt = f"{RECORD} is damaged ({type(error).__name__})"
        doubts += [doubt] if doubt else []
    for _, folder, record in sorted(found, key=itemgetter(0)):
        try:
            doubt = _damage(folder, record["digests"])
            if not doubt:
                return _staged(folder, record, version, arch)
        except FileNotFoundError as error:
            doubt = f"{Path(error.filename).name} is missing"
        except (OSError, KeyError, TypeError, AttributeError) as error:
            doubt = f"{RECORD} is damaged ({type(error).__name__})"
        doubts.append(doubt)
    for doubt in doubts:
        say(f"the cached etcd {version} ({arch}) is not used: {doubt}")
    return None


def _entries(cache: Path, version: str, arch: str) -> list[Path]:
    """Clusters that want the same version from other sources have an entry each."""
    name = stem(version, arch)
    return sorted(each for each in cache.glob(f"{name}*") if each.name == name or each.name.startswith(f"{name}-"))


def _staged(folder: Path, record: Mapping[str, Any], version: str, arch: str) -> Staged:
    digests = record["digests"]
    names = [name for name in BINARIES if name in digests]
    stream = _stream(folder, names)
    return Staged(
        version,
        arch,
        {name: Blob(folder / name, digests[name], stream, f"{name} {version} ({arch})") for name in names},
        source=record["source"],
        origin=record["origin"],
        verified_by=record["verified_by"],
        tarball=record["tarball"],
    )


def _damage(folder: Path, digests: Mapping[str, str]) -> str:
    """What is wrong with an entry's files; empty where all is as it was verified."""
    binaries = [name for name in BINARIES if name in digests]
    if not {*REQUIRED} <= {*binaries}:
        return "etcd or etcdctl is missing"
    wrong = [file for file in _files(binaries) if file_digest(folder / file) != digests[file]]
    return f"{', '.join(wrong)} changed since it was verified" if wrong else ""


def foreign(record: Mapping[str, Any], sources: Mapping[str, ReleaseSource], pin: str | None) -> str:
    """Why what this record is about is not what [release] asks for; empty where it is."""
    name, origin = record["source"], record["origin"]
    if name not in sources:
        return f'it came from "{name}", which [release] sources does not list'
    still = getattr(sources[name], "still", None)
    if still and not still(origin):
        return f"it came from {origin}, which changed or is not what [release] names"
    if pin and record["tarball"] != pin.lower():
        return f"its tarball has sha256 {record['tarball'] or 'unknown'}, pinned is {pin.lower()}"
    return ""


def _files(binaries: Iterable[str]) -> Iterator[str]:
    """What an entry has: each binary, and all of them packed."""
    yield from binaries
    yield from (STREAM + suffix for suffix in SUFFIXES.values())


def fetch(
    sources: Sources,
    version: str,
    arch: str,
    *,
    cache: Path,
    pin: str | None,
    deadline: float,
    say: Callable[[str], None],
) -> Staged:
    """The release, from the cache or from the first source that serves it; `deadline` (seconds) covers the search.

    Of two processes that want the same release one fetches and the other waits. A source that cannot serve says so in
    one line through `say`. Raises StepFailed where none serves it (with every line), a digest does not match, or a
    binary is not the one that was asked for; the cache then keeps what it had.
    """
    ends = time.monotonic() + deadline
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(cache / f".{stem(version, arch)}.lock", deadline):
            staged = cached(sources, version, arch, cache=cache, pin=pin)
            if staged:
                return staged
            with _workshop(cache / f".{stem(version, arch)}.new") as work:
                _search(sources, version, arch, pin=pin, ends=ends, say=say, work=work)
                _publish(work / "entry", cache, version, arch, work / "old")
    except OSError as error:
        raise StepFailed(f"cannot keep etcd {version} ({arch}) in {cache}: {error}") from error
    staged = cached(sources, version, arch, cache=cache, pin=pin)
    if not staged:
        raise StepFailed(f"{cache}/{stem(version, arch)}-* changed while it was written", hint="who else writes there?")
    return staged


@contextmanager
def _locked(file: Path, deadline: float) -> Iterator[None]:
    try:
        with filelock.FileLock(file, timeout=deadline):
            yield
    except filelock.Timeout as error:
        raise StepFailed(
            f"another run held {file} for {deadline:.0f} s", hint=f"let it end, then: {again()}"
        ) from error


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """An empty directory beside the entries. Its name is constant: what a killed run left is found and removed."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _search(
    sources: Sources,
    version: str,
    arch: str,
    *,
    pin: str | None,
    ends: float,
    say: Callable[[str], None],
    work: Path,
) -> None:
    """Asks each source; the first release that passes becomes the directory `work`/entry."""
    lines = []
    for number, (name, source) in enumerate(sources):
        into = work / str(number)
        into.mkdir()
        try:
            release = source.fetch(version, arch, into, max(ends - time.monotonic(), 0))
            _accept(release, version, arch, pin)
        except SourceUnavailable as error:
            line = error.message if error.message.startswith(f"{name}: ") else f"{name}: {error.message}"
            lines.append(line)
            say(line)
            continue
        _write(release, name, version, arch, work / "entry")
        return
    raise StepFailed(
        "\n    ".join([f"no source has etcd {version} for {arch}", *lines]),
        hint="see [release] in etcd.toml: sources, mirror, path, suite",
    )


def _accept(release: Release, version: str, arch: str, pin: str | None) -> None:
    """Raises StepFailed for binaries that are not what was asked for, SourceUnavailable for ones of no use here.

    Runs them for their version only where their digest is trusted: pinned, signed for, or this machine's own.
    """
    tarball = release.tarball if isinstance(release, TarballRelease) else ""
    if pin and tarball != pin.lower():
        raise SourceUnavailable(f"{release.origin} cannot be compared with the tarball's sha256 pinned in [release]")
    missing = [name for name in REQUIRED if name not in release.binaries]
    if missing:
        raise StepFailed(f"{release.origin} has no {missing[0]}")
    for name, file in release.binaries.items():
        found = elf_arch(file)
        if found != arch:
            raise StepFailed(f"{release.origin}: {name} is {f'for {found}' if found else 'no ELF binary'}, not {arch}")
        if arch != own_arch():
            continue
        if isinstance(release, TarballRelease) and not pin:
            # SHA256SUMS came from where the tarball came from: whoever changed one changed both.
            if not _has(file, version.encode()):
                raise StepFailed(f"{release.origin}: {name} is not {version}: nowhere does it say so")
            continue
        file.chmod(0o755)
        try:
            printed = printed_version(file)
        except ValueError as error:
            raise SourceUnavailable(f"{release.origin}: {error}") from error
        if printed != version:
            raise StepFailed(f"{release.origin}: {name} is {printed}, not {version}")


def _has(file: Path, text: bytes) -> bool:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def _write(release: Release, source: str, version: str, arch: str, entry: Path) -> None:
    entry.mkdir(mode=0o755)
    for name, file in release.binaries.items():
        shutil.move(file, entry / name)
        (entry / name).chmod(0o755)
    _pack(_stream(entry, [name for name in BINARIES if name in release.binaries]))
    record = {
        "version": version,
        "arch": arch,
        "source": source,
        "origin": release.origin,
        "verified_by": release.verified_by,
        "tarball": release.tarball if isinstance(release, TarballRelease) else "",
        "digests": {file: file_digest(entry / file) for file in _files(release.binaries)},
    }
    (entry / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _stream(folder: Path, binaries: Iterable[str]) -> Stream:
    return Stream(folder / STREAM, tuple((name, (folder / name).stat().st_size) for name in binaries))


def _pack(stream: Stream) -> None:
    """Packs it for each program that may unpack it. The same input gives the same bytes."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    options: Mapping[int, int] = {
        zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
        zstd.CompressionParameter.window_log: WINDOW,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    pack: Mapping[str, Callable[[bytes], bytes]] = {
        "zstd": lambda content: zstd.compress(content, options=options),
        "gzip": lambda content: gzip.compress(content, GZIP_LEVEL, mtime=0),
    }
    content = b"".join(stream.path.with_name(name).read_bytes() for name, _ in stream.sizes)
    with ThreadPoolExecutor() as pool:
        for program, packed in {name: pool.submit(make, content) for name, make in pack.items()}.items():
            stream.packed(program).write_bytes(packed.result())


def _publish(entry: Path, cache: Path, version: str, arch: str, old: Path) -> None:
    """Gives the entry its name: the digest of its record, and with that of all in it.

    An entry of a place whose files have changed since is of no use any more, and goes. A directory is not renamed over
    a full one: what has the name moves aside first. Killed between, there is none.
    """
    record = (entry / RECORD).read_bytes()
    folder = cache / f"{stem(version, arch)}-{digest(record)[:16]}"
    past = [each for each in _entries(cache, version, arch) if each == folder or _same_place(each, json.loads(record))]
    for number, each in enumerate(past):
        old.mkdir(exist_ok=True)
        each.rename(old / str(number))
    entry.rename(folder)


def _same_place(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether an entry came from the same files, as they were before. Origins of source "path" end in their time."""
    try:
        other = json.loads((folder / RECORD).read_text())
        place, dated, _ = record["origin"].rpartition(" of ")
        return bool(dated and other["source"] == record["source"] and other["origin"].startswith(f"{place} of "))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True  # it is damaged, and nothing will ever use it
