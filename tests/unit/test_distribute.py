"""Which binaries a node should have: where this controller has the release, and where only its digests are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clusters import on_hosts, seen

from steps.core.base.hints import Hints
from steps.core.config.model import Cluster
from steps.core.node.diff import changes
from steps.core.node.facts import Entry, Look
from steps.core.node.resources import Blob, File, Stream
from steps.core.release import record
from steps.core.release.releases import Staged
from steps.distribute import Distribute
from steps.testing import resources

VERSION, SUM = "3.5.16", "ab" * 32
SOURCES: Any = {"github": object()}


def staged(
    arch: str = "amd64", version: str = VERSION, names: tuple[str, ...] = ("etcd", "etcdctl", "etcdutl")
) -> Staged:
    stream = Stream(Path("/cache/binaries"), tuple((name, 1) for name in names))
    blobs = {name: Blob(Path("/cache") / name, f"{name} {version} {arch}", stream) for name in names}
    return Staged(version, arch, blobs, "github", "https://mirror.test", "SHA256SUMS", SUM)


def known(text: str, version: str = VERSION, arch: str = "amd64", pin: str | None = None, **sources: Any) -> Any:
    return record.digests(text, version, arch, sources=sources or SOURCES, pin=pin)


def test_record_what_was_distributed_is_known_again() -> None:
    text = record.with_release("", staged())
    assert known(text) == {name: f"{name} {VERSION} amd64" for name in ("etcd", "etcdctl", "etcdutl")}
    assert known(text, pin=SUM.upper()) == known(text)


def test_record_another_architecture_or_version_is_added() -> None:
    text = record.with_release(record.with_release("", staged()), staged("arm64", names=("etcd", "etcdctl")))
    assert known(text, arch="arm64") == {"etcd": f"etcd {VERSION} arm64", "etcdctl": f"etcdctl {VERSION} arm64"}
    assert known(text)
    text = record.with_release(text, staged(version="3.5.17"))
    assert known(text, "3.5.17")
    assert known(text)


def test_record_of_a_digest_says_its_version() -> None:
    text = record.with_release(record.with_release("", staged()), staged(version="3.5.17"))
    assert record.version_of(text, "etcd 3.5.16 amd64") == "3.5.16"
    assert record.version_of(text, "etcd 3.5.17 amd64") == "3.5.17"
    for other in ("etcdctl 3.5.17 amd64", "evil", ""):
        assert record.version_of(text, other) == ""
    assert record.version_of('{"3.5.16": {"amd64": {"digests": null}, "arm64": 3}}', "x") == ""


class Moved:
    """A source that would not give the same again."""

    def still(self, origin: str) -> bool:
        return origin != "https://mirror.test"


@pytest.mark.parametrize(
    "asked",
    [
        {"arch": "arm64"},
        {"version": "3.5.17"},
        {"pin": "cd" * 32},
        {"debian": object()},
        {"github": Moved()},
    ],
)
def test_record_of_another_release_says_nothing(asked: dict[str, Any]) -> None:
    assert not known(record.with_release("", staged()), **asked)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"3.5.16": []}', '{"3.5.16": {"amd64": {"source": "github"}}}'])
def test_record_that_is_damaged_says_nothing_and_is_replaced(text: str) -> None:
    assert not known(text)
    assert known(record.with_release(text, staged()))


def test_record_without_etcdctl_says_nothing() -> None:
    document = json.loads(record.with_release("", staged()))
    del document[VERSION]["amd64"]["digests"]["etcdctl"]
    assert not known(json.dumps(document))


class Ctx:
    """A dry run's context on a controller without a cache; `recorded`: what the work directory says."""

    def __init__(self, look: Look, recorded: dict[str, str], *, dry: bool = True) -> None:
        self.cluster: Cluster | None = None
        self.dry, self.told, self.kept = dry, list[str](), list[Staged]()
        self._look, self._recorded = look, recorded
        self._staged: Staged | None = None

    @property
    def looks(self) -> dict[str, Look]:
        return {"etcd-1": self._look}

    def look(self, node: object) -> Look:
        del node
        return self._look

    def arch(self, node: object) -> str:
        del node
        return self._look.arch

    def release(self, arch: str) -> Staged | None:
        del arch
        return self._staged

    def fetch(self, arch: str) -> Staged:
        self._staged = staged(arch)
        return self._staged

    def recorded(self, arch: str) -> dict[str, str]:
        del arch
        return self._recorded

    def record(self, release: Staged) -> None:
        self.kept.append(release)

    def say(self, message: str, node: object) -> None:
        del node
        self.told.append(message)


