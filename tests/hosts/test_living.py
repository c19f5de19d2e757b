"""Edits of etcd.toml that would harm members that live: refused with a way that works, or done one member at a time."""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Writing
from deploy import Deployed, deploy, outages, pids, rolled
from host import Host, each
from invariants import intact, nothing_lost
from lab import Lab
from releases import Releases
from runs import during, interrupting

NAMES = ["etcd-1", "etcd-2", "etcd-3"]
MOVED = {"paths": {"data": "/srv/etcd/data", "wal": "/srv/etcd/wal"}}


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Three members and a fourth host without one. Tests leave it healthy, and nothing to do for `all`."""
    lab.ensure(4)
    made = deploy(lab, tmp_path_factory.mktemp("living"), "", nodes=tables(lab))
    made.invoke("all")
    yield made
    del lab.hosts[3:]  # a configuration of all hosts has three, whatever ran before


def tables(lab: Lab, count: int = 3, **changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[[nodes]]; `changes`: by name, with _ for -."""
    return [
        {"name": host.name, "ip": host.ip, "ssh": {"host": host.ip}, **changes.get(host.name.replace("-", "_"), {})}
        for host in lab.hosts[:count]
    ]


@contextmanager
def edited(cluster: Deployed, /, **changes: Any) -> Iterator[None]:
    before = cluster.config.read_text()
    cluster.edit(**changes)
    try:
        yield
    finally:
        cluster.config.write_text(before)


def every(**changes: Any) -> dict[str, Any]:
    return {name.replace("-", "_"): changes for name in NAMES}


EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "data and WAL": (MOVED, "etcd-2: its WAL is in /data/etcd/wal, etcd.toml says /srv/etcd/wal and its data is in"),
    "data": ({"paths": {"data": "/srv/data"}}, "etcd-1: its data is in /data/etcd/data, etcd.toml says /srv/data"),
    "ip": (
        {"nodes": {"etcd_2": {"ip": "192.168.1.241"}}},
        "etcd-2: its peers know it as https://192.168.1.221:2380, etcd.toml says https://192.168.1.241:2380",
    ),
    "peer port": ({"nodes": every(peer_port=12380)}, "etcd-3: its peers know it as https://192.168.1.222:2380"),
    "name": ({"nodes": {"etcd_3": {"name": "db-3"}}}, "db-3: its member is etcd-3"),
    "no TLS": ({"tls": {"enabled": False}}, "etcd-1: its cluster was made with https, etcd.toml says http"),
    "run_as": ({"hosts": {"run_as": "root"}}, 'etcd-1: its etcd runs as etcd, etcd.toml says run_as = "root"'),
    "a node less": ({"nodes": 2, "cluster": {"allow_two_members": True}}, "etcd-3: it is a member of "),
    "a node more": ({"nodes": 4}, "etcd-4: it is new: the cluster has never had this member"),
}


@pytest.mark.parametrize(("edit", "said"), EDITS.values(), ids=EDITS)
def test_edit_that_would_harm_living_members_is_refused_and_nothing_changes(
    cluster: Deployed, lab: Lab, writing: Writing, edit: dict[str, Any], said: str
) -> None:
    nodes = edit.get("nodes", {})
    written = tables(lab, nodes) if isinstance(nodes, int) else tables(lab, **nodes)
    with intact(cluster, writing, still=lab.hosts), edited(cluster, **{**edit, "nodes": written}):
        for task in ("plan", "all"):
            shown = cluster.invoke(task, code=3).stderr
            assert said in shown
            assert "data vanished" not in shown
        assert cluster.invoke("start", "--accept-downtime", code=3).stderr.count(said) == 1


def test_stopped_member_is_not_started_where_it_has_no_data(cluster: Deployed, lab: Lab, writing: Writing) -> None:
    cluster.invoke("stop", "--node", "etcd-3")
    with intact(cluster, writing, still=lab.hosts), edited(cluster, **MOVED):
        for task in ("plan", "all"):
            assert "etcd-3: its WAL is in /data/etcd/wal" in cluster.invoke(task, "--node", "etcd-3", code=3).stderr
    cluster.invoke("start", "--node", "etcd-3")


def follow(cluster: Deployed, host: Host, shown: str) -> None:
    """Does what the refused run named, for the member of `host`."""
    lines = [line.strip() for line in shown.splitlines() if line.startswith("      ")]
    for line in lines:
        line = line.replace("etcd-1", host.name)  # noqa: PLW2901  as printed, for this member
        words = line.split()
        if line.startswith("on its host: "):
            host.sh(line.removeprefix("on its host: "))
        elif words[0] == ".":  # environment.sh, then etcdctl: pasted into bash as it stands
            cluster.lab.output(["bash", "-euc", line])
        elif words[0] == "invoke":
            cluster.invoke(*words[1:])


