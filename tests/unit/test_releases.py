"""The parts of the release sources that need no network: tar, SHA256SUMS, ELF, apt's sources, the cache."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest

from steps.builtin import debian
from steps.builtin.debian import Entry, main_archive, parse_deb822, parse_list, upstream
from steps.builtin.path import PathSource
from steps.core.base.digest import digest
from steps.core.base.errors import SourceUnavailable, StepFailed
from steps.core.base.urls import masked
from steps.core.release import releases, tarball, web
from steps.core.release.binaries import elf_arch, own_arch, printed_version, run
from steps.core.release.contracts import Release, ReleaseSource
from steps.core.release.releases import TarballRelease, cached, default_cache, fetch

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FOREIGN = "s390x" if own_arch() != "s390x" else "amd64"  # never run here, so a header is enough
HEADERS = {"amd64": ("<", 2, 1, 62), "arm64": ("<", 2, 1, 183), "s390x": (">", 2, 2, 22), "386": ("<", 1, 1, 3)}
TOP = f"etcd-v3.5.16-linux-{FOREIGN}"


def elf(arch: str, body: bytes = b"") -> bytes:
    order, kind, data, machine = HEADERS[arch]
    return b"\x7fELF" + bytes([kind, data, 1]) + bytes(9) + struct.pack(f"{order}HH", 2, machine) + body


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), link
    return info, content


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


GOOD = (member(f"{TOP}/etcd", elf(FOREIGN, b"etcd")), member(f"{TOP}/etcdctl", elf(FOREIGN, b"ctl")))


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "a/b/into"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "hostile",
    [
        member("../../evil", b"x"),
        member(f"{TOP}/../../../evil", b"x"),
        member("/etc/evil", b"x"),
        member(f"{TOP}/etcdutl", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member(f"{TOP}/etcdutl", kind=tarfile.LNKTYPE, link=f"{TOP}/etcd"),
        member(f"{TOP}/etcdutl", kind=tarfile.CHRTYPE),
        member(f"{TOP}/etcdutl", kind=tarfile.FIFOTYPE),
        member("etcdutl", b"beside the release's folder"),
        member(f"{TOP}/README.md", b"# etcd"),
        member(TOP, kind=tarfile.SYMTYPE, link="/tmp"),
    ],
    ids=lambda item: f"{item[0].name}-{item[0].type.decode()}",
)
def test_only_the_expected_regular_files_leave_a_tarball(
    tmp_path: Path, into: Path, hostile: tuple[tarfile.TarInfo, bytes]
) -> None:
    path = archive(tmp_path / "t.tar.gz", hostile, *GOOD)
    before = {*tmp_path.rglob("*")}
    taken = tarball.unpack(path, "3.5.16", FOREIGN, into, who="test")
    assert {*tmp_path.rglob("*")} - before == {into / "etcd", into / "etcdctl"}
    assert {name: file.read_bytes() for name, file in taken.items()} == {
        "etcd": elf(FOREIGN, b"etcd"),
        "etcdctl": elf(FOREIGN, b"ctl"),
    }
    assert (into / "etcd").stat().st_mode & 0o777 == 0o755


def test_a_binary_beyond_the_cap_is_refused(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MAX_BINARY", 10)
    with pytest.raises(StepFailed, match="bytes"):
        tarball.unpack(archive(tmp_path / "t.tar.gz", *GOOD), "3.5.16", FOREIGN, into, who="test")
    assert not [*into.iterdir()]


def test_a_bomb_is_not_inflated(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MAX_UNPACKED", 1 << 20)
    path = archive(tmp_path / "t.tar.gz", member("zeros", bytes(4 << 20)), *GOOD)
    with pytest.raises(StepFailed, match="unpacks to more"):
        tarball.unpack(path, "3.5.16", FOREIGN, into, who="test")


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def pax(text: bytes) -> bytes:
    return header(tarfile.XHDTYPE, len(text)) + text.ljust(512, b"\0")


packed = functools.cache(partial(gzip.compress, compresslevel=1))  # a stream of several is one
HUGE = 400 << 20
HOSTILE: dict[str, Callable[[], Iterator[bytes]]] = {
    "a pax header of 400 MB": lambda: iter([header(tarfile.XHDTYPE, HUGE), *[bytes(1 << 20)] * 400]),
    "a global header of 400 MB": lambda: iter([header(tarfile.XGLTYPE, HUGE), *[bytes(1 << 20)] * 400]),
    "a name of 400 MB": lambda: iter([header(tarfile.GNUTYPE_LONGNAME, HUGE), *[b"x" * (1 << 20)] * 400]),
    "millions of headers": lambda: repeat(header(tarfile.REGTYPE, 0), 50_000),
    "headers of headers": lambda: repeat(pax(b"9 a=bcde\n"), 5_000),
    "a sparse file": lambda: iter([header(tarfile.GNUTYPE_SPARSE, 0)[:482] + b"\1" + bytes(29), *[b"7" * 512] * 1000]),
    "a sparse file of pax": lambda: iter(
        [pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"), header(tarfile.REGTYPE, HUGE), b"9" * 400 + b"\n"]
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_unpack_hostile_headers_end_soon_and_in_little_memory(tmp_path: Path, into: Path, kind: str) -> None:
    path = tmp_path / "t.tar.gz"
    with path.open("wb") as file:
        for chunk in HOSTILE[kind]():
            file.write(packed(chunk))
    limited = (
        "import resource, sys; from pathlib import Path; from steps.core.release import tarball;"
        "resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20));"
        "resource.setrlimit(resource.RLIMIT_CPU, (8, 8));"
        f"tarball.unpack(Path(sys.argv[1]), '3.5.16', '{FOREIGN}', Path(sys.argv[2]), who='test')"
    )
    argv = [sys.executable, "-c", limited, path, into]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("steps.core.base.errors.StepFailed: test: "), last
    assert "is not a release tarball" in last
    assert not [*into.iterdir()]


def test_the_same_binary_twice_is_refused(tmp_path: Path, into: Path) -> None:
    with pytest.raises(StepFailed, match="twice"):
        tarball.unpack(archive(tmp_path / "t.tar.gz", *GOOD, *GOOD), "3.5.16", FOREIGN, into, who="test")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", gzip.compress(b"no tar"), gzip.compress(bytes(range(256)) * 40)[:-20]],
    ids=["empty", "html", "gzip", "cut"],
)
def test_what_is_no_tarball_is_said_to_be_none(tmp_path: Path, into: Path, content: bytes) -> None:
    path = tmp_path / "t.tar.gz"
    path.write_bytes(content)
    with pytest.raises((StepFailed, SourceUnavailable), match="test: "):
        tarball.unpack(path, "3.5.16", FOREIGN, into, who="test")


def test_a_tarball_of_another_version_leaves_the_search_to_the_next_source(tmp_path: Path, into: Path) -> None:
    with pytest.raises(SourceUnavailable, match=f"etcd-v3.5.30-linux-{FOREIGN}/etcd"):
        tarball.unpack(archive(tmp_path / "t.tar.gz", *GOOD), "3.5.30", FOREIGN, into, who="test")


A, B = "a" * 64, "B" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{A}  etcd.tar.gz\n{B}  other.zip\n", {"etcd.tar.gz": A, "other.zip": B.lower()}),
        (f"{A} *etcd.tar.gz\r\n", {"etcd.tar.gz": A}),
        (f"{A}  ./etcd.tar.gz", {"etcd.tar.gz": A}),
        (f"{A[:-1]}  etcd.tar.gz\n", {}),
        (f"# {A}  etcd.tar.gz\n", {}),
        (f"{A}\n", {}),
        ("<!DOCTYPE html><html>log in</html>", {}),
        ("", {}),
    ],
)
def test_sha256sums(text: str, expected: dict[str, str]) -> None:
    assert tarball.sums(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [("<!DOCTYPE html>\n<html>", "no list of SHA-256.*DOCTYPE"), (f"{A}  etcd.zip\n", "lacks etcd.tar.gz")],
)
def test_a_useless_sha256sums_is_an_error(text: str, message: str) -> None:
    with pytest.raises(StepFailed, match=message):
        tarball.digest_in(text, "etcd.tar.gz", "http://mirror/SHA256SUMS")


@pytest.mark.parametrize(
    ("content", "arch"),
    [
        *((elf(arch, b"more"), arch) for arch in HEADERS),
        (elf("amd64")[:19], None),
        (b"#!/bin/sh\necho etcd Version: 3.5.16\n", None),
        (b"\x7fELF" + bytes(30), None),
        (b"", None),
    ],
)
def test_elf(tmp_path: Path, content: bytes, arch: str | None) -> None:
    (tmp_path / "etcd").write_bytes(content)
    assert elf_arch(tmp_path / "etcd") == arch


def test_this_python_is_of_this_architecture() -> None:
    assert elf_arch(Path("/proc/self/exe")) == own_arch()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo etcd Version: 3.5.16; echo Git SHA: 1", "3.5.16"),
        ('echo "etcd Version: ${ETCD_NAME-3.5.16}"', "3.5.16"),
        ("echo no 3.5.16", None),
        ("echo etcd Version: 3.5.16; exit 2", None),
        ("echo wrong glibc >&2; exit 1", None),
    ],
)
def test_printed_version(tmp_path: Path, script: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_NAME", "the operator's own")
    binary = tmp_path / "etcd"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    if expected:
        assert printed_version(binary) == expected
    else:
        with pytest.raises(ValueError, match="prints no version"):
            printed_version(binary)


def test_a_program_is_killed_with_its_children_at_the_deadline(tmp_path: Path) -> None:
    binary = tmp_path / "etcd"
    binary.write_text(f"#!/bin/sh\nsleep 60 &\necho $! >{tmp_path}/pid\nwait\n")
    binary.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(ValueError, match="no answer within"):
        printed_version(binary, deadline=0.5)
    assert time.monotonic() - began < 10
    child = int((tmp_path / "pid").read_text())
    while time.monotonic() - began < 10 and _alive(child):
        time.sleep(0.01)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_run_gives_output_and_exit_code() -> None:
    result = run(["sh", "-c", "echo out; echo err >&2; exit 3"], deadline=10)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


@pytest.mark.parametrize("where", ["1", "2"])
def test_run_program_that_prints_for_ever_is_killed(where: str) -> None:
    began = time.monotonic()
    with pytest.raises(StepFailed, match="sh was killed: it printed more than 16 MiB"):
        run(["sh", "-c", f"timeout 20 yes >&{where}"], deadline=60)
    assert time.monotonic() - began < 15


def test_run_program_gets_what_it_reads_and_may_read_none_of_it() -> None:
    much = "é" * 500_000
    assert run(["cat"], deadline=20, stdin=much).stdout == much
    result = run(["sh", "-c", "exec <&-; echo early"], deadline=20, stdin=much)
    assert (result.returncode, result.stdout) == (0, "early\n")


def test_run_program_that_prints_now_and_then_ends_at_the_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sh", "-c", "while echo more; do sleep 0.05; done"], deadline=0.5)
    assert time.monotonic() - began < 5


KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "deb http://mirror.test/debian bookworm main contrib # ours\n",
            [Entry(("http://mirror.test/debian",), ("bookworm",), ("main", "contrib"), {})],
        ),
        (
            f"deb [arch=amd64 signed-by={KEY},/b.gpg trusted=yes] http://mirror.test/debian trixie main\n",
            [Entry(("http://mirror.test/debian",), ("trixie",), ("main",), {"Signed-By": f"{KEY} /b.gpg"})],
        ),
        ("# deb http://mirror.test/debian bookworm main\ndeb-src http://mirror.test/debian bookworm main\n", []),
        ("deb http://mirror.test/flat ./\n", [Entry(("http://mirror.test/flat",), ("./",), (), {})]),
    ],
)
def test_one_line_sources(text: str, expected: list[Entry]) -> None:
    assert parse_list(text) == expected


DEB822 = f"""\
# made by the installer
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
# a comment inside
Components: main
Signed-By: {KEY}