def planned(cluster: Cluster, ctx: Any) -> list[str]:
    ctx.cluster = cluster
    step, node = Distribute(), cluster.nodes[0]
    step.prepare(cluster, cluster.nodes[:1], ctx)
    look = ctx.look(node)
    wanted = [each.known(look) for each in step.desired(ctx, node) if isinstance(each, File)]
    return [change.what for change in changes(wanted, look, owners=True)]


def installed(cluster: Cluster, version: str, *names: str, mode: int = 0o755) -> Look:
    home = cluster.nodes[0].paths.bin
    entries = {f"{home}/{name}": Entry("file", mode, "root", "root", f"{name} {version} amd64") for name in names}
    return seen(cluster, entries=entries, facts={"installed_version": version} if "etcd" in names else {})


ALL = ("etcd", "etcdctl", "etcdutl")
DIGESTS = {name: f"{name} {VERSION} amd64" for name in ALL}


def test_distribute_recorded_digests_equal_changes_nothing() -> None:
    cluster = on_hosts()
    ctx = Ctx(installed(cluster, VERSION, *ALL), DIGESTS)
    assert planned(cluster, ctx) == []
    assert ctx.told == []


def test_distribute_recorded_digest_differs_is_a_change_with_both() -> None:
    cluster = on_hosts()
    (change,) = planned(cluster, Ctx(installed(cluster, VERSION, *ALL), {**DIGESTS, "etcdctl": "another one"}))
    assert change == (
        "/usr/local/bin/etcdctl is replaced: etcdctl 3.5.16, once it is fetched (b2sum etcdctl 3.5. -> another one)"
    )


def test_distribute_recorded_release_without_etcdutl_wants_none() -> None:
    cluster = on_hosts()
    two = {name: DIGESTS[name] for name in ("etcd", "etcdctl")}
    assert planned(cluster, Ctx(installed(cluster, VERSION, "etcd", "etcdctl"), two)) == []


def test_distribute_nothing_recorded_same_version_is_unknown_and_no_change() -> None:
    cluster = on_hosts()
    ctx = Ctx(installed(cluster, VERSION, *ALL), {})
    assert planned(cluster, ctx) == []
    (told,) = ctx.told
    assert told.startswith("has etcd 3.5.16; whether its binaries are the release's is not known, ")
    assert Hints().shown(told).endswith(": invoke download")


def test_distribute_nothing_recorded_same_version_still_sees_modes_and_what_is_missing() -> None:
    cluster = on_hosts()
    assert planned(cluster, Ctx(installed(cluster, VERSION, "etcd", mode=0o700), {})) == [
        "/usr/local/bin/etcd mode 0700 -> 0755",
        "/usr/local/bin/etcdctl: etcdctl 3.5.16, once it is fetched",
    ]


@pytest.mark.parametrize("names", [(), ALL])
def test_distribute_nothing_recorded_other_version_is_fetched(names: tuple[str, ...]) -> None:
    cluster = on_hosts()
    ctx = Ctx(installed(cluster, "3.5.15", *names), {})
    assert len(planned(cluster, ctx)) == len(ALL)
    assert ctx.told == []


def test_distribute_before_the_look_names_every_binary() -> None:
    cluster = on_hosts()
    wanted = resources(Distribute(), cluster)["etcd-1"]
    assert [each.path for each in wanted if isinstance(each, File)] == [f"/usr/local/bin/{name}" for name in ALL]


def test_distribute_a_real_run_records_what_it_distributes() -> None:
    cluster = on_hosts()
    ctx = Ctx(installed(cluster, VERSION, *ALL), {}, dry=False)
    assert planned(cluster, ctx) == []
    assert [each.arch for each in ctx.kept] == ["amd64"]
