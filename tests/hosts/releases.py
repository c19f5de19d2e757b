"""etcd for the hosts: the distribution's packages, laid out as upstream's releases are, and served on loopback."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import daemon, wait
from rootfs import locked

from steps.builtin.debian import DebianSource, offered

if TYPE_CHECKING:
    from lab import Lab

SUITES = ("bookworm", "trixie", "sid")
ASK_AGAIN = 24 * 3600  # seconds; a suite seldom changes, and asking takes some
DEADLINE = 120  # seconds, for one suite


@dataclass(frozen=True)
class Releases:
    """`root` holds v{version}/etcd-v{version}-linux-{arch}.tar.gz, SHA256SUMS beside each; `url` serves it."""

    root: Path
    versions: list[str]  # oldest first
    url: str

    @property
    def settings(self) -> dict[str, Any]:
        """What an etcd.toml says to get the newest of them."""
        return {"etcd": {"version": self.versions[-1]}, "release": {"sources": ["github"], "mirror": self.url}}


def serve(lab: Lab, *, root: Path | None = None, port: int = 8080) -> Releases:
    """Serves what the suites have, or another `root`, to whoever runs in the lab. Ends with the lab."""
    shared, versions = collect()
    root = root or shared
    log = lab.state / f"releases-{port}.log"
    server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(root), str(port)]
    daemon([*lab.inside, *server], pid=log.with_suffix(".pid"), log=log)
    listening = ["ss", "--no-header", "--listening", "--tcp", "--numeric", f"sport = :{port}"]
    wait(lambda: bool(lab.output(listening)), 10, f"the release server does not listen: see {log}")
    return Releases(root, versions, f"http://127.0.0.1:{port}")


def collect() -> tuple[Path, list[str]]:
    """The directory of all releases that the suites have, and their versions. Fetches what is not cached."""
    with locked("releases") as cache:
        root = cache / "releases"
        root.mkdir(exist_ok=True)
        versions = _offers(cache)
        for suite, version in versions.items():
            if not (root / f"v{version}").exists():
                _lay_out(suite, version, root, cache)
    return root, sorted(set(versions.values()), key=lambda version: [int(part) for part in version.split(".")])


def _offers(cache: Path) -> dict[str, str]:
    known = cache / "suites.json"
    if known.exists() and time.time() - known.stat().st_mtime < ASK_AGAIN:
        return dict(json.loads(known.read_text(encoding="utf-8")))
    with ThreadPoolExecutor(len(SUITES)) as pool:
        answers = pool.map(lambda suite: offered(suite, _arch(), cache / "apt", DEADLINE), SUITES)
        offers = dict(zip(SUITES, answers, strict=True))
    known.write_text(json.dumps(offers), encoding="utf-8")
    return offers


def _lay_out(suite: str, version: str, root: Path, cache: Path) -> None:
    building, unpacked = root / ".building", cache / "unpacked"
    for folder in (building, unpacked):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    release = DebianSource(suite, cache / "apt").fetch(version, _arch(), unpacked, DEADLINE)
    name = f"etcd-v{version}-linux-{_arch()}"
    tarball = building / f"{name}.tar.gz"
    with tarfile.open(tarball, "w:gz", compresslevel=1) as archive:
        for binary, file in release.binaries.items():
            archive.add(file, f"{name}/{binary}")
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    (building / "SHA256SUMS").write_text(f"{digest}  {tarball.name}\n", encoding="utf-8")
    building.rename(root / f"v{version}")
    shutil.rmtree(unpacked)


def _arch() -> str:
    return subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