Types: deb
Enabled: no
URIs: http://off.test/debian
Suites: sid
Components: main

types: deb
uris: http://key.test/debian
suites: sid
components: main
trusted: yes
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINB
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_deb822_sources() -> None:
    first, second = parse_deb822(DEB822)
    assert first == Entry(
        ("http://mirror.test/debian",), ("bookworm", "bookworm-updates"), ("main",), {"Signed-By": KEY}
    )
    assert second.uris == ("http://key.test/debian",)
    assert [*second.options] == ["Signed-By"]
    assert second.options["Signed-By"].splitlines()[1:] == [" .", " mQINB", " -----END PGP PUBLIC KEY BLOCK-----"]


OTHERS = """\
deb http://vendor.test/debian/12/prod bookworm main
deb [signed-by=/v.gpg] http://docker.test/linux/debian bookworm stable
deb http://mirror.test/debian-security bookworm-security main
deb http://mirror.test/debian bookworm-updates main
deb http://cloud.test/apt cloud-sdk-bookworm main
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OTHERS + "deb http://mirror.test/debian/ bookworm main\n", "http://mirror.test/debian/"),
        (OTHERS + f"deb [signed-by={KEY}] http://proxy.test/repo bookworm main\n", "http://proxy.test/repo"),
        (
            OTHERS + "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\n",
            "mirror+file:/etc/apt/mirrors/debian.list",
        ),
        ("deb http://nexus.test/repository/deb-proxy bookworm main\n", "http://nexus.test/repository/deb-proxy"),
        (f"deb [signed-by={KEY}] cdrom:[Debian] bookworm main\n", None),
        ("deb http://mirror.test/debian-security bookworm-security main\n", None),
        ("deb http://nodistro.test/node nodistro main\n", None),
        ("", None),
    ],
)
def test_the_main_archive_is_found_among_others(text: str, expected: str | None) -> None:
    archive = main_archive(parse_list(text), "trixie", "debian", "bookworm")
    assert (archive.uris[0] if archive else None) == expected
    assert archive is None or (archive.suites, archive.components) == (("trixie",), ("main",))


def test_ubuntu_has_no_debian_archive() -> None:
    entries = parse_list("deb http://archive.test/ubuntu noble main universe\n")
    assert main_archive(entries, "trixie", "ubuntu", "noble") is None


@pytest.mark.parametrize(
    ("full", "expected"),
    [("3.5.16-4", "3.5.16"), ("3.5.16+ds1-1", "3.5.16"), ("1:3.4.23~rc1-4+b12", "3.4.23"), ("3.5.30", "3.5.30")],
)
def test_upstream_version(full: str, expected: str) -> None:
    assert upstream(full) == expected


def test_debian_without_apt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="debian: this machine has no apt-get"):
        debian.offered("trixie", "amd64", tmp_path / "apt", 5)
    assert not (tmp_path / "apt").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("via http://bob:s3cret@proxy.test:3128/ it fails", "via http://***@proxy.test:3128/ it fails"),
        ("http://a.test/x@y https://u@b.test", "http://a.test/x@y https://***@b.test"),
    ],
)
def test_credentials_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("", "")),
        ({"HTTPS_PROXY": "http://p.test"}, ("HTTPS_PROXY", "http://p.test")),
        ({"HTTPS_PROXY": "http://p.test", "https_proxy": "http://q.test"}, ("https_proxy", "http://q.test")),
        ({"HTTP_PROXY": "http://p.test"}, ("", "")),
        ({"ALL_PROXY": "http://p.test"}, ("ALL_PROXY", "http://p.test")),
        ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "mirror.test"}, ("", "")),
    ],
)
def test_the_proxy_of_the_environment(
    environment: dict[str, str], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert web.proxy_for("https://mirror.test/x") == expected
    assert web.proxy_for("http://127.0.0.1:1/x") == ("", "")


class Fake:
    """A source that writes two foreign binaries, or raises."""

    def __init__(
        self, error: Exception | None = None, digest: str = A, arch: str = FOREIGN, shared: bytes = b""
    ) -> None:
        self.error, self.digest, self.arch, self.shared, self.calls = error, digest, arch, shared, 0

    def fetch(self, version: str, arch: str, into: Path, deadline: float) -> Release:
        self.calls += 1
        assert not [*into.iterdir()]
        if self.error:
            (into / "partial").write_bytes(b"x")
            raise self.error
        for name in ("etcd", "etcdctl"):
            (into / name).write_bytes(elf(self.arch, name.encode() * 1000 + self.shared))
        binaries = {name: into / name for name in ("etcd", "etcdctl")}
        return (
            TarballRelease(binaries, "fake://origin", "a fake", self.digest)
            if self.digest
            else Release(binaries, "fake://origin", "a fake")
        )


class Search:
    def __init__(self, cache: Path) -> None:
        self.cache, self.said = cache, list[str]()

    def fetch(self, *sources: tuple[str, ReleaseSource], pin: str | None = None) -> releases.Staged:
        return fetch(
            sources,
            "3.5.16",
            FOREIGN,
            cache=self.cache,
            pin=pin,
            deadline=30,
            say=self.said.append,
        )

    def cached(self, *sources: tuple[str, ReleaseSource], pin: str | None = None) -> releases.Staged | None:
        return cached(sources, "3.5.16", FOREIGN, cache=self.cache, pin=pin, say=self.said.append)

    @property
    def entries(self) -> list[Path]:
        return [path for path in self.cache.iterdir() if path.name.startswith(f"{TOP}-")]

    @property
    def entry(self) -> Path:
        (entry,) = self.entries
        return entry

    def leftovers(self) -> list[str]:
        return [path.name for path in self.cache.iterdir() if path.suffix != ".lock" and path not in self.entries]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path / "cache")


def test_what_was_fetched_is_kept_and_whole(search: Search) -> None:
    source = Fake()
    staged = search.fetch(("fake", source))
    assert [*staged.binaries] == ["etcd", "etcdctl"]
    assert (staged.source, staged.origin, staged.verified_by) == ("fake", "fake://origin", "a fake")
    for blob in staged.binaries.values():
        content = blob.path.read_bytes()
        assert blob.digest == digest(content)
        assert blob.path.stat().st_mode & 0o777 == 0o755
    (stream,) = {blob.stream for blob in staged.binaries.values()}
    contents = {name: blob.path.read_bytes() for name, blob in staged.binaries.items()}
    assert dict(stream.sizes) == {name: len(content) for name, content in contents.items()}
    assert gzip.decompress(stream.packed("gzip").read_bytes()) == b"".join(contents.values())
    assert zstd.decompress(stream.packed("zstd").read_bytes()) == b"".join(contents.values())
    assert search.cached(("fake", source)) == staged
    assert search.fetch(("fake", source)) == staged
    assert (source.calls, search.said, search.leftovers()) == (1, [], [])
    record = json.loads((search.entry / "release.json").read_text())
    assert (record["tarball"], record["version"], record["arch"]) == (A, "3.5.16", FOREIGN)


def test_what_the_binaries_share_travels_once(search: Search) -> None:
    same = os.urandom(9 << 20)  # more than zstd looks back by itself
    staged = search.fetch(("fake", Fake(shared=same)))
    packed = staged.binaries["etcd"].stream.packed("zstd").stat().st_size
    assert len(same) < packed < len(same) * 1.01


@pytest.mark.parametrize("file", ["etcd", "etcdctl", "binaries.gz", "binaries.zst", "release.json"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_poisoned_cache_is_noticed_and_refetched(search: Search, file: str, how: str) -> None:
    source = Fake()
    search.fetch(("fake", source))
    if how == "gone":
        (search.entry / file).unlink()
    else:
        (search.entry / file).write_bytes(b'{"x": 1}')
    assert search.cached(("fake", source)) is None
    assert file in search.said[-1]
    search.fetch(("fake", source))
    assert search.cached(("fake", source))
    assert (source.calls, search.leftovers()) == (2, [])


def test_another_source_s_binaries_are_not_used(search: Search) -> None:
    search.fetch(("path", Fake()))
    github = Fake()
    assert search.cached(("github", github)) is None
    assert '"path"' in search.said[-1]
    assert search.fetch(("github", github)).source == "github"


def test_clusters_with_other_sources_keep_each_its_own_entry(search: Search) -> None:
    ours, theirs = ("github", Fake()), ("debian", Fake())
    first = search.fetch(ours)
    second = search.fetch(theirs)
    assert first.binaries["etcd"].path != second.binaries["etcd"].path
    for source, staged in ((ours, first), (theirs, second)) * 2:
        assert search.fetch(source) == staged
    assert (ours[1].calls, theirs[1].calls, len(search.entries)) == (1, 1, 2)
    assert search.said == []


def test_of_several_entries_the_first_source_s_is_used(search: Search) -> None:
    for name in ("b", "a", "c"):
        search.fetch((name, Fake()))
    for names in ("abc", "cab", "bca"):
        staged = search.cached(*((name, Fake()) for name in names))
        assert staged is not None
        assert staged.source == names[0]


def test_an_entry_of_an_earlier_version_of_this_program_is_used(search: Search) -> None:
    source = Fake()
    search.fetch(("fake", source))
    search.entry.rename(search.cache / TOP)
    assert search.cached(("fake", source))
    search.fetch(("fake", source))
    assert source.calls == 1


@pytest.mark.parametrize(("pin", "code"), [(None, "nowhere does it say so"), (A, "does not run on this machine")])
def test_a_tarball_is_run_only_where_its_digest_is_pinned(
    search: Search, monkeypatch: pytest.MonkeyPatch, pin: str | None, code: str
) -> None:
    """`Fake` gives a tarball's binaries, here for this machine, which are none."""
    monkeypatch.setattr(releases, "own_arch", lambda: FOREIGN)
    with pytest.raises(StepFailed, match=code):
        search.fetch(("fake", Fake()), pin=pin)


