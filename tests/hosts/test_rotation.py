"""On one cluster: leaves rotate under a writer, the sandboxed unit lets etcd work, hostile values arrive as given."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
from conftest import Writing
from deploy import Deployed, pids, three
from host import each
from lab import Lab
from releases import Releases

# What a shell, systemd, TOML and Jinja each would like to read as something of their own.
HOSTILE = "%H %% $HOME ${USER} `id` $(id) \"double\" 'single' back\\slash ; # {{ 7*7 }} {% raw %}"


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return three(lab, tmp_path_factory.mktemp("rotation"), etcd={"version": releases.versions[-1]})


def shown(cluster: Deployed, port: int) -> list[str]:
    """The certificate that each member shows at a port, PEM, as a client without one of its own gets it."""
    script = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))"
    argv = ["python3", "-c", script]
    return [cluster.lab.output([*argv, host.ip, str(port)]).strip() for host in cluster.hosts]


def test_leaves_rotate_without_a_restart_and_without_a_lost_write(cluster: Deployed, writing: Writing) -> None:
    before = pids(cluster.hosts)
    old = {port: shown(cluster, port) for port in (2379, 2380)}
    with writing(**cluster.operator) as written:
        said = cluster.invoke("certs", "--renew").stdout
    assert written.result["acknowledged"] > 50, written.result
    assert (written.result["lost"], written.result["missing"]) == (0, 0), written.result
    assert said.count("the new certificate is served on both ports") == 3, said
    assert pids(cluster.hosts) == before
    for port, certificates in old.items():
        live = [(cluster.work / "certs" / host.name / "live" / "cert.pem").read_text() for host in cluster.hosts]
        fresh = shown(cluster, port)
        assert not set(fresh) & set(certificates)
        assert [ssl.PEM_cert_to_DER_cert(pem) for pem in fresh] == [ssl.PEM_cert_to_DER_cert(pem) for pem in live]
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_the_sandboxed_unit_lets_etcd_do_its_work(cluster: Deployed, tmp_path: Path) -> None:
    host = cluster.hosts[0]
    exposure = host.sh("systemd-analyze security --no-pager etcd.service | tail -n1")
    assert float(exposure.split("etcd.service: ")[1].split()[0]) <= 1.5, exposure
    first = json.loads(cluster.etcdctl("-w", "json", "put", "k", "seen"))["header"]["revision"]
    cluster.etcdctl("put", "k", "seen too")
    # etcdctl takes an endpoint from its environment or from a flag, never from both.
    script = f'. "$0" && export ETCDCTL_ENDPOINTS=https://{host.ip}:2379 && exec "$@"'
    here = ["bash", "-euc", script, str(cluster.work / "environment.sh")]
    watch = ["bash", "-c", f"timeout 5 etcdctl watch k --rev={first} || [ $? = 124 ]"]
    watched = cluster.lab.output([*here, *watch])
    assert watched.split("\n")[:6] == ["PUT", "k", "seen", "PUT", "k", "seen too"]
    cluster.etcdctl("--command-timeout=30s", "defrag")
    snapshot = tmp_path / "snapshot.db"
    cluster.lab.output([*here, "etcdctl", "snapshot", "save", str(snapshot)])
    assert snapshot.stat().st_size > 10_000
    host.sh("systemctl restart etcd")
    cluster.wait_healthy()


def test_a_hostile_value_reaches_etcd_as_it_was_given(cluster: Deployed) -> None:
    cluster.edit(etcd={"flags": {"host-whitelist": HOSTILE}})
    planned = cluster.invoke("plan", code=4).stdout
    assert "flags changed: --host-whitelist" in planned
    cluster.invoke("all")
    script = "tr '\\0' '\\n' </proc/$(systemctl show etcd -P MainPID)/cmdline | grep -e '^--host-whitelist='"
    assert each(lambda host: host.sh(script).rstrip("\n"), cluster.hosts) == [f"--host-whitelist={HOSTILE}"] * 3
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
