"""cfssl's ca-config.json: one policy, for the backend's directory and for the nodes."""

from __future__ import annotations

import json

import pytest
from clusters import on_hosts

from steps.core.node.paths import ca_key_files
from steps.core.node.resources import File
from steps.core.tls.cfssl_policy import policy

KEYS = {
    "rsa:2048": (["signing", "key encipherment", "server auth", "client auth"], ["signing", "key encipherment"]),
    "ecdsa:p256": (["signing", "server auth", "client auth"], ["signing"]),
}


@pytest.mark.parametrize(("key", "usages"), KEYS.items(), ids=KEYS)
def test_policy_usages_are_those_that_the_kind_of_key_can_have(key: str, usages: tuple[list[str], list[str]]) -> None:
    """RFC 8813: keyEncipherment must not be asserted for an EC key."""
    member, client = usages
    signing = policy(on_hosts(f"[tls]\nkey = '{key}'\nleaf_days = 10\n"))["signing"]
    assert signing["default"] == {"expiry": "240h"}
    assert signing["profiles"] == {
        "etcd-cluster": {"usages": member, "expiry": "240h"},
        "etcd-client": {"usages": [*client, "client auth"], "expiry": "240h"},
    }


def test_policy_members_profile_with_the_clients_name_stays_the_members() -> None:
    profiles = policy(on_hosts("[tls.cfssl]\nprofile = 'etcd-client'\n"))["signing"]["profiles"]
    assert "server auth" in profiles["etcd-client"]["usages"]


@pytest.mark.parametrize("key", KEYS)
def test_ca_key_files_policy_on_the_nodes_is_the_backends(key: str) -> None:
    cluster = on_hosts(f"[tls]\nkey = '{key}'\ndistribute_ca_key = true\n")
    (file,) = (each for each in ca_key_files(cluster, cluster.nodes[0]) if each.path.endswith("ca-config.json"))
    assert isinstance(file, File)
    assert json.loads(str(file.content)) == policy(cluster)