def test_another_pin_refetches(search: Search) -> None:
    search.fetch(("fake", Fake()))
    assert search.cached(("fake", Fake()), pin=A.upper())
    assert search.cached(("fake", Fake()), pin=B) is None
    search.fetch(("fake", Fake(digest=B.lower())), pin=B)
    assert search.cached(("fake", Fake()), pin=B)


def test_what_cannot_be_compared_with_the_pin_is_not_used(search: Search) -> None:
    with pytest.raises(StepFailed, match="cannot be compared"):
        search.fetch(("fake", Fake(digest="")), pin=A)
    assert search.entries == []


def test_the_next_source_serves_and_the_first_says_why_not(search: Search) -> None:
    first = ("one", Fake(SourceUnavailable("one: closed on Mondays")))
    assert search.fetch(first, ("two", Fake())).source == "two"
    assert search.said == ["one: closed on Mondays"]


def test_when_none_serves_every_line_is_there(search: Search) -> None:
    with pytest.raises(StepFailed) as caught:
        search.fetch(("one", Fake(SourceUnavailable("one: no"))), ("two", Fake(SourceUnavailable("not today"))))
    assert caught.value.message.splitlines() == [
        f"no source has etcd 3.5.16 for {FOREIGN}",
        "    one: no",
        "    two: not today",
    ]
    assert search.leftovers() == []


