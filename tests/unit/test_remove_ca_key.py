"""remove-ca-key: a copy is known by its digest, in whatever form; what may be the last one stays."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import on_hosts
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat
from test_pki import authority

from steps.core.base.digest import digest
from steps.core.config.model import Cluster, Node
from steps.core.node import ca_key
from steps.core.tls import pki
from steps.ops.remove_ca_key import digest_script, kept_forms, remove_script

FORMS = {"PKCS#8": PrivateFormat.PKCS8, "the older one": PrivateFormat.TraditionalOpenSSL}


@pytest.fixture(params=["ecdsa:p256", "rsa:2048"])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Cluster:
    """A cluster with the built-in backend's CA, and etcd-1's certificates in tmp_path/cert."""
    made = on_hosts(file=tmp_path / "etcd.toml")
    _, pem = authority(made.work / "ca" / "builtin", key=request.param)
    (made.work / "ca" / "ca.pem").write_bytes(pem)
    (tmp_path / "cert").mkdir()
    first = made.nodes[0]
    return replace(
        made, nodes=(replace(first, paths=replace(first.paths, cert=str(tmp_path / "cert"))), *made.nodes[1:])
    )


def key_of(cluster: Cluster) -> bytes:
    return (cluster.work / "ca" / "builtin" / "ca-key.pem").read_bytes()


def sh(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


def node(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("end", [b"\n", b""], ids=["newline", "none"])
def test_kept_forms_has_the_key_as_other_tools_write_it(cluster: Cluster, form: PrivateFormat, end: bytes) -> None:
    written = pki.load_key(key_of(cluster)).private_bytes(pki.PEM, form, NoEncryption()).rstrip(b"\n") + end
    file = Path(ca_key.key_path(node(cluster)))
    file.write_bytes(written)
    said = sh(digest_script(node(cluster))).stdout.strip()
    assert said in set(kept_forms(cluster))
    assert sh(remove_script(node(cluster), said)).returncode == 0
    assert not file.exists()


def test_kept_forms_without_the_key_or_with_another_ones_are_none(cluster: Cluster) -> None:
    key = cluster.work / "ca" / "builtin" / "ca-key.pem"
    key.write_bytes(pki.new_key("ecdsa:p256"))
    assert [*kept_forms(cluster)] == []
    key.write_bytes(b"damaged")
    assert [*kept_forms(cluster)] == []
    key.unlink()
    assert [*kept_forms(cluster)] == []
    (cluster.work / "ca" / "ca.pem").unlink()
    assert [*kept_forms(cluster)] == []


def test_kept_forms_looks_at_every_backends_directory(cluster: Cluster) -> None:
    home = cluster.work / "ca"
    (home / "builtin").rename(home / "copied-etcd-1")
    assert digest((home / "copied-etcd-1" / "ca-key.pem").read_bytes()) in set(kept_forms(cluster))


def test_remove_script_of_a_file_that_changed_or_is_a_link_removes_nothing(cluster: Cluster) -> None:
    file = Path(ca_key.key_path(node(cluster)))
    file.write_bytes(b"another")
    assert sh(remove_script(node(cluster), digest(b"this"))).returncode == 1
    assert file.read_bytes() == b"another"
    target = file.with_name("target")
    file.rename(target)
    file.symlink_to(target)
    assert sh(digest_script(node(cluster))).stdout == "link\n"
    assert sh(remove_script(node(cluster), digest(b"another"))).returncode == 1
    assert file.is_symlink()


def test_scripts_of_a_node_without_the_file_say_so(cluster: Cluster) -> None:
    assert sh(digest_script(node(cluster))).stdout == "missing\n"
    assert sh(ca_key.seen_script(node(cluster))).stdout == ""
    Path(ca_key.key_path(node(cluster))).write_bytes(key_of(cluster))
    assert sh(ca_key.seen_script(node(cluster))).stdout == "cakey=1\n"


def test_warning_names_the_nodes_and_the_command(tmp_path: Path) -> None:
    made = on_hosts(file=tmp_path / "etcd.toml")
    assert ca_key.warning(made, []) == ""
    said = ca_key.warning(made, made.nodes[:2])
    assert said.startswith("etcd-1, etcd-2 still have a CA key, /etc/etcd/cert/ca-key.pem: ")
    assert "remove-ca-key --node etcd-1,etcd-2" in said
    assert "--node" not in ca_key.warning(made, made.nodes)
    wanted = on_hosts("[tls]\ndistribute_ca_key = true\n", file=tmp_path / "etcd.toml")
    assert ca_key.warning(wanted, wanted.nodes) == ""
