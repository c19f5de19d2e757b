"""Each known failure, made for real on one cluster, is named by `invoke doctor`, and its mending command mends it."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deploy import Deployed, deploy, state
from host import Host, broken
from lab import Lab
from releases import Releases

UNIT = "/etc/systemd/system/etcd.service"
CERT = "/etc/etcd/cert"
QUOTA = 16 << 20
ALARM = """
import json, ssl, sys, urllib.request
url, ca, cert, key, body = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
request = urllib.request.Request(url + "/v3/maintenance/alarm", data=body.encode(), method="POST")
print(urllib.request.urlopen(request, context=context, timeout=10).read().decode())
"""


Findings = dict[str, dict[str, Any]]  # "etcd-2: stopped" → the finding


@pytest.fixture(scope="module")
def described(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Three new hosts and their etcd.toml."""
    nodes = [{"name": host.name, "ip": host.ip} for host in lab.hosts[:3]]
    etcd = {"version": releases.versions[-1], "flags": {"quota-backend-bytes": QUOTA}}
    return deploy(lab, tmp_path_factory.mktemp("doctor"), "", nodes=nodes, etcd=etcd, ssh={"connect_timeout": 4})


@pytest.fixture(scope="module")
def at_first(described: Deployed) -> Findings:
    """What the doctor finds before the first `invoke all`."""
    return doctor(described)


@pytest.fixture(scope="module")
def made(described: Deployed, at_first: Findings) -> Deployed:
    mend(described, at_first["etcd-2: not-deployed"])
    return described