def test_a_wrong_digest_stops_the_search_and_keeps_the_old_entry(search: Search) -> None:
    search.fetch(("fake", Fake()))
    before = {path.name: path.read_bytes() for path in search.entry.iterdir()}
    second = Fake()
    with pytest.raises(StepFailed, match="wrong digest"):
        search.fetch(("github", Fake(StepFailed("wrong digest"))), ("two", second))
    assert {path.name: path.read_bytes() for path in search.entry.iterdir()} == before
    assert (second.calls, search.leftovers()) == (0, [])


def test_binaries_for_another_machine_are_refused(search: Search) -> None:
    with pytest.raises(StepFailed, match=f"etcd is for 386, not {FOREIGN}"):
        search.fetch(("fake", Fake(arch="386")))
    assert search.entries == []


def test_what_a_killed_run_left_is_removed(search: Search) -> None:
    (search.cache / f".{TOP}.new/0").mkdir(parents=True)
    (search.cache / f".{TOP}.new/0/etcd").write_bytes(b"half")
    search.fetch(("fake", Fake()))
    assert search.leftovers() == []


def test_a_cache_that_cannot_be_written_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StepFailed, match="cannot keep etcd"):
        Search(tmp_path / "file/cache").fetch(("fake", Fake()))


@pytest.mark.parametrize(
    ("xdg", "expected"), [("/x", "/x/etcd-steps"), ("", "/home/.cache/etcd-steps"), ("y", "/home/.cache/etcd-steps")]
)
def test_default_cache(xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", "/home")
    assert str(default_cache()) == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "binaries"
    path.mkdir()
    for name in ("etcd", "etcdctl"):
        (path / name).write_bytes(elf(FOREIGN, name.encode()))
    return path


def test_a_directory_is_served_and_a_rebuilt_binary_is_noticed(search: Search, folder: Path) -> None:
    source = PathSource(folder)
    assert search.fetch(("path", source)).origin.startswith(str(folder))
    assert search.cached(("path", source))
    assert search.cached(("path", PathSource(folder.parent))) is None
    assert search.cached(("path", PathSource(search_path=True))) is None
    (folder / "etcd").write_bytes(elf(FOREIGN, b"rebuilt"))
    os.utime(folder / "etcd", (0, 2_000_000_000))
    assert search.cached(("path", source)) is None
    assert b"rebuilt" in search.fetch(("path", source)).binaries["etcd"].path.read_bytes()


def test_a_tarball_needs_a_pin_or_sha256sums(search: Search, tmp_path: Path) -> None:
    path = archive(tmp_path / "mine.tar.gz", *GOOD)
    digest = tarball.sha256(path)
    with pytest.raises(StepFailed, match="neither a pin"):
        search.fetch(("path", PathSource(path)))
    with pytest.raises(StepFailed, match=f"expected sha256 {A}\n    found    sha256 {digest}"):
        search.fetch(("path", PathSource(path, {FOREIGN: A})), pin=A)
    assert search.fetch(("path", PathSource(path, {FOREIGN: digest})), pin=digest).verified_by.startswith("the sha256")
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  mine.tar.gz\n")
    assert Search(tmp_path / "other").fetch(("path", PathSource(path))).verified_by == f"{tmp_path}/SHA256SUMS"


@pytest.fixture
def sourced(search: Search, folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A cluster's work directory, as after `. environment.sh`: bin/ leads into the cache; and the cache's entry."""
    staged = search.fetch(("path", PathSource(folder)))
    work = tmp_path / ".etcd/demo"
    for place in (work / "bin", work / "nodes/etcd-1/bin"):
        place.mkdir(parents=True)
    for name, blob in staged.binaries.items():
        (work / "bin" / name).symlink_to(blob.path)
        (work / "nodes/etcd-1/bin" / name).write_bytes(blob.path.read_bytes())
        (work / "nodes/etcd-1/bin" / name).chmod(0o755)
    (work / "environment.sh").write_text("")
    return work, staged.binaries["etcd"].path.parent


@pytest.mark.parametrize("own", ["bin", "nodes/etcd-1/bin", "cache", "link"])
def test_path_source_own_copies_in_front_of_the_path_uses_what_is_behind(  # noqa: PLR0917  fixtures
    own: str,
    search: Search,
    sourced: tuple[Path, Path],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, entry = sourced
    link = tmp_path / "link"
    link.symlink_to(entry)
    place = {"cache": entry, "link": link}.get(own, work / own)
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{folder}")
    source = ("path", PathSource(search_path=True, work=tmp_path / "another"))
    assert search.fetch(source).origin.startswith(f"PATH ({folder}/etcd ")
    monkeypatch.setenv("PATH", f"{place}")
    assert search.cached(source) is None
    with pytest.raises(StepFailed, match=rf"no etcd on this machine's PATH but this tool's own, in {place}$"):
        search.fetch(source)


def test_path_source_own_work_directory_is_skipped_whatever_lies_there(
    folder: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    PathSource(search_path=True).fetch("3.5.16", FOREIGN, into, 10)
    with pytest.raises(SourceUnavailable, match="this tool's own"):
        PathSource(search_path=True, work=folder.parent).fetch("3.5.16", FOREIGN, into, 10)


@pytest.mark.parametrize("linked", [False, True])
def test_path_source_that_names_the_cache_is_refused(
    linked: bool,  # noqa: FBT001  a case
    search: Search,
    sourced: tuple[Path, Path],
) -> None:
    work, entry = sourced
    with pytest.raises(StepFailed, match="leads to this tool's own cache"):
        search.fetch(("path", PathSource(work / "bin" if linked else entry)))
    assert entry.is_dir()


def test_path_directory_that_this_user_may_not_enter_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_file(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(SourceUnavailable, match="no etcd on this machine's PATH"):
        PathSource(search_path=True).fetch("3.5.33", FOREIGN, tmp_path, 10)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (PathSource(), r"path: \[release\] path is not set"),
        (PathSource(Path("/nonexistent/etcd")), "path: /nonexistent/etcd does not exist"),
        (PathSource(search_path=True), "path: no etcd on this machine's PATH"),
    ],
)
def test_path_says_why_it_cannot_serve(
    into: Path, source: PathSource, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(into))
    with pytest.raises(SourceUnavailable, match=message):
        source.fetch("3.5.16", FOREIGN, into, 10)


def test_a_binary_of_another_architecture_is_not_served(folder: Path, into: Path) -> None:
    other = "arm64" if own_arch() != "arm64" else "386"
    with pytest.raises(SourceUnavailable, match=f"is for {FOREIGN}, not for {other}"):
        PathSource(folder).fetch("3.5.16", other, into, 10)
