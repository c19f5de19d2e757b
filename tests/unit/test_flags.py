"""etcd's command line for a node: every flag of the how-to, the safe values, and who wins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusters import on_hosts, on_loopback

from steps.core.base.errors import ConfigError
from steps.core.config.model import Cluster
from steps.core.etcd import flags
from steps.core.etcd.unit_text import with_digest


def of(cluster: Cluster, number: int = 0, **extra: str) -> dict[str, str]:
    binary, *words = flags.argv(cluster, cluster.nodes[number], extra)
    assert binary == f"{cluster.nodes[number].paths.bin}/etcd"
    assert all(word.startswith("--") for word in words)
    pairs = [word.removeprefix("--").partition("=") for word in words]
    found = {name: value for name, _, value in pairs}
    assert len(found) == len(pairs), "no flag stands twice"
    return found


MEMBERS = ",".join(f"etcd-{n}=https://10.0.0.{n}:2380" for n in (1, 2, 3))
HOW_TO = {
    "name": "etcd-2",
    "data-dir": "/data/etcd/data",
    "wal-dir": "/data/etcd/wal",
    "cert-file": "/etc/etcd/cert/etcd.pem",
    "key-file": "/etc/etcd/cert/etcd-key.pem",
    "trusted-ca-file": "/etc/etcd/cert/ca.pem",
    "peer-cert-file": "/etc/etcd/cert/etcd.pem",
    "peer-key-file": "/etc/etcd/cert/etcd-key.pem",
    "peer-trusted-ca-file": "/etc/etcd/cert/ca.pem",
    "peer-client-cert-auth": "true",
    "client-cert-auth": "true",
    "listen-peer-urls": "https://10.0.0.2:2380",
    "initial-advertise-peer-urls": "https://10.0.0.2:2380",
    "listen-client-urls": "https://10.0.0.2:2379,https://127.0.0.1:2379",
    "advertise-client-urls": "https://10.0.0.2:2379",
    "initial-cluster-token": "etcd-cluster-0",
    "initial-cluster": MEMBERS,
    "initial-cluster-state": "new",
    "auto-compaction-mode": "periodic",
    "auto-compaction-retention": "1",
    "max-request-bytes": "33554432",
    "quota-backend-bytes": "6442450944",
    "heartbeat-interval": "250",
    "election-timeout": "2000",
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("new", MEMBERS)),
        ({"cluster_state": "existing"}, ("existing", MEMBERS)),
        ({"initial_cluster": {"a": "https://10.0.0.9:2380", "b": "http://[::1]:1"}},
         ("new", "a=https://10.0.0.9:2380,b=http://[::1]:1")),
        ({"cluster_state": "existing", "initial_cluster": {"a": "https://10.0.0.9:2380"}},
         ("existing", "a=https://10.0.0.9:2380")),
    ],
)  # fmt: skip
def test_argv_initial_cluster_is_etcd_tomls_unless_it_is_given(given: Any, expected: tuple[str, str]) -> None:
    cluster = on_hosts()
    words = flags.argv(cluster, cluster.nodes[0], {}, **given)
    found = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert (found["initial-cluster-state"], found["initial-cluster"]) == expected
    assert flags.lasting(words) == flags.lasting(flags.argv(cluster, cluster.nodes[0], {})), "no reason for a restart"


SAFE = {
    "auto-tls": "false",
    "peer-auto-tls": "false",
    "cipher-suites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,"
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "experimental-initial-corrupt-check": "true",
    "experimental-compact-hash-check-enabled": "true",
}


def test_every_flag_of_the_how_to_and_the_safe_ones() -> None:
    assert of(on_hosts(), 1) == HOW_TO | SAFE


def test_argv_tls_1_3_alone_has_no_cipher_suites() -> None:
    assert "cipher-suites" not in of(on_hosts('[etcd.flags]\ntls-min-version = "TLS1.3"\n'), 1)


def test_argv_cipher_suites_of_etcd_toml_replace_ours() -> None:
    suites = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    assert of(on_hosts(f'[etcd.flags]\ncipher-suites = "{suites}"\n'), 1)["cipher-suites"] == suites


CHECKS = [
    ("3.4.27", {"experimental-initial-corrupt-check": "true"}),
    ("3.5.30", {name: value for name, value in SAFE.items() if "corrupt" in name or "hash" in name}),
    ("3.6.14", {"feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true"}),
    ("3.7.1", {"feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true"}),
    ("3.8.0", {"feature-gates": "InitialCorruptCheck=true,CompactHashCheck=true"}),
]


@pytest.mark.parametrize(("version", "checks"), CHECKS)
def test_corruption_checks_by_version(version: str, checks: dict[str, str]) -> None:
    found = of(on_hosts(version=version))
    assert {name: found[name] for name in found if "corrupt" in name or "hash" in name or "feature" in name} == checks


def test_without_hardening_only_the_how_to_is_left() -> None:
    found = of(on_hosts("[hosts]\nhardening = false\n[tls]\nplain_loopback = true\n"), 1)
    assert found == HOW_TO | {"listen-client-urls": "https://10.0.0.2:2379,http://127.0.0.1:2379"}


def test_without_tls() -> None:
    found = of(on_hosts("[tls]\nenabled = false\n", count=1))
    assert not any("cert" in name or "tls" in name or name.endswith("-file") for name in found)
    assert found["listen-client-urls"] == "http://10.0.0.1:2379,http://127.0.0.1:2379"
    assert found["initial-cluster"] == "etcd-1=http://10.0.0.1:2380"


def test_a_process_keeps_to_its_own_address_and_to_two_gigabytes() -> None:
    found = of(on_loopback())
    assert found["listen-client-urls"] == "https://127.0.0.1:2379"
    assert found["quota-backend-bytes"] == str(2 << 30)
    assert SAFE.items() <= found.items()


def test_ipv6_stands_in_brackets() -> None:
    cluster = on_hosts()
    six = replace(cluster, nodes=(replace(cluster.nodes[0], ip="fd00::1"), *cluster.nodes[1:]))
    found = of(six)
    assert found["listen-peer-urls"] == "https://[fd00::1]:2380"
    assert found["initial-cluster"].startswith("etcd-1=https://[fd00::1]:2380,etcd-2=")


def test_metrics_have_a_listener_of_their_own_where_asked_for() -> None:
    assert "listen-metrics-urls" not in of(on_hosts())
    assert of(replace(on_hosts(), metrics_port=2381))["listen-metrics-urls"] == "http://10.0.0.1:2381"


def test_later_wins_the_cluster_a_plugin_the_node() -> None:
    cluster = on_hosts("[etcd.flags]\nlog-level = 'info'\nmax-wals = 5\nmax-snapshots = 5\n")
    node = replace(cluster.nodes[0], flags={"log-level": "debug"})
    mine = replace(cluster, nodes=(node, *cluster.nodes[1:]))
    found = of(mine, **{"log-level": "warn", "max-wals": "6"})
    assert [found[name] for name in ("log-level", "max-wals", "max-snapshots")] == ["debug", "6", "5"]
    assert of(mine, 1)["log-level"] == "info"


def test_what_needs_no_restart_is_not_compared() -> None:
    words = flags.argv(on_hosts(), on_hosts().nodes[0], {})
    assert {word for word in words if word not in flags.lasting(words)} == {
        word for word in words if word.startswith("--initial-")
    }


@pytest.mark.parametrize("name", ["a=b", "=", "ETCD_NAME=x"])
def test_a_directory_that_env_would_take_for_a_variable_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"paths\.bin: .* env\(1\) would take"):
        on_loopback(Path(f"/clusters/{name}/etcd.toml"))


GATES = {
    "another one": ("LeaseCheckpoint=true", "InitialCorruptCheck=true,CompactHashCheck=true,LeaseCheckpoint=true"),
    "ours, off": ("CompactHashCheck=false", "InitialCorruptCheck=true,CompactHashCheck=false"),
    "with blanks": (" A=true, B=false,", "InitialCorruptCheck=true,CompactHashCheck=true,A=true,B=false"),
}


@pytest.mark.parametrize(("value", "merged"), GATES.values(), ids=GATES.keys())
def test_argv_feature_gates_of_etcd_toml_keep_ours(value: str, merged: str) -> None:
    cluster = on_hosts(f'[etcd.flags]\nfeature-gates = "{value}"\n', version="3.6.14")
    assert of(cluster)["feature-gates"] == merged


def test_argv_feature_gates_are_merged_in_order_ours_cluster_plugin_node() -> None:
    cluster = on_hosts('[etcd.flags]\nfeature-gates = "A=cluster,B=cluster,C=cluster"\n', version="3.6.14")
    node = replace(cluster.nodes[0], flags={"feature-gates": "C=node"})
    mine = replace(cluster, nodes=(node, *cluster.nodes[1:]))
    merged = "InitialCorruptCheck=true,CompactHashCheck=true,A=cluster,B=plugin,C=node"
    assert of(mine, **{"feature-gates": "B=plugin,C=plugin"})["feature-gates"] == merged
    assert of(mine)["feature-gates"] == merged.replace("B=plugin", "B=cluster")


def test_lasting_election_tick_advance_is_read_at_every_start() -> None:
    words = ("etcd", "--initial-election-tick-advance=false", "--initial-cluster-token=x")
    assert flags.lasting(words) == {"etcd", "--initial-election-tick-advance=false"}
    unit = "[Service]\nExecStart=etcd \\\n  --initial-election-tick-advance=true\n"
    assert with_digest(unit) != with_digest(unit.replace("true", "false")).replace("false", "true")