@pytest.fixture
def cluster(made: Deployed, request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """Every test leaves it healthy; after one that failed it is made anew."""
    failed = request.session.testsfailed
    yield made
    if request.session.testsfailed > failed:
        made.lab.wipe()
        shutil.rmtree(made.work)
        made.invoke("all")


def doctor(cluster: Deployed, *args: str) -> Findings:
    """What the doctor finds; its exit code and its words must agree with it."""
    done = cluster.lab.invoke(cluster.config, "doctor", "--json", *args)
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    assert done.returncode == {"healthy": 0, "unhealthy": 5, "unknown": 6}[document["state"]], done.stderr
    found = {f"{each['node'] or 'cluster'}: {each['failure']}": each for each in document["findings"]}
    assert len(found) == len(document["findings"])
    assert all(each["what"] and each["mend"] and all(each["evidence"]) for each in found.values())
    return found


def known_by(finding: dict[str, Any]) -> str:
    return "\n".join(finding["evidence"])


def mend(cluster: Deployed, finding: dict[str, Any]) -> None:
    """Runs the `invoke …` of the mending command."""
    words = shlex.split(finding["mend"][finding["mend"].index("invoke ") :].partition(" (")[0])
    cluster.invoke(*words[1:])


def until(host: Host, script: str) -> None:
    """Waits until `script` succeeds on the host."""
    host.sh(f"for i in $(seq 300); do if {script}; then exit 0; fi; sleep 0.1; done; exit 1")


def logged(host: Host, words: str) -> None:
    """Waits for words in the log of etcd's last start."""
    until(
        host,
        "journalctl --sync; i=$(systemctl show etcd -P InvocationID);"
        f" journalctl -o cat INVOCATION_ID=$i + _SYSTEMD_INVOCATION_ID=$i | grep -q {shlex.quote(words)}",
    )


def test_hosts_before_the_first_all(cluster: Deployed, at_first: Findings) -> None:
    assert set(at_first) == {f"{host.name}: not-deployed" for host in cluster.hosts}
    for finding in at_first.values():
        assert finding["evidence"] == [f"there is no {UNIT}"]
        assert finding["mend"].startswith("invoke all")
    assert doctor(cluster) == {}, "that mends it"


def test_a_healthy_cluster_is_well_and_nothing_is_touched(cluster: Deployed) -> None:
    before, runs = state(cluster.hosts), sorted((cluster.work / "log").iterdir())
    said = cluster.invoke("doctor").stdout
    assert "nothing is wrong with lab" in said
    assert doctor(cluster) == {}
    assert doctor(cluster, "--node", "etcd-2") == {}
    assert state(cluster.hosts) == before
    assert sorted((cluster.work / "log").iterdir()) == runs, "it only reads: no lock, no entry in the log"


def test_what_stands_beside_a_serving_member(cluster: Deployed) -> None:
    one, two, three = cluster.hosts
    dropin = "/etc/systemd/system/etcd.service.d"
    stub = '#!/bin/sh\n[ "$1" = +%s ] || exec /bin/date "$@"\necho $(($(/bin/date +%s) + 100))\n'
    with (
        broken(
            one,
            f"mkdir {dropin}; printf '[Service]\\nEnvironment=ETCD_DEBUG=true\\n' >{dropin}/x.conf; "
            "systemctl daemon-reload",
            f"rm -r {dropin}; systemctl daemon-reload",
        ),
        broken(
            two,
            f"printf %s {shlex.quote(stub)} >/usr/local/sbin/date; chmod 755 /usr/local/sbin/date",
            "rm /usr/local/sbin/date",
        ),
        broken(three, "systemctl disable etcd", "systemctl enable etcd"),
    ):
        found = doctor(cluster)
        assert set(found) == {"etcd-1: overridden", "etcd-2: clock-skew", "etcd-3: not-enabled"}
        assert "x.conf" in known_by(found["etcd-1: overridden"])
        assert "s ahead of this controller's" in known_by(found["etcd-2: clock-skew"])
    cluster.wait_healthy()


def test_a_stopped_member_an_unreachable_host_and_the_quorum(cluster: Deployed) -> None:
    one, two, _ = cluster.hosts
    one.sh("systemctl stop etcd")
    two.cut()
    try:
        found = doctor(cluster)
    finally:
        two.heal()
    assert set(found) == {"etcd-1: stopped", "etcd-2: host-unreachable", "cluster: no-quorum"}
    assert two.ip in known_by(found["etcd-2: host-unreachable"])
    mend(cluster, found["etcd-1: stopped"])
    cluster.wait_healthy()


def test_a_foreign_process_on_a_port(cluster: Deployed) -> None:
    host = cluster.hosts[1]
    squat = f"systemd-run --unit=squatter /usr/sbin/sshd -D -o ListenAddress={host.ip}:2379 -o PidFile=none"
    with broken(host, f"systemctl stop etcd; {squat}; systemctl start --no-block etcd", "systemctl stop squatter"):
        logged(host, "address already in use")
        found = doctor(cluster)
        assert set(found) == {"etcd-2: port-taken"}
        assert "address already in use" in known_by(found["etcd-2: port-taken"])
        host.sh("systemctl stop etcd")
        holder = host.sh("systemctl show squatter -P MainPID").strip()
        found = doctor(cluster)
        assert f"port 2379 is taken by pid {holder} (sshd)" in known_by(found["etcd-2: port-taken"])
    mend(cluster, found["etcd-2: port-taken"])
    cluster.wait_healthy()


def test_bad_flags_and_the_start_limit(cluster: Deployed) -> None:
    host = cluster.hosts[1]
    restarts = "systemctl daemon-reload; for i in $(seq 80); do systemctl restart etcd; done 2>/dev/null; true"
    host.sh(f"cp {UNIT} /root/; sed -i 's/--name=etcd-2/& --no-such-flag=1/' {UNIT}; {restarts}")
    found = doctor(cluster)
    assert set(found) == {"etcd-2: unknown-flag", "etcd-2: start-limit"}
    assert "-no-such-flag" in known_by(found["etcd-2: unknown-flag"])
    host.sh(f"cp /root/etcd.service {UNIT}; sed -i 's/--heartbeat-interval=250/--heartbeat-interval=2500/' {UNIT}")
    host.sh("systemctl daemon-reload; systemctl reset-failed etcd; systemctl restart etcd", check=False)
    logged(host, "should be at least as")
    found = doctor(cluster)
    assert set(found) == {"etcd-2: bad-flag"}
    assert "election" in known_by(found["etcd-2: bad-flag"])
    mend(cluster, found["etcd-2: bad-flag"])
    cluster.wait_healthy()


def test_a_member_that_does_not_stay_up_for_no_known_reason(cluster: Deployed) -> None:
    host, etcd = cluster.hosts[1], "/usr/local/bin/etcd"
    host.sh(f"systemctl stop etcd; truncate -s 4M {etcd}; systemctl start --no-block etcd")
    until(host, "[ $(systemctl show etcd -P SubState) = auto-restart ]")
    found = doctor(cluster)
    assert set(found) == {"etcd-2: not-running"}
    assert "systemd: activating/auto-restart" in known_by(found["etcd-2: not-running"])
    assert "its log: etcd.service: Main process exited, code=" in known_by(found["etcd-2: not-running"])
    mend(cluster, found["etcd-2: not-running"])
    assert doctor(cluster) == {}


def test_a_member_that_hangs(cluster: Deployed) -> None:
    host = cluster.hosts[1]
    host.sh("systemctl kill --signal=STOP etcd")
    found = doctor(cluster)
    assert set(found) == {"etcd-2: not-serving"}
    assert f"https://{host.ip}:2379: context deadline exceeded" in known_by(found["etcd-2: not-serving"])
    said = cluster.invoke("plan", code=5)  # nothing differs, and yet it does not say that all is well
    assert f"etcd-2 does not answer at https://{host.ip}:2379" in said.stderr
    mend(cluster, found["etcd-2: not-serving"])
    assert doctor(cluster) == {}


def test_the_disk_and_its_directories(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    small = (
        "systemctl stop etcd; mv /data/etcd /data/kept; mkdir /data/etcd; mount -t tmpfs -o size=200m t /data/etcd;"
        "cp -a /data/kept/. /data/etcd/; dd if=/dev/zero of=/data/etcd/full bs=1M 2>/dev/null;"
        "systemctl start --no-block etcd"
    )
    back = "systemctl stop etcd; rm -r /data/etcd/full /data/kept; cp -a /data/etcd /data/kept; umount /data/etcd"
    with broken(host, small, f"{back}; rmdir /data/etcd; mv /data/kept /data/etcd"):
        found = doctor(cluster)
        assert "etcd-3: disk-full" in found
        assert "/data/etcd/data: 0 MB free" in known_by(found["etcd-3: disk-full"])
    mounted = "systemctl stop etcd; mv /data/etcd/wal /data/kept; mkdir /data/etcd/wal; mount -t tmpfs t /data/etcd/wal"
    with broken(host, mounted, "umount /data/etcd/wal; rmdir /data/etcd/wal; mv /data/kept /data/etcd/wal"):
        found = doctor(cluster)
        assert set(found) == {"etcd-3: wal-mountpoint", "etcd-3: wiped-member"}
    with broken(host, "chown root:root /data/etcd; systemctl start --no-block etcd", "chown etcd:etcd /data/etcd"):
        logged(host, "ermission denied")
        found = doctor(cluster)
        assert set(found) == {"etcd-3: not-writable"}
        host.sh("systemctl stop etcd")
        assert "/data/etcd belongs to root:root" in known_by(doctor(cluster)["etcd-3: not-writable"])
    mend(cluster, found["etcd-3: not-writable"])
    cluster.wait_healthy()


def test_data_that_is_gone_or_is_not_this_clusters(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    member = json.loads(cluster.etcdctl("-w", "json", "member", "list"))["members"]
    (own,) = [f"{each['ID']:x}" for each in member if each["name"] == "etcd-3"]
    aside = "systemctl stop etcd; cp -a /data/etcd /data/kept; rm -r /data/etcd/*/*"
    with broken(host, aside, "systemctl stop etcd; rm -r /data/etcd; mv /data/kept /data/etcd"):
        found = doctor(cluster)
        assert set(found) == {"etcd-3: wiped-member"}
        assert f"etcdctl member remove {own}" in found["etcd-3: wiped-member"]["mend"]
        with broken(host, f"mv {UNIT} /root/", f"mv /root/etcd.service {UNIT}"):
            assert set(doctor(cluster)) == {"etcd-3: wiped-member"}, "a host made anew is no new member either"
        host.sh("systemctl start --no-block etcd")  # systemd refuses
        assert set(doctor(cluster)) == {"etcd-3: wiped-member"}
        unguard = f"sed -i /^AssertDirectoryNotEmpty=/d {UNIT}; systemctl daemon-reload"
        host.sh(f"{unguard}; systemctl start --no-block etcd")  # it is started all the same
        logged(host, "has already been bootstrapped")
        found = doctor(cluster)
        assert set(found) == {"etcd-3: wiped-member"}
        assert "has already been bootstrapped" in known_by(found["etcd-3: wiped-member"])

        # another cluster's data
        host.sh("systemctl stop etcd; rm -rf /data/etcd/*/*")
        foreign = other("--data-dir=/data/etcd/data --wal-dir=/data/etcd/wal --initial-cluster-token=other")
        host.sh(f"{foreign}; for i in $(seq 100); do [ -e /data/etcd/data/member/snap/db ] && break; sleep 0.1; done")
        until(host, "/usr/local/bin/etcdctl --endpoints=http://127.0.0.1:12379 put a b >/dev/null 2>&1")
        host.sh("systemctl stop other; systemctl restart --no-block etcd")
        until(host, "systemctl is-active etcd >/dev/null")
        found = doctor(cluster)
        assert set(found) == {"etcd-3: cluster-id-mismatch"}
        assert "cluster ID" in known_by(found["etcd-3: cluster-id-mismatch"])
    host.sh(f"rm {UNIT}; systemctl daemon-reload")
    found = doctor(cluster)
    assert set(found) == {"etcd-3: no-unit"}
    mend(cluster, found["etcd-3: no-unit"])
    cluster.wait_healthy()


def other(flags: str) -> str:
    """A command that starts another etcd, as the service `other`, beside ours."""
    urls = "--listen-client-urls=http://127.0.0.1:12379 --advertise-client-urls=http://127.0.0.1:12379"
    peers = "--listen-peer-urls=http://127.0.0.1:12380"
    run = "systemd-run --quiet --unit=other -p User=etcd"
    return f"systemctl reset-failed other 2>/dev/null; {run} /usr/local/bin/etcd {flags} {urls} {peers}"


def test_a_second_etcd_on_the_same_data(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    start = other("--data-dir=/data/etcd/data --wal-dir=/data/etcd/wal")
    holds = "ls -l /proc/$(systemctl show other -P MainPID)/fd | grep -q member/snap/db"
    with broken(host, f"systemctl stop etcd; {start}", "systemctl stop other"):
        until(host, holds)
        host.sh("systemctl start --no-block etcd")
        found = doctor(cluster)
        assert set(found) == {"etcd-3: second-etcd"}
        pid = host.sh("systemctl show other -P MainPID").strip()
        assert f"pid {pid} (etcd) has /data/etcd/data open" in known_by(found["etcd-3: second-etcd"])
        assert "systemctl stop other.service" in found["etcd-3: second-etcd"]["mend"]
    mend(cluster, found["etcd-3: second-etcd"])
    cluster.wait_healthy()


def test_no_space_and_alarms(cluster: Deployed, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("x" * 1_400_000)
    fill = '. "$0"; for i in $(seq 40); do etcdctl put big$i <"$1" || exit 0; done 2>&1; exit 9'
    environment = cluster.work / "environment.sh"
    said = cluster.lab.output(["bash", "-c", fill, str(environment), str(tmp_path / "value")])
    assert "database space exceeded" in said
    found = doctor(cluster)
    assert found
    assert {name.partition(": ")[2] for name in found} == {"no-space-alarm"}
    cluster.etcdctl("del", "--prefix", "big")
    revision = json.loads(cluster.etcdctl("-w", "json", "get", "x"))["header"]["revision"]
    cluster.etcdctl("compact", "--physical", str(revision))
    cluster.etcdctl("defrag")
    cluster.etcdctl("alarm", "disarm")

    leader = cluster.leader()
    members = json.loads(cluster.etcdctl("-w", "json", "member", "list"))["members"]
    (member,) = [each["ID"] for each in members if each["name"] == leader]
    body = json.dumps({"action": "ACTIVATE", "memberID": str(member), "alarm": "CORRUPT"})
    files = [str(cluster.operator[name]) for name in ("ca", "cert", "key")]
    url = f"https://{cluster.hosts[0].ip}:2379"
    cluster.lab.output([sys.executable, "-c", ALARM, url, *files, body])
    found = doctor(cluster)
    assert set(found) == {f"{leader}: corrupt"}
    assert f"alarm CORRUPT on {member:x}" in known_by(found[f"{leader}: corrupt"])
    cluster.etcdctl("alarm", "disarm")
    cluster.wait_healthy()


def test_a_flipped_byte(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    cluster.etcdctl("put", "precious", "the-original-value")
    cluster.invoke("verify")  # the value is on every member
    database = "/data/etcd/data/member/snap/db"
    flip = f"systemctl stop etcd; perl -pi -e 's/%s-original/%s-original/g' {database}; chown etcd:etcd {database}"
    with broken(
        host, f"{flip % ('the', 'THE')}; systemctl start etcd", f"{flip % ('THE', 'the')}; systemctl start etcd"
    ):
        cluster.wait_healthy()  # etcd itself has not noticed
        found = doctor(cluster)
        assert set(found) == {"etcd-3: corrupt"}
        assert "the hash of its data is" in known_by(found["etcd-3: corrupt"])
    cluster.wait_healthy()


# -- certificates -------------------------------------------------------------------------------------------------


def forged(cluster: Deployed, file: str, **fields: Any) -> str:
    """A certificate of the work directory, in which `days` (until its end), `sans` or `ca` (a pair) are wrong; PEM."""
    own = x509.load_pem_x509_certificate((cluster.work / file).read_bytes())
    ca, ca_key = fields.get("ca") or (
        x509.load_pem_x509_certificate((cluster.work / "ca" / "ca.pem").read_bytes()),
        serialization.load_pem_private_key((cluster.work / "ca/builtin/ca-key.pem").read_bytes(), None),
    )
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(own.subject).issuer_name(ca.subject).public_key(own.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=9)).not_valid_after(
        now + timedelta(days=fields.get("days", 9))
    )
    for extension in own.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName) and "sans" in fields:
            value = x509.SubjectAlternativeName([x509.DNSName(name) for name in fields["sans"]])
        if not isinstance(value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(value, extension.critical)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def stranger() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Another CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(7).not_valid_before(now - timedelta(days=9)).not_valid_after(now + timedelta(days=9))
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def put(host: Host, files: dict[str, str]) -> None:
    for name, content in files.items():
        host.sh(f"printf %s {shlex.quote(content)} >{CERT}/{name}")


def other_key() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"etcd-key.pem": pem.decode()}


def test_certificates(cluster: Deployed) -> None:
    _, two, three = cluster.hosts
    put(two, {"etcd.pem": forged(cluster, "certs/etcd-2/live/cert.pem", days=-1)})
    put(three, other_key())
    found = doctor(cluster)
    assert set(found) == {"etcd-2: expired-certificate", "etcd-3: key-mismatch"}
    assert "expired on" in known_by(found["etcd-2: expired-certificate"])
    assert "the key on the node is not the one that was issued" in known_by(found["etcd-3: key-mismatch"])
    assert found["etcd-2: expired-certificate"]["mend"].startswith("invoke certs --node etcd-2")
    assert found["etcd-3: key-mismatch"]["mend"].startswith("invoke certs --node etcd-3")

    put(two, {"etcd.pem": forged(cluster, "certs/etcd-2/live/cert.pem", sans=["localhost"])})
    put(three, {"etcd.pem": forged(cluster, "certs/etcd-3/live/cert.pem", ca=stranger())})
    put(three, {"etcd-key.pem": (cluster.work / "certs/etcd-3/live/key.pem").read_text()})
    found = doctor(cluster)
    assert set(found) == {"etcd-2: wrong-certificate", "etcd-3: ca-mismatch"}
    assert "SAN: not exactly what was asked for" in known_by(found["etcd-2: wrong-certificate"])
    assert "not signed by the CA" in known_by(found["etcd-3: ca-mismatch"])
    assert found["etcd-3: ca-mismatch"]["mend"].startswith("invoke ca certs ")
    cluster.invoke("certs")  # both at once, through the node that can still ask
    cluster.wait_healthy()


def test_a_foreign_ca_file(cluster: Deployed) -> None:
    host = cluster.hosts[0]
    put(host, {"ca.pem": stranger()[0].public_bytes(serialization.Encoding.PEM).decode()})
    found = doctor(cluster)
    assert set(found) == {"etcd-1: ca-mismatch"}
    assert "trusts the CA" in known_by(found["etcd-1: ca-mismatch"])
    assert f"mv {CERT}/ca.pem" in found["etcd-1: ca-mismatch"]["mend"]
    host.sh(f"mv {CERT}/ca.pem {CERT}/ca.pem.foreign")
    mend(cluster, found["etcd-1: ca-mismatch"])
    cluster.wait_healthy()


def test_what_is_wrong_although_every_file_on_the_nodes_is_right(cluster: Deployed) -> None:
    operator = cluster.operator["cert"]
    operator.write_text(forged(cluster, "certs/operator/live/cert.pem", days=-1))
    found = doctor(cluster)
    assert set(found) == {f"{host.name}: tls-refused" for host in cluster.hosts}
    assert "client port 2379 does not take its certificate" in known_by(found["etcd-1: tls-refused"])
    mend(cluster, found["etcd-1: tls-refused"])
    assert doctor(cluster) == {}, "it was the operator's, which all of them refused"

    key = cluster.work / "certs" / "etcd-2" / "live" / "key.pem"
    mine = key.read_text()
    key.write_text(other_key()["etcd-key.pem"])
    found = doctor(cluster)
    key.write_text(mine)
    assert set(found) == {"etcd-2: wrong-certificate"}
    assert "not the key of cert.pem beside it: move " in known_by(found["etcd-2: wrong-certificate"])

    host = cluster.hosts[1]
    put(host, {"other.pem": forged(cluster, "certs/etcd-2/live/cert.pem")})
    host.sh(f"sed -i 's,--cert-file={CERT}/etcd.pem,--cert-file={CERT}/other.pem,' {UNIT}")
    host.sh("systemctl daemon-reload; systemctl restart etcd")
    cluster.wait_healthy()
    found = doctor(cluster)
    assert set(found) == {"etcd-2: tls-refused"}
    assert "client port 2379 shows another certificate than the one last issued" in known_by(
        found["etcd-2: tls-refused"]
    )
    mend(cluster, found["etcd-2: tls-refused"])
    assert doctor(cluster) == {}


def test_files_that_etcd_may_not_read(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    host.sh(f"chown root:root {CERT}/live/etcd-key.pem; systemctl restart --no-block etcd")
    logged(host, "discovery failed")  # the start's end; before it only handshakes were refused
    found = doctor(cluster)
    assert set(found) == {"etcd-3: unreadable-certificate"}
    mend(cluster, found["etcd-3: unreadable-certificate"])
    assert doctor(cluster) == {}


def test_an_expired_ca(cluster: Deployed) -> None:
    """The same CA with an earlier end, as if nobody had cared for all of its years."""
    ca = forged(cluster, "ca/ca.pem", days=-1)
    for file in ("ca.pem", "builtin/ca.pem"):
        (cluster.work / "ca" / file).write_text(ca)
    for host in cluster.hosts:
        put(host, {"ca.pem": ca})
    found = doctor(cluster)
    assert set(found) == {"cluster: ca-expired", "cluster: no-quorum"}
    assert "expired on " in known_by(found["cluster: ca-expired"])
    by_hand = found["cluster: ca-expired"]["mend"].split(": ", 1)[1]
    for host in cluster.hosts:
        host.sh(by_hand.partition("on every node: ")[2].partition(";")[0])
    cluster.lab.output(["sh", "-c", by_hand.partition("here: ")[2].partition(";")[0]])
    mend(cluster, found["cluster: ca-expired"])
    assert doctor(cluster) == {}


# -- membership ---------------------------------------------------------------------------------------------------


def add(cluster: Deployed, name: str, url: str) -> None:
    """Adds a learner. For 5 s after a member came back etcd calls the cluster unhealthy."""
    script = (
        '. "$0"; for i in $(seq 40); do etcdctl member add "$1" --learner --peer-urls="$2" && exit; sleep 0.5; done'
    )
    cluster.lab.output(["bash", "-c", f"({script}; exit 1) 2>&1", str(cluster.work / "environment.sh"), name, url])


def test_members_that_should_not_be_or_are_not(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    add(cluster, "stranger", "https://192.168.1.250:2380")
    found = doctor(cluster)
    assert set(found) == {"cluster: foreign-member"}
    assert "https://192.168.1.250:2380" in known_by(found["cluster: foreign-member"])
    removal = found["cluster: foreign-member"]["mend"]
    cluster.etcdctl(*removal[removal.index("member remove ") :].split())
    assert doctor(cluster) == {}

    members = json.loads(cluster.etcdctl("-w", "json", "member", "list"))["members"]
    (own,) = [f"{each['ID']:x}" for each in members if each["name"] == "etcd-3"]
    # A member that is asked to remove itself may stop before it has answered.
    cluster.etcdctl("member", "remove", own, asked=cluster.hosts[0])
    until(host, "! systemctl is-active etcd >/dev/null")
    found = doctor(cluster)
    assert set(found) == {"etcd-3: removed-member"}

    url = f"https://{host.ip}:2380"
    host.sh("rm -r /data/etcd; install -d -o etcd -g etcd -m 0700 /data/etcd /data/etcd/data /data/etcd/wal")
    add(cluster, "etcd-3", url)
    assert "etcd-3: never-started" in doctor(cluster)
    host.sh(f"sed -i -e s/state=new/state=existing/ -e /^AssertDirectoryNotEmpty=/d {UNIT}")
    host.sh("systemctl daemon-reload; systemctl start etcd")
    found = doctor(cluster)
    assert set(found) == {"etcd-3: learner"}
    promotion = found["etcd-3: learner"]["mend"].partition(", or")[0]
    cluster.etcdctl(*promotion[promotion.index("member promote ") :].split())
    cluster.invoke("units", "--node", "etcd-3")
    cluster.wait_healthy()
