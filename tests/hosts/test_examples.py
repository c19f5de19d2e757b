"""The other examples, to the letter: the how-to itself, and its second part."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from deploy import Deployed, deploy, outages, state
from host import each
from lab import ROOT, Lab
from releases import Releases

UNIT = "/etc/systemd/system/etcd.service"
# The how-to's etcd.service, with its variables filled in. Only the directory of the binary and of ca.pem is ours: the
# how-to shares /opt/k8s/bin and /etc/kubernetes/cert with Kubernetes.
HOW_TO_FLAGS = {
    "data-dir": "/data/etcd/data",
    "wal-dir": "/data/etcd/wal",
    "name": "{name}",
    "cert-file": "/etc/etcd/cert/etcd.pem",
    "key-file": "/etc/etcd/cert/etcd-key.pem",
    "trusted-ca-file": "/etc/etcd/cert/ca.pem",
    "peer-cert-file": "/etc/etcd/cert/etcd.pem",
    "peer-key-file": "/etc/etcd/cert/etcd-key.pem",
    "peer-trusted-ca-file": "/etc/etcd/cert/ca.pem",
    "peer-client-cert-auth": "true",
    "client-cert-auth": "true",
    "listen-peer-urls": "https://{ip}:2380",
    "initial-advertise-peer-urls": "https://{ip}:2380",
    "listen-client-urls": "https://{ip}:2379,http://127.0.0.1:2379",
    "advertise-client-urls": "https://{ip}:2379",
    "initial-cluster-token": "etcd-cluster-0",
    "initial-cluster": "etcd-1=https://192.168.1.220:2380,etcd-2=https://192.168.1.221:2380,"
    "etcd-3=https://192.168.1.222:2380",
    "initial-cluster-state": "new",
    "auto-compaction-mode": "periodic",
    "auto-compaction-retention": "1",
    "max-request-bytes": "33554432",
    "quota-backend-bytes": "6442450944",
    "heartbeat-interval": "250",
    "election-timeout": "2000",
}
HOW_TO_SERVICE = {
    "Type": "notify",
    "WorkingDirectory": "/data/etcd/data",
    "Restart": "on-failure",
    "RestartSec": "5",
    "LimitNOFILE": "65536",
}
HOURS = timedelta(hours=876000)


@pytest.fixture(scope="module")
def how_to(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    example = ROOT / "examples" / "how-to.toml"
    changes = {"etcd": {"version": releases.versions[1]}, "release": releases.settings["release"]}
    made = deploy(lab, tmp_path_factory.mktemp("how-to"), example, **changes)
    assert "how-to is healthy" in made.invoke("all").stdout
    return made


def service(unit: str) -> tuple[dict[str, str], dict[str, str]]:
    """The flags and the other directives of [Service]."""
    section = unit.replace("\\\n", " ").partition("[Service]\n")[2].partition("\n[")[0]
    directives = dict(line.split("=", 1) for line in section.splitlines() if line)
    binary, *words = shlex.split(directives.pop("ExecStart"))
    assert binary == "/usr/local/bin/etcd"
    return dict(word.removeprefix("--").split("=", 1) for word in words), directives


def test_the_unit_has_the_how_tos_flags_and_no_other(how_to: Deployed) -> None:
    for host in how_to.hosts:
        flags, directives = service(host.sh(f"cat {UNIT}"))
        assert flags == {flag: value.format(name=host.name, ip=host.ip) for flag, value in HOW_TO_FLAGS.items()}
        assert re.fullmatch("UNIT_DIGEST=[0-9a-f]+", directives.pop("Environment"))  # ours: which unit started it
        assert directives == HOW_TO_SERVICE
        assert host.sh("ps -o user= -C etcd") == "root\n"


def test_one_certificate_for_all_and_the_cas_key_everywhere(how_to: Deployed) -> None:
    script = "cd /etc/etcd/cert; cat etcd.pem etcd-key.pem ca.pem ca-key.pem ca-config.json; stat -c %a *-key.pem"
    assert len(set(each(lambda host: host.sh(script), how_to.hosts))) == 1
    host = how_to.hosts[0]

    def read(name: str) -> bytes:
        return host.sh(f"cat /etc/etcd/cert/{name}").encode()

    leaf, ca = (x509.load_pem_x509_certificate(read(name)) for name in ("etcd.pem", "ca.pem"))
    assert leaf.subject.rfc4514_string() == "CN=etcd,OU=opsnull,O=etcd,L=BeiJing,ST=BeiJing,C=CN"
    assert ca.subject.rfc4514_string() == "CN=kubernetes-ca,OU=opsnull,O=etcd,L=BeiJing,ST=BeiJing,C=CN"
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"127.0.0.1", *(host.ip for host in how_to.hosts)} <= {
        str(ip) for ip in sans.get_values_for_type(x509.IPAddress)
    }
    for certificate, name in ((leaf, "etcd-key.pem"), (ca, "ca-key.pem")):
        key = load_pem_private_key(read(name), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        assert key.key_size == 2048
        assert key.public_key() == certificate.public_key()
        lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert abs(lasts - HOURS) < timedelta(hours=1)
    signing = json.loads(read("ca-config.json"))["signing"]
    assert signing["profiles"]["etcd-cluster"] == {
        "usages": ["signing", "key encipherment", "server auth", "client auth"],
        "expiry": "876000h",
    }
    assert signing["default"] == {"expiry": "876000h"}
    assert set(each(lambda each: each.sh("stat -c %a /etc/etcd/cert/*-key.pem"), how_to.hosts)) == {"600\n777\n"}
    assert set(each(lambda each: each.sh("stat -Lc %a /etc/etcd/cert/*-key.pem"), how_to.hosts)) == {"600\n600\n"}


def test_loopback_is_plain(how_to: Deployed) -> None:
    etcdctl = "env -i /usr/local/bin/etcdctl --endpoints=http://127.0.0.1:2379"
    assert how_to.hosts[0].sh(f"{etcdctl} put who anybody") == "OK\n"
    assert how_to.hosts[2].sh(f"{etcdctl} get --print-value-only who") == "anybody\n"


def test_a_second_run_of_the_how_to_changes_nothing_either(how_to: Deployed) -> None:
    before = state(how_to.hosts)
    how_to.invoke("all")
    assert state(how_to.hosts) == before


def test_a_shared_certificate_is_not_changed_for_one_node_alone(how_to: Deployed) -> None:
    """A new SAN: for all it is swapped in without a restart; for one it is refused."""
    before, restarts = state(how_to.hosts), len(outages(how_to.hosts))
    text = how_to.config.read_text()
    how_to.config.write_text(text.replace('name = "etcd-1"', 'name = "etcd-1"\nsans = ["etcd.example"]'))
    assert how_to.config.read_text() != text
    said = how_to.invoke("certs", "--node", "etcd-1", code=3).stderr
    assert "the certificate is shared by all nodes" in said
    assert state(how_to.hosts) == before
    how_to.invoke("all")
    assert len(outages(how_to.hosts)) == restarts
    assert len(set(each(lambda host: host.sh("readlink /etc/etcd/cert/live"), how_to.hosts))) == 1


@pytest.fixture
def address(lab: Lab) -> Iterator[None]:
    """The address of examples/single.toml, at the first host."""
    lab.wipe()
    lab.output(["ip", "address", "add", "172.25.1.1/24", "dev", "br0"])
    lab.hosts[0].net("ip", "address", "add", "172.25.1.93/24", "dev", "host0")
    yield
    lab.output(["ip", "address", "del", "172.25.1.1/24", "dev", "br0"])
    lab.hosts[0].net("ip", "address", "del", "172.25.1.93/24", "dev", "host0")


def test_one_member_without_tls(
    lab: Lab, releases: Releases, address: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changes = {"etcd": {"version": releases.versions[1]}, "release": releases.settings["release"]}
    file = lab.config(ROOT / "examples" / "single.toml", into=tmp_path_factory.mktemp("single"), **changes)
    single = Deployed(lab, file, lab.hosts[:1])
    assert "single is healthy" in single.invoke("all").stdout
    (host,) = single.hosts
    flags, _ = service(host.sh(f"cat {UNIT}"))
    assert flags["listen-client-urls"] == "http://172.25.1.93:2379,http://127.0.0.1:2379"
    assert flags["initial-cluster"] == "etcd-single=http://172.25.1.93:2380"
    assert not [flag for flag in flags if "cert" in flag or "key" in flag or "ca-file" in flag]
    assert not host.sh("ls -d /etc/etcd 2>/dev/null", check=False)
    assert host.sh("ps -o user= -C etcd") == "root\n"
    assert single.etcdctl("put", "a", "b") == "OK\n"
    before = state(single.hosts)
    single.invoke("all")
    assert state(single.hosts) == before
    single.edit(etcd={"flags": {"heartbeat-interval": 300}})
    single.invoke("all", code=3)
    single.invoke("all", "--accept-downtime")
    assert single.etcdctl("get", "--print-value-only", "a") == "b\n"
