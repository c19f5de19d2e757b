"""What a member listens on, read from the kernel's own tables."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace

import pytest
from clusters import on_hosts

from steps.core.etcd.client import own_urls
from steps.core.etcd.listeners import SCRIPT, unexplained

CLUSTER = on_hosts()
NODE = CLUSTER.nodes[0]
URLS = (*own_urls(CLUSTER, NODE), CLUSTER.peer_url(NODE))
FINE = "listener 0100000A:094B\nlistener 0100007F:094B\nlistener 0100000A:094C\n"
CASES = {
    "as configured": (FINE, []),
    "a port more": (f"{FINE}listener 00000000:1F90\n", ["0.0.0.0:8080"]),
    "every address": ("listener 00000000000000000000000000000000:094B\n", ["[::]:2379"]),
    "an IPv6 address": ("listener B80D0120000000000000000001000000:094B\n", ["[2001:db8::1]:2379"]),
    "the lines of others": ("state active/running 7\nanswer status 0 2\n{}\n", []),
    "none seen": ("", []),
}


@pytest.mark.parametrize(("output", "found"), CASES.values(), ids=CASES)
def test_unexplained_listener_is_named(output: str, found: list[str]) -> None:
    assert list(unexplained(CLUSTER, NODE, output, URLS)) == found


def test_unexplained_metrics_port_of_etcd_toml_is_explained() -> None:
    cluster = replace(CLUSTER, metrics_port=2381)
    assert list(unexplained(cluster, NODE, "listener 0100000A:094D\n", URLS)) == []


def printed() -> set[str]:
    script = f"p={os.getpid()}\n{SCRIPT}"
    return set(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines())


def test_script_real_process_prints_its_listeners_and_no_others() -> None:
    before = printed()
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        ports = [each.getsockname()[1] for each in (four, six)]
        client = socket.create_connection(four.getsockname())
        found = printed() - before
        client.close()
    assert found == {
        f"listener 0100007F:{ports[0]:04X}",
        f"listener 00000000000000000000000001000000:{ports[1]:04X}",
    }
