"""etcd's command line for a node, as the unit will have it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from steps.core.base.versions import series
from steps.core.config.model import Cluster, Node
from steps.core.etcd.client import own_urls

# Read by etcd at its first start and never again: no reason for a restart. Not --initial-election-tick-advance.
BOOTSTRAP_ONLY = re.compile(r"--initial-(advertise-peer-urls|cluster|cluster-state|cluster-token)=")
GATES = "feature-gates"
CIPHER_SUITES = "cipher-suites"
# Forward secrecy and authenticated encryption, for either kind of key: a changed `[tls] key` needs no restart. Go's own
# choice for etcd 3.4 to 3.5.16 has 3DES and CBC with RSA keys. TLS 1.3 has suites of its own, which are all good.
SUITES = ",".join(
    f"TLS_ECDHE_{key}_WITH_{cipher}"
    for cipher in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    for key in ("ECDSA", "RSA")
)


def argv(
    cluster: Cluster,
    node: Node,
    extra: Mapping[str, str],
    *,
    cluster_state: Literal["new", "existing"] = "new",
    initial_cluster: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return the binary and its flags; `extra` are the plugins'. Later win: ours, the cluster's, plugins', the node's.

    Feature gates are merged gate by gate: whoever sets one keeps the others.

    `cluster_state`: "existing" for a member that joins a cluster which is there; `initial_cluster`: the members that
    it starts among, name → peer URL; None: those of etcd.toml. Source: etcd-io/website, op-guide/configuration.
    """
    members = (
        {each.name: cluster.peer_url(each) for each in cluster.nodes} if initial_cluster is None else initial_cluster
    )
    ours = {
        "name": node.name,
        "data-dir": node.paths.data,
        "wal-dir": node.paths.wal,
        **_tls(cluster, node),
        "listen-peer-urls": cluster.peer_url(node),
        "initial-advertise-peer-urls": cluster.peer_url(node),
        "listen-client-urls": ",".join(own_urls(cluster, node)),
        "advertise-client-urls": cluster.client_url(node),
        "initial-cluster-token": cluster.token,
        "initial-cluster": ",".join(f"{name}={url}" for name, url in members.items()),
        "initial-cluster-state": cluster_state,
        **({"listen-metrics-urls": f"http://{node.host}:{cluster.metrics_port}"} if cluster.metrics_port else {}),
        **(_corruption_checks(cluster.version) if cluster.hosts.hardening or not cluster.systemd else {}),
    }
    layers = (ours, cluster.flags, extra, node.flags)
    flags = {name: value for layer in layers for name, value in layer.items()}
    if GATES in flags:
        flags[GATES] = _merged([layer.get(GATES, "") for layer in layers])
    if flags.get("tls-min-version") == "TLS1.3" and flags.get(CIPHER_SUITES) == SUITES:
        del flags[CIPHER_SUITES]  # etcd does not start with both
    return (f"{node.paths.bin}/etcd", *(f"--{flag}={value}" for flag, value in flags.items()))


def lasting(words: tuple[str, ...]) -> frozenset[str]:
    """The part of a command line whose change needs a restart. Order does not matter to etcd."""
    return frozenset(word for word in words if not BOOTSTRAP_ONLY.match(word))


def _merged(values: Sequence[str]) -> str:
    """`A=true,B=true` and `B=false` → `A=true,B=false`: a second --feature-gates would replace the first."""
    gates: dict[str, str] = {}
    for gate in ",".join(values).split(","):
        name, _, value = gate.strip().partition("=")
        if name:
            gates[name] = value
    return ",".join(f"{name}={value}" for name, value in gates.items())


def _tls(cluster: Cluster, node: Node) -> dict[str, str]:
    if not cluster.tls.enabled:
        return {}
    cert, key, ca = (f"{node.paths.cert}/{name}" for name in ("etcd.pem", "etcd-key.pem", "ca.pem"))
    safe = {"auto-tls": "false", "peer-auto-tls": "false", CIPHER_SUITES: SUITES}
    hardened = cluster.hosts.hardening or not cluster.systemd
    return {
        "cert-file": cert,
        "key-file": key,
        "trusted-ca-file": ca,
        "peer-cert-file": cert,
        "peer-key-file": key,
        "peer-trusted-ca-file": ca,
        "peer-client-cert-auth": "true",
        "client-cert-auth": "true",
        **(safe if hardened else {}),
    }


def _corruption_checks(version: str) -> dict[str, str]:
    """etcd-io/website, op-guide/data_corruption: the names changed with each minor."""
    if series(version) >= (3, 6):
        return {GATES: "InitialCorruptCheck=true,CompactHashCheck=true"}
    checks = {"experimental-initial-corrupt-check": "true"}
    if series(version) >= (3, 5):
        checks["experimental-compact-hash-check-enabled"] = "true"
    return checks
