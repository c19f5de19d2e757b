"""With auth on, a certificate that is no user with role root says nothing of the cluster's health."""

from __future__ import annotations

import pytest
from clusters import on_hosts

from steps.core.etcd import auth
from steps.core.etcd.views import View

CLUSTER = on_hosts()
NODE = CLUSTER.nodes[0]
# as 3.4.23, 3.5.30 and 3.6.16 say it
WORDS = [
    "Failed to get the status of endpoint https://10.0.0.1:2379 (etcdserver: user name not found)",
    "rpc error: code = Unknown desc = auth: user not found",
    "etcdserver: user name is empty",
    "etcdserver: permission denied",
    "rpc error: code = Unknown desc = auth: permission denied",
]


@pytest.mark.parametrize("words", WORDS)
def test_refused_knows_etcds_words(words: str) -> None:
    for view in (View(errors={"status": words}), View(health={"u": words}), View(written=words)):
        assert auth.refused(view)
        refusal = auth.refuses(CLUSTER, NODE, view)
        assert refusal is not None
        assert refusal.message.startswith(
            "auth is on, and etcd-1's certificate (CN=etcd-1) is no user with role root (etcdserver: "
            if "etcdserver" in words
            else "auth is on, and etcd-1's certificate (CN=etcd-1) is no user with role root (auth: "
        )
        assert refusal.exit_code == 3


@pytest.mark.parametrize(
    "words", ["context deadline exceeded", "open /etc/etcd/cert/etcd-key.pem: permission denied", "connection refused"]
)
def test_refused_is_nothing_else(words: str) -> None:
    assert auth.refused(View(errors={"status": words}, health={"u": words})) == ""
    assert auth.refuses(CLUSTER, NODE, View()) is None


def test_way_names_each_members_user() -> None:
    way = auth.way(CLUSTER)
    for name in ("etcd-1", "etcd-2", "etcd-3"):
        assert f"etcdctl user add {name} --no-password && etcdctl user grant-role {name} root" in way
    assert "as the operator (CN=root)" in way
    shared = on_hosts('[tls]\nlayout = "shared"\n')
    assert auth.way(shared).count("user add") == 1
    assert "(CN=etcd)" in auth.said(shared, shared.nodes[0])


def test_said_without_certificates() -> None:
    plain = on_hosts("[tls]\nenabled = false\n")
    assert "asks without a certificate" in auth.said(plain, plain.nodes[0])
    assert "[tls]" in auth.way(plain)
