"""What the owner of a client certificate gains: the client port, and never a peer port; on every version."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from deploy import Deployed, three
from lab import Lab
from releases import Releases

from steps.builtin.ca import Builtin
from steps.core.config import load as config
from steps.core.tls.authority import Authority
from steps.core.tls.contracts import LeafProfile
from steps.core.tls.store import Store


@pytest.fixture(scope="module", params=[0, -1], ids=["oldest", "newest"])
def cluster(
    request: pytest.FixtureRequest, lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory
) -> Deployed:
    version = {"version": releases.versions[request.param]}
    return three(lab, tmp_path_factory.mktemp("attacks"), etcd=version, tls={"key": "rsa:2048"})


def asked(cluster: Deployed, pair: Path, port: int) -> str:
    """The answer to a request with the certificate and key in the directory `pair`; empty where none comes."""
    ca = cluster.work / "ca" / "ca.pem"
    url = f"https://{cluster.hosts[1].ip}:{port}/version"
    files = ["--cacert", ca, "--cert", pair / "cert.pem", "--key", pair / "key.pem"]
    done = cluster.lab.run(["curl", "-sS", "-i", "--http1.1", "--max-time", "20", *map(str, files), url], check=False)
    return done.stdout


def test_client_certificate_is_refused_at_the_peer_port(cluster: Deployed) -> None:
    operator = cluster.work / "certs" / "operator" / "live"
    assert asked(cluster, operator, 2379)
    assert not asked(cluster, operator, 2380)
    assert asked(cluster, cluster.work / "certs" / "etcd-2" / "live", 2379)
    cluster.invoke("verify")


def test_client_certificate_of_an_older_release_is_named_by_verify_and_reissued(
    cluster: Deployed, tmp_path: Path
) -> None:
    made = config.load(cluster.config)
    profile = LeafProfile("kube", "client", "kube", made.tls.subject, (), made.tls.leaf_days)
    Authority(made, Builtin(), Store(made.work)).issue(profile)
    old = tmp_path / "old"
    old.mkdir()
    for name in ("cert.pem", "key.pem"):
        (old / name).write_bytes((cluster.work / "certs" / "kube" / "live" / name).read_bytes())
    assert asked(cluster, old, 2380), "the attack itself: without a SAN a client passes for a member"
    said = cluster.invoke("verify").stdout
    assert "the client certificate kube has no SAN, so each peer port takes it for a member's" in said
    assert "invoke client kube --out DIRECTORY" in said
    cluster.invoke("client", "kube", "--out", str(tmp_path / "kube"))
    assert not asked(cluster, cluster.work / "certs" / "kube" / "live", 2380)
    assert "has no SAN" not in cluster.invoke("verify").stdout


@pytest.mark.parametrize("suite", ["AES128-SHA", "ECDHE-RSA-AES128-SHA"])
def test_client_port_cipher_without_forward_secrecy_or_aead_is_refused(cluster: Deployed, suite: str) -> None:
    place = f"{cluster.hosts[0].ip}:2379"
    words = ["openssl", "s_client", "-connect", place, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0"]
    done: subprocess.CompletedProcess[str] = cluster.lab.run(words, input="", check=False)
    assert "Cipher is (NONE)" in done.stdout, done.stdout[-600:] + done.stderr[-600:]
    good = cluster.lab.run([*words[:-1], "ECDHE-RSA-AES128-GCM-SHA256"], input="", check=False)
    assert "Cipher is ECDHE-RSA-AES128-GCM-SHA256" in good.stdout, good.stdout[-600:]


def test_listener_that_etcd_toml_does_not_explain_is_named_by_verify(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    unit = "/etc/systemd/system/etcd.service"
    host.sh(f"cp {unit} /root/unit && sed -i 's,^ExecStart=[^ ]*,& --listen-metrics-urls=http://0.0.0.0:8080,' {unit}")
    host.sh("systemctl daemon-reload && systemctl restart etcd")
    try:
        said = cluster.invoke("verify", code=5)
        assert "etcd-3: etcd listens on [::]:8080 too, and nothing in etcd.toml says so" in said.stderr
    finally:
        host.sh(f"mv /root/unit {unit} && systemctl daemon-reload && systemctl restart etcd")
        cluster.wait_healthy()
