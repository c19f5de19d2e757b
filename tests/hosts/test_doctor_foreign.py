"""A healthy cluster that something else made: the doctor says what it is, and nothing of it is moved or ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deploy import Deployed, deploy
from host import Host, each
from lab import Lab
from releases import Releases

# What would move or end data that lives. "restore" as advice would take the place of members that serve.
DESTRUCTIVE = re.compile(r"\b(?:mv|kill|rm|chown|restore|reset|member remove)\b|set \[paths\]|another \[paths\]")
SSL = "/etc/ssl/etcd/ssl"


@dataclass(frozen=True)
class Layout:
    """`bin`, `unit`, `data`, `wal`: where that way of installing has them. `files`: path → text, to be filled in."""

    bin: str
    unit: str
    data: str
    wal: str
    files: dict[str, str]
    scheme: str = "http"

    @property
    def service(self) -> str:
        return Path(self.unit).name


FLAGS = (
    "--name={name} --data-dir=/data/k8s/etcd/data --wal-dir=/data/k8s/etcd/wal --listen-peer-urls=http://{ip}:2380 "
    "--initial-advertise-peer-urls=http://{ip}:2380 --listen-client-urls=http://{ip}:2379,http://127.0.0.1:2379 "
    "--advertise-client-urls=http://{ip}:2379 --initial-cluster-token=etcd-cluster-0 --initial-cluster={peers} "
    "--initial-cluster-state=new"
)
INSTALL = "[Install]\nWantedBy=multi-user.target\n"
ENVIRONMENT = """ETCD_NAME={name}
ETCD_DATA_DIR=%s
ETCD_LISTEN_PEER_URLS={scheme}://{ip}:2380
ETCD_LISTEN_CLIENT_URLS={scheme}://{ip}:2379,{scheme}://127.0.0.1:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS={scheme}://{ip}:2380
ETCD_ADVERTISE_CLIENT_URLS={scheme}://{ip}:2379
ETCD_INITIAL_CLUSTER={peers}
ETCD_INITIAL_CLUSTER_TOKEN=k8s_etcd
ETCD_INITIAL_CLUSTER_STATE=new
"""
TLS = f"""ETCD_TRUSTED_CA_FILE={SSL}/ca.pem
ETCD_CERT_FILE={SSL}/member.pem
ETCD_KEY_FILE={SSL}/member-key.pem
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_TRUSTED_CA_FILE={SSL}/ca.pem
ETCD_PEER_CERT_FILE={SSL}/member.pem
ETCD_PEER_KEY_FILE={SSL}/member-key.pem
ETCD_PEER_CLIENT_CERT_AUTH=true
"""
LAYOUTS = {
    "the how-to's": Layout(
        "/usr/local/bin",
        "/etc/systemd/system/etcd.service",
        "/data/k8s/etcd/data",
        "/data/k8s/etcd/wal",
        {
            "/etc/systemd/system/etcd.service": "[Service]\nType=notify\nWorkingDirectory=/data/k8s/etcd/data\n"
            f"ExecStart=/usr/local/bin/etcd {FLAGS}\nRestart=on-failure\n{INSTALL}"
        },
    ),
    "kubespray's": Layout(
        "/usr/local/bin",
        "/etc/systemd/system/etcd.service",
        "/var/lib/etcd",
        "/var/lib/etcd/member/wal",
        {
            "/etc/etcd.env": ENVIRONMENT % "/var/lib/etcd" + TLS,
            "/etc/systemd/system/etcd.service": "[Service]\nType=notify\nEnvironmentFile=-/etc/etcd.env\n"
            f"ExecStart=/usr/local/bin/etcd\nRestart=always\n{INSTALL}",
        },
        scheme="https",
    ),
    "Debian's": Layout(
        "/usr/bin",
        "/lib/systemd/system/etcd.service",
        "/var/lib/etcd/default",
        "/var/lib/etcd/default/member/wal",
        {
            "/etc/default/etcd": ENVIRONMENT % "/var/lib/etcd/default",
            "/lib/systemd/system/etcd.service": "[Service]\nType=notify\nUser=etcd\n"
            f"EnvironmentFile=-/etc/default/etcd\nExecStart=/usr/bin/etcd $DAEMON_ARGS\nRestart=on-abnormal\n{INSTALL}",
        },
    ),
    "a hand-made unit's": Layout(
        "/opt/etcd",
        "/etc/systemd/system/etcd3.service",
        "/data/k8s/etcd/data",
        "/data/k8s/etcd/wal",
        {"/etc/systemd/system/etcd3.service": f"[Service]\nType=notify\nExecStart=/opt/etcd/etcd {FLAGS}\n{INSTALL}"},
    ),
}


def certificates(hosts: list[Host]) -> dict[str, str]:
    """A CA of their own and one pair for all members, as PEM."""
    now = datetime.now(timezone.utc)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def made(name: str, public: Any, issuer: str, *extensions: x509.ExtensionType) -> x509.Certificate:
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
        builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(days=9))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    sans = x509.SubjectAlternativeName([x509.IPAddress(ip_address(ip)) for ip in ["127.0.0.1", *(h.ip for h in hosts)]])
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH])
    ca = made("etcd-ca", ca_key.public_key(), "etcd-ca", x509.BasicConstraints(ca=True, path_length=None))
    leaf = made("etcd-member", key.public_key(), "etcd-ca", sans, usage)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "ca.pem": ca.public_bytes(pem).decode(),
        "member.pem": leaf.public_bytes(pem).decode(),
        "member-key.pem": private.decode(),
    }


def build(lab: Lab, releases: Releases, layout: Layout, hosts: list[Host]) -> None:
    version = releases.versions[-1]
    (archive,) = (releases.root / f"v{version}").glob("etcd-*-linux-*.tar.gz")
    peers = ",".join(f"etcd{n}={layout.scheme}://{host.ip}:2380" for n, host in enumerate(hosts, 1))
    pems = certificates(hosts)
    options = ["-F", "none", "-i", str(lab.key), "-o", f"UserKnownHostsFile={lab.known_hosts}", "-o", "BatchMode=yes"]

    def install(host: Host) -> None:
        lab.run(["scp", "-q", *options, str(archive), f"root@{host.ip}:/root/etcd.tar.gz"])
        host.sh(f"useradd --system etcd; mkdir -p {layout.bin} {layout.data} {SSL} /data/k8s/etcd/data")
        host.sh(f"tar -xzf /root/etcd.tar.gz -C {layout.bin} --strip-components=1 --no-same-owner")
        fields = {"name": f"etcd{hosts.index(host) + 1}", "ip": host.ip, "peers": peers, "scheme": layout.scheme}
        files = {path: text.format(**fields) for path, text in layout.files.items()}
        for path, text in {**files, **{f"{SSL}/{name}": pem for name, pem in pems.items()}}.items():
            host.sh(f"cat >{path} <<'END'\n{text}\nEND")
        host.sh(f"chown -R etcd: /var/lib/etcd 2>/dev/null; systemctl daemon-reload; systemctl enable {layout.service}")
        host.sh(f"systemctl start --no-block {layout.service}")

    each(install, hosts)
    for number in range(5):
        hosts[0].sh(f"for i in $(seq 100); do {ctl(layout)} put k{number} v && exit; sleep 0.2; done; exit 1")


def ctl(layout: Layout) -> str:
    tls = (
        f"--cacert={SSL}/ca.pem --cert={SSL}/member.pem --key={SSL}/member-key.pem" if layout.scheme == "https" else ""
    )
    return f"ETCDCTL_API=3 {layout.bin}/etcdctl --endpoints={layout.scheme}://127.0.0.1:2379 {tls}"


def untouched(layout: Layout, hosts: list[Host]) -> list[str]:
    """Process, keys, and every file that the tool might have changed."""
    files = f"find /etc /usr/local/bin {layout.bin} -xdev -printf '%p %i %m %u:%g %s %T@\\n' | sort | md5sum"
    running = f"systemctl show {layout.service} --property=MainPID,ActiveEnterTimestampMonotonic,FragmentPath"
    paths = f"stat -c '%n %i %u %a' {layout.data} {layout.data}/member {layout.wal}"
    return each(lambda host: host.sh(f"{running}; {files}; {paths}; {ctl(layout)} get --prefix k"), hosts)


@pytest.fixture(params=LAYOUTS)
def made(
    request: pytest.FixtureRequest, lab: Lab, releases: Releases, tmp_path: Path
) -> tuple[Layout, Deployed, Callable[[], list[str]]]:
    """The layout, running; an etcd.toml of ours for the same hosts; and what must stay as it is."""
    layout = LAYOUTS[request.param]
    nodes = [{"name": host.name, "ip": host.ip} for host in lab.hosts[:3]]
    ours = deploy(lab, tmp_path, "", nodes=nodes, tls={"enabled": layout.scheme == "https"})
    build(lab, releases, layout, list(ours.hosts))
    return layout, ours, lambda: untouched(layout, list(ours.hosts))


def test_cluster_of_others_is_described_and_left_alone(
    made: tuple[Layout, Deployed, Callable[[], list[str]]],
) -> None:
    layout, ours, look = made
    before = look()
    done = ours.lab.invoke(ours.config, "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["findings"]
    assert [(each["node"], each["failure"]) for each in found] == [
        (host.name, "foreign-cluster") for host in ours.hosts
    ]
    for number, finding in enumerate(found, 1):
        known_by = "\n".join(finding["evidence"])
        assert f"{layout.service} (pid " in known_by
        assert f"{layout.bin}/etcd): member etcd{number}, data {layout.data}, WAL {layout.wal}" in known_by
        assert "healthy, 3 members: etcd1, etcd2, etcd3" in known_by
    said = ours.invoke("doctor")
    assert not DESTRUCTIVE.search(said.stdout + said.stderr), said.stdout + said.stderr
    for task in ("plan", "all"):
        refused = ours.invoke(task, code=3)
        words = refused.stdout + refused.stderr
        assert not DESTRUCTIVE.search(words), words
    assert look() == before
