"""init: a file that is valid as it stands, and a next command that works."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steps.core.base.errors import ConfigError, Refused, UsageError
from steps.core.base.hints import Hints
from steps.core.config import load as config
from steps.ops.init import init

NODES = "etcd-1=10.0.0.1, etcd-2=10.0.0.2,etcd-3=fd00::3"


def written(file: Path, *, default: Path, nodes: str = NODES, **options: str) -> list[str]:
    lines: list[str] = []
    house: Any = SimpleNamespace(config_file=lambda _chosen: default)
    report = SimpleNamespace(line=lambda text: lines.append(Hints().shown(text)))
    command = SimpleNamespace(house=house, report=report, dry=False, config=None)
    init(SimpleNamespace(command=command), nodes=nodes, out=str(file), **options)
    return lines


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")


def test_init_offline_pins_nothing_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    said = written(file, default=file)[0]
    assert said.startswith("no digest is pinned (github: ")
    assert said.endswith("add [release] sha256 to hosts.toml, from a source you trust")
    assert config.load(file).release.sha256 == {}


def test_init_writes_the_digests_of_the_release_that_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def served(url: str, to: Path, **_: object) -> None:
        assert url == "https://github.com/etcd-io/etcd/releases/download/v3.5.33/SHA256SUMS"
        rows = [("a" * 64, "linux-amd64.tar.gz"), ("b" * 64, "linux-arm64.tar.gz"), ("c" * 64, "darwin-arm64.zip")]
        rows.append(("d" * 64, "linux-x = 1 #.tar.gz"))
        to.write_text("".join(f"{digest}  etcd-v3.5.33-{name}\n" for digest, name in rows))

    monkeypatch.setattr("steps.core.release.web.download", served)
    file = tmp_path / "hosts.toml"
    assert len(written(file, default=file)) == 1
    assert config.load(file).release.sha256 == {"amd64": "a" * 64, "arm64": "b" * 64}


def test_what_is_written_is_a_cluster(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    written(file, default=file, name="prod", user="ops")
    cluster = config.load(file)
    assert [(node.name, node.ip) for node in cluster.nodes][2] == ("etcd-3", "fd00::3")
    assert (cluster.name, cluster.ssh.user, cluster.ssh.sudo, cluster.systemd) == ("prod", "ops", True, True)


def test_the_next_command_names_the_file_unless_it_is_the_one_that_is_read_anyway(tmp_path: Path) -> None:
    default, other = tmp_path / "etcd.toml", tmp_path / "hosts.toml"
    assert written(default, default=default)[-1].endswith("Next: invoke plan")
    assert written(other, default=default)[-1].endswith(f"Next: invoke plan --config {other}")


def test_no_file_is_written_over(tmp_path: Path) -> None:
    file = tmp_path / "etcd.toml"
    file.write_text("mine")
    with pytest.raises(Refused, match="not written over"):
        written(file, default=file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("nodes", "error"),
    [("", UsageError), ("etcd-1", UsageError), ("=10.0.0.1", UsageError), ("etcd-1=10.0.0.300", ConfigError)],
)
def test_what_describes_no_cluster_is_not_written(nodes: str, error: type[Exception], tmp_path: Path) -> None:
    file = tmp_path / "etcd.toml"
    with pytest.raises(error):
        written(file, default=file, nodes=nodes)
    assert not file.exists()
