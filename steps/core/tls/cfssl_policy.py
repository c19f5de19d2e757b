"""cfssl's signing policy, ca-config.json: which usages its certificates get, and how long they last."""

from __future__ import annotations

import json
from typing import Any

from steps.core.config.model import Cluster

CLIENT = "etcd-client"  # the profile for certificates with which no member can be impersonated
RSA_USAGE = "key encipherment"  # only with an RSA key something is encrypted for it (RFC 8813)


def policy(cluster: Cluster) -> dict[str, Any]:
    """Return the policy for this cluster's key and lifetimes, with the members' profile and the clients'.

    "signing" is digitalSignature. Source: cloudflare/cfssl, config/config.go, SigningProfile.
    """
    expiry = f"{cluster.tls.leaf_days * 24}h"
    client = ["signing", *([RSA_USAGE] if rsa(cluster) else []), "client auth"]
    member = [*client[:-1], "server auth", "client auth"]
    usages = {CLIENT: client, cluster.tls.cfssl.profile: member}
    profiles = {name: {"usages": allowed, "expiry": expiry} for name, allowed in usages.items()}
    return {"signing": {"default": {"expiry": expiry}, "profiles": profiles}}


def text(document: object) -> str:
    """Return one of cfssl's files, as its users write them."""
    return json.dumps(document, indent=2) + "\n"


def rsa(cluster: Cluster) -> bool:
    """Return whether the cluster's leaves have RSA keys."""
    return cluster.tls.key.startswith("rsa")