def test_data_is_moved_by_the_way_that_is_named(cluster: Deployed, writing: Writing) -> None:
    cluster.etcdctl("put", "kept", "on the move")
    with writing(**cluster.operator) as written:
        cluster.edit(**MOVED)
        shown = cluster.invoke("plan", code=3).stderr
        for host in cluster.hosts:
            follow(cluster, host, shown)
            cluster.wait_healthy()
    nothing_lost(written)
    assert cluster.etcdctl("get", "--print-value-only", "kept") == "on the move\n"
    assert each(lambda host: host.sh("ls /data/etcd"), cluster.hosts) == [""] * 3
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


OWNERS = "stat -c %U /proc/$(systemctl show etcd -P MainPID)/cwd /srv/etcd/data/member/snap/db | sort -u"


def test_run_as_changes_by_the_way_that_is_named(cluster: Deployed, writing: Writing) -> None:
    for user in ("root", "etcd"):
        cluster.edit(hosts={"run_as": user})
        shown = cluster.invoke("plan", code=3).stderr
        with writing(**cluster.operator) as written:
            for host in cluster.hosts:
                follow(cluster, host, shown)
                cluster.wait_healthy()
        nothing_lost(written)
        assert {said.strip() for said in each(lambda host: host.sh(OWNERS), cluster.hosts)} == {user}
        assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_an_address_changes_by_the_way_that_is_named(cluster: Deployed, lab: Lab, writing: Writing) -> None:
    host = cluster.hosts[1]
    device, before = host.sh("ip -o route get 192.168.1.1").split("dev ")[1].split()[0], host.ip
    try:
        for ip in ("192.168.1.241", host.ip):
            host.sh(f"ip address del {before}/24 dev {device}; ip address add {ip}/24 dev {device}")
            before = ip
            cluster.edit(nodes=tables(lab, etcd_2={"ip": ip, "ssh": {"host": ip}}))
            shown = cluster.invoke("plan", code=3).stderr
            with writing(**cluster.operator) as written:
                follow(cluster, host, shown)
                cluster.invoke("all")
            nothing_lost(written)
            assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
            assert f"https://{ip}:2380" in cluster.etcdctl("member", "list")
    finally:  # other tests have the same hosts
        host.sh(f"ip address replace {host.ip}/24 dev {device}")


def urls(cluster: Deployed, *ports: int) -> str:
    return ",".join(f"https://{host.ip}:{port}" for port in ports for host in cluster.hosts)


def listening(cluster: Deployed, port: int) -> list[str]:
    at = each(lambda host: host.sh(f"ss -Hltn sport = :{port}", check=False), cluster.hosts)
    return [host.name for host, said in zip(cluster.hosts, at, strict=True) if said.strip()]


