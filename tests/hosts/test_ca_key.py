"""The CA's key on nodes where etcd.toml no longer wants it."""

from __future__ import annotations

import json
from pathlib import Path

from deploy import Deployed, deploy, state
from host import each
from lab import Lab
from releases import Releases

KEY = "/etc/etcd/cert/ca-key.pem"
REFUSED = 3


def holders(cluster: Deployed) -> list[str]:
    has = each(lambda host: host.sh(f"ls {KEY}", check=False), cluster.hosts)
    return [host.name for host, said in zip(cluster.hosts, has, strict=True) if said]


def warned(said: str, names: str) -> bool:
    return f"warning: {names} still " in said and "remove-ca-key" in said


def test_a_ca_key_left_on_nodes_is_named_and_removed_but_never_the_last_one(
    lab: Lab, releases: Releases, tmp_path: Path
) -> None:
    cluster = deploy(lab, tmp_path, "", tls={"distribute_ca_key": True})
    cluster.invoke("all")
    assert holders(cluster) == ["etcd-1", "etcd-2", "etcd-3"]
    key = cluster.work / "ca" / "builtin" / "ca-key.pem"
    pem = key.read_text()
    assert "still have a CA key" not in cluster.invoke("verify").stdout
    assert "distribute_ca_key = true" in cluster.invoke("remove-ca-key", code=2).stderr

    cluster.edit(tls={"distribute_ca_key": False})
    before = state(cluster.hosts)
    everyone = "etcd-1, etcd-2, etcd-3"
    for task in ("plan", "verify", "doctor"):
        done = cluster.invoke(task)
        assert warned(done.stdout, everyone), task
        assert not any(line in done.stdout for line in pem.splitlines() if "-----" not in line)
    document = json.loads(cluster.invoke("verify", "--json").stdout)
    assert any(warned(f"warning: {warning}", everyone) for warning in document["warnings"])

    # The controller's key is gone: the nodes' copies may be the last ones.
    key.rename(tmp_path / "elsewhere.pem")
    said = cluster.invoke("remove-ca-key", code=REFUSED).stderr
    assert said.count("may be the last one: nothing was removed") == 3
    assert "next: if it is the CA's, copy it first: (umask 077; mkdir -p " in said
    copy = said.partition("copy it first: ")[2].partition(", then: invoke remove-ca-key")[0]
    assert state(cluster.hosts) == before
    options = f"-F none -o UserKnownHostsFile={lab.known_hosts} -o BatchMode=yes "
    lab.output(["sh", "-c", copy.replace("ssh -i", f"ssh {options}-i")])
    assert key.read_text() == pem
    assert key.stat().st_mode & 0o777 == 0o600

    # The older form, as cfssl writes it, is the same key.
    cluster.hosts[1].sh(f"rm {KEY}")
    assert (
        "etcd-1: /etc/etcd/cert/ca-key.pem will be removed" in cluster.invoke("--dry", "remove-ca-key", code=4).stdout
    )
    assert holders(cluster) == ["etcd-1", "etcd-3"]
    cluster.invoke("remove-ca-key", "--node", "etcd-3")
    assert holders(cluster) == ["etcd-1"]
    assert warned(cluster.invoke("plan").stdout, "etcd-1")
    assert "etcd-1: /etc/etcd/cert/ca-key.pem removed" in cluster.invoke("remove-ca-key").stdout
    assert holders(cluster) == []
    assert "no node has ca-key.pem" in cluster.invoke("remove-ca-key").stdout
    assert "still" not in cluster.invoke("plan").stdout
    assert key.read_text() == pem
    assert "lab is healthy" in cluster.invoke("certs", "--renew", "verify").stdout
