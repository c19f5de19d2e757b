"""Fixtures: `hosts` (clean ones), `lab`, `releases`, `config`, `writing`. KEEP_HOSTS=1 keeps a failed test's hosts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from host import Host
from lab import KEPT, Lab
from releases import Releases, serve
from rootfs import distribution

HERE = Path(__file__).parent
KEEP = bool(os.environ.get("KEEP_HOSTS"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("hosts")


Reporting = Generator[None, pytest.TestReport, pytest.TestReport]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Reporting:
    report = yield
    if KEEP and report.failed and HERE in item.path.parents and not item.session.shouldstop:
        item.session.shouldstop = f"the hosts of {item.name} are kept: {_ways_in(item)}"
    return report


def _ways_in(item: pytest.Item) -> str:
    config = getattr(item, "funcargs", {}).get("tmp_path", Path()) / "etcd.toml"
    tried = f"ETCD_CONFIG={config} " if config.is_file() else ""
    cli = HERE / "lab"
    return f"{cli} shell etcd-1 logs in, {tried}{cli} run .venv/bin/invoke status asks, {cli} down removes them"


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts; `lab.ensure(n)` for more."""
    if os.geteuid() != 0:
        pytest.skip("real hosts need root")
    try:
        distribution()
    except RuntimeError as error:
        pytest.skip(str(error))
    lab = Lab.up(3, state=KEPT if KEEP else tmp_path_factory.mktemp("lab"), keep=KEEP)
    try:
        yield lab
    finally:
        if not (KEEP and request.session.testsfailed):
            lab.down()


@pytest.fixture
def hosts(lab: Lab) -> list[Host]:
    """The first three hosts with new disks. Hosts beyond them are wiped too."""
    lab.wipe()
    return lab.hosts[:3]


@pytest.fixture(scope="session")
def releases(lab: Lab) -> Releases:
    found = serve(lab)
    lab.defaults = found.settings
    return found


@pytest.fixture
def config(lab: Lab, releases: Releases, tmp_path: Path) -> Callable[..., Path]:
    """Writes the test's etcd.toml, see Lab.config."""

    def write(base: str | Path = "", **changes: Any) -> Path:
        return lab.config(base, into=tmp_path, **changes)

    return write


@pytest.fixture
def dot_ssh(lab: Lab) -> Iterator[Path]:
    """The operator's ~/.ssh, empty."""
    folder = Path(lab.environment["HOME"]) / ".ssh"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


@dataclass
class Written:
    """What a writer says at its end; see writer.py. `longest_gap_ms` is the longest time without an acknowledgement."""

    result: Mapping[str, int] = field(default_factory=dict)


Writing = Callable[..., AbstractContextManager[Written]]


@pytest.fixture
def writing(lab: Lab) -> Writing:
    """`with writing(ca=…, cert=…, key=…) as written: …`: somebody writes all the while; afterwards `written.result`."""

    @contextmanager
    def run(*, endpoints: str = "", **files: Path) -> Iterator[Written]:
        urls = endpoints or ",".join(f"https://{host.ip}:2379" for host in lab.hosts[:3])
        options = [f"--{name}={file}" for name, file in files.items()]
        process = lab.popen([sys.executable, str(HERE / "writer.py"), f"--endpoints={urls}", *options])
        written = Written()
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "writing\n"
            yield written
        finally:
            process.send_signal(signal.SIGTERM)
            said, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
        written.result = json.loads(said)

    return run