def test_client_port_of_all_moves_one_member_at_a_time(cluster: Deployed, lab: Lab, writing: Writing) -> None:
    before = len(outages(cluster.hosts))
    cluster.edit(nodes=tables(lab, **every(client_port=12379)))
    status = cluster.invoke("status")
    assert status.stdout.count("serves at https://192.168.1.22") + status.stderr.count("serves at https://192.168") == 3
    for task in ("verify", "doctor"):
        cluster.invoke(task)
    assert cluster.invoke("plan", code=4).stdout.count("flags changed: --advertise-client-urls, --listen-client") == 3
    with writing(endpoints=urls(cluster, 2379, 12379), **cluster.operator) as written:
        cluster.invoke("all")
    nothing_lost(written)
    assert sorted(rolled(cluster.hosts, before)) == NAMES
    assert (listening(cluster, 2379), listening(cluster, 12379)) == ([], NAMES)
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_client_port_moves_on_after_a_kill_in_the_middle(cluster: Deployed, lab: Lab, writing: Writing) -> None:
    old = cluster.hosts
    before, was = len(outages(old)), 2379 if listening(cluster, 2379) else 12379
    then = 12379 if was == 2379 else 2379
    cluster.edit(nodes=tables(lab, **every(client_port=then)))
    with writing(endpoints=urls(cluster, 12379, 2379), **cluster.operator) as written:
        during(cluster, "restarted: ", interrupting(signal.SIGKILL), "all")
        cluster.wait_healthy()
        mixed = listening(cluster, then), listening(cluster, was)
        kept = dict(zip(NAMES, pids(old), strict=True))
        cluster.invoke("verify")
        cluster.invoke("all", "--node", mixed[1][0])
        cluster.invoke("all")
    nothing_lost(written)
    assert mixed[0], mixed
    assert mixed[1], mixed
    assert sorted(rolled(old, before)) == NAMES
    after = dict(zip(NAMES, pids(old), strict=True))
    assert [kept[name] for name in mixed[0]] == [after[name] for name in mixed[0]], "restarted twice"
    assert (listening(cluster, then), listening(cluster, was)) == (NAMES, [])
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_a_member_joins_and_leaves_by_the_ways_that_are_named(cluster: Deployed, lab: Lab, writing: Writing) -> None:
    before, fourth = pids(cluster.hosts), lab.hosts[3]
    with writing(**cluster.operator) as written:
        cluster.edit(nodes=tables(lab, 4))
        follow(cluster, fourth, cluster.invoke("plan", code=3).stderr)
        assert cluster.etcdctl("member", "list").count(", started, ") == 4
        assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
        cluster.edit(nodes=tables(lab))
        shown = cluster.invoke("plan", code=3).stderr
        assert 'Its table: [[nodes]] name = "etcd-4"  ip = "192.168.1.223"' in shown
        follow(cluster, fourth, shown)
    nothing_lost(written)
    assert pids(cluster.hosts) == before
    assert cluster.etcdctl("member", "list").count(", started, ") == 3
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_from_http_to_https_by_the_way_of_the_documents(
    lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """docs/how-to/move-to-https.md; what it restores belongs to root until `all` starts it."""
    made = deploy(lab, tmp_path_factory.mktemp("scheme"), "", nodes=tables(lab), tls={"enabled": False})
    made.invoke("all")
    made.etcdctl("put", "kept", "over TLS")
    made.edit(tls={"enabled": True})
    with intact(made, still=made.hosts):
        for task in ("plan", "all"):
            assert "etcd-1: its cluster was made with http, etcd.toml says https" in made.invoke(task, code=3).stderr
    made.edit(tls={"enabled": False})
    snapshot = made.work / "demo.db"
    save = f'. "$0"; ETCDCTL_ENDPOINTS=http://{made.hosts[0].ip}:2379 etcdctl snapshot save "$1"'
    lab.output(["bash", "-euc", save, str(made.work / "environment.sh"), str(snapshot)])
    made.invoke("reset", "--yes", made.name)
    made.edit(tls={"enabled": True})
    made.invoke("env", "download", "distribute", "ca", "certs", "units")
    members = ",".join(f"{host.name}=https://{host.ip}:2380" for host in made.hosts)
    data, wal = "/data/etcd/data", "/data/etcd/wal"
    places, initial = f"--data-dir={data} --wal-dir={wal}", f"--initial-cluster={members}"

    def restore(host: Host) -> None:
        host.sh(f"echo {base64.b64encode(snapshot.read_bytes()).decode()} | base64 -d >/root/demo.db")
        own = f"--name={host.name} --initial-advertise-peer-urls=https://{host.ip}:2380"
        token = "--initial-cluster-token=etcd-cluster-0"
        host.sh(f"rmdir {data} {wal}; etcdutl snapshot restore /root/demo.db {own} {places} {token} {initial}")

    each(restore, made.hosts)
    made.invoke("all")
    assert made.etcdctl("get", "--print-value-only", "kept") == "over TLS\n"
    assert made.invoke("plan").stdout.rstrip().endswith("nothing to do")


# -- one member ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    made = deploy(lab, tmp_path_factory.mktemp("single"), "", hosts=1, nodes=tables(lab, 1))
    made.invoke("all")
    for number in range(5):
        made.etcdctl("put", f"key-{number}", "value")
    return made


def keys(cluster: Deployed) -> int:
    return len(cluster.etcdctl("get", "--prefix", "key-", "--keys-only").split())


def test_a_single_member_never_starts_empty_where_its_paths_were_edited(single: Deployed) -> None:
    (host,) = single.hosts
    with intact(single, still=single.hosts), edited(single, cluster={"token": "another"}, **MOVED):
        for words in (["plan"], ["all"], ["all", "--accept-downtime"], ["start", "--accept-downtime"], ["units"]):
            shown = single.invoke(*words, code=3).stderr
            assert "etcd-1: its WAL is in /data/etcd/wal, etcd.toml says /srv/etcd/wal" in shown
    assert keys(single) == 5
    single.edit(**MOVED)
    follow(single, host, shown)
    assert keys(single) == 5
    assert single.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_a_wal_inside_the_data_directory_is_never_left_behind(single: Deployed) -> None:
    """As a member that was made by hand has it: no --wal-dir."""
    (host,) = single.hosts
    unit = "/etc/systemd/system/etcd.service"
    host.sh("systemctl stop etcd; mv -T /srv/etcd/wal /srv/etcd/data/member/wal")
    host.sh(f"grep -v -e wal-dir= -e ^Assert {unit} >/root/unit")
    host.sh(f"cp /root/unit {unit}; systemctl daemon-reload; systemctl start etcd")
    assert keys(single) == 5
    refused = (
        "etcd-1: its WAL is in /srv/etcd/data/member/wal, etcd.toml says /srv/etcd/wal: there it would start empty"
    )
    for prepare in ("true", "systemctl stop etcd"):
        host.sh(prepare)
        with intact(single, still=single.hosts):
            for words in (["plan"], ["all", "--accept-downtime"], ["start"]):
                shown = single.invoke(*words, code=3).stderr
                assert refused in shown
    follow(single, host, shown)
    assert keys(single) == 5
    assert single.invoke("plan").stdout.rstrip().endswith("nothing to do")
    assert re.search(r"^etcd-1 .*healthy", single.invoke("status").stdout, re.MULTILINE)
