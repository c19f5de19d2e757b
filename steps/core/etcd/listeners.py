"""What a member really listens on: a port that etcd.toml does not explain may want no certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from steps.core.config.model import Cluster, Node

# For a shell in which $p is the member's pid. Prints `listener <address:port, in hex> ` for each of its TCP listeners.
# One program lists all descriptors; the kernel's tables name a socket by its inode.
SCRIPT = """\
s=$(readlink /proc/"$p"/fd/* 2>/dev/null)
grep -hE '^ *[0-9]+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F:]+ 0A ' /proc/"$p"/net/tcp /proc/"$p"/net/tcp6 2>/dev/null |
while read -r _ local _ _ _ _ _ _ _ inode _; do
  case $s in *"socket:[$inode]"*) echo "listener $local";; esac
done
"""


def unexplained(cluster: Cluster, node: Node, output: str, urls: tuple[str, ...]) -> Iterator[str]:
    """Yield each `address:port` that the member listens on and that is in none of `urls`, its listen URLs.

    `output` is what SCRIPT printed, other lines around it are passed over.
    """
    expected = {url.partition("://")[2] for url in urls}
    if cluster.metrics_port:
        expected.add(f"{node.host}:{cluster.metrics_port}")
    for line in output.splitlines():
        word, _, local = line.partition(" ")
        if word == "listener" and (place := _place(local)) not in expected:
            yield place


def _place(local: str) -> str:
    """`0100007F:094B` → `127.0.0.1:2379`: the kernel prints each 32-bit word of an address in its own byte order."""
    address, _, port = local.partition(":")
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    ip = ipaddress.ip_address(b"".join(words))
    host = f"[{ip}]" if ip.version == 6 else str(ip)  # noqa: PLR2004  IPv6
    return f"{host}:{int(port, 16)}"
