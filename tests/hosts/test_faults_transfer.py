"""Faults while etcd comes to the controller and from there to the hosts (download, distribute)."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest
from conftest import Writing
from deploy import Deployed, Done, pids, project, three
from host import Host, each
from invariants import intact
from lab import Lab
from processes import daemon, wait
from releases import Releases
from runs import Running, ended, started

from steps.core.release.binaries import own_arch

BINARY = "/usr/local/bin/etcd"
SSHD = "pkill -{} -f 'sshd.*: roo[t]'"  # of every connection
HALF = 1_000_000  # bytes
# A disk with room for what is installed and for a part of what comes.
FULL = """
size=$(du -sm /usr/local/bin | cut -f1); mkdir -p /small
mount -t tmpfs -o mode=755,size=$((size + 10))m small /small
cp -p /usr/local/bin/* /small; mount --bind /small /usr/local/bin
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Three members of the last but one version, while the last one is what etcd.toml asks for."""
    made = three(lab, tmp_path_factory.mktemp("transfer"), etcd={"version": releases.versions[-2]})
    made.edit(etcd={"version": releases.versions[-1]})
    made.invoke("download")
    return made


def installed(host: Host) -> str:
    return host.sh(f"{BINARY} --version | head -n1").split()[-1]


def binaries(host: Host) -> str:
    """The living process and what is installed, whole."""
    return host.sh("systemctl show etcd -P MainPID; sha256sum /usr/local/bin/*")


def running(host: Host) -> str:
    return host.sh('"/proc/$(systemctl show etcd -P MainPID)/exe" --version | head -n1').split()[-1]


def test_a_version_that_the_mirror_lacks(cluster: Deployed, writing: Writing) -> None:
    config = cluster.config.read_text()
    cluster.edit(etcd={"version": "3.5.99"})
    with intact(cluster, writing, still=cluster.hosts):
        said = cluster.invoke("download", code=1).stderr
    cluster.config.write_text(config)
    assert "/v3.5.99/" in said
    assert "404" in said


VERSION, EVIL = "3.5.99", "3.5.98"  # nobody has these; the second one's tarball is not what it should be
PORT = 8090
SECURE, PLAIN = f"https://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT + 1}"
PROXY = "http://somebody:hunter2@127.0.0.1:9"
MIRRORS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "it fails again and again": (f"{PLAIN}/failing", VERSION, {}, "HTTP 503"),
    "https leads to http": (f"{SECURE}/plain", VERSION, {}, "refused the redirect"),
    "a proxy that is not there": (
        "https://mirror.invalid",
        VERSION,
        {"HTTPS_PROXY": PROXY},
        "the proxy of HTTPS_PROXY",
    ),
    "a body that is cut off": (f"{PLAIN}/cut", VERSION, {}, "gave up after"),
    "another digest": (f"{PLAIN}/mismatch", VERSION, {}, f"expected sha256 {'0' * 64}"),
    "SHA256SUMS lacks the file": (f"{PLAIN}/lacking", VERSION, {}, "SHA256SUMS lacks etcd-v3.5.99-linux-"),
    "SHA256SUMS is a page": (f"{PLAIN}/html", VERSION, {}, "is no list of SHA-256 digests"),
    "a tarball with a link in a binary's place": (f"{PLAIN}/good", EVIL, {}, "has no regular file etcd-v3.5.98-linux-"),
}


@pytest.fixture(scope="module")
def mirrors(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two servers in the lab, one with TLS; the certificate that vouches for it."""
    root = tmp_path_factory.mktemp("mirror")
    for version, link in ((VERSION, False), (EVIL, True)):
        name = f"etcd-v{version}-linux-{own_arch()}"
        (root / f"v{version}").mkdir()
        with tarfile.open(root / f"v{version}" / f"{name}.tar.gz", "w:gz") as tar:
            for binary in ("etcd", "etcdctl"):
                info = tarfile.TarInfo(f"{name}/{binary}")
                info.size = 0 if link else 100_000
                info.type, info.linkname = (tarfile.SYMTYPE, "/bin/sh") if link else (tarfile.REGTYPE, "")
                tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        digest = hashlib.sha256((root / f"v{version}" / f"{name}.tar.gz").read_bytes()).hexdigest()
        (root / f"v{version}" / "SHA256SUMS").write_text(f"{digest}  {name}.tar.gz\n")
    pair = [str(root / name) for name in ("cert.pem", "key.pem")]
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=mirror"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", pair[0], "-keyout", pair[1]]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    for port, more in ((PORT, pair), (PORT + 1, [])):
        argv = [sys.executable, str(Path(__file__).with_name("mirror.py")), str(port), str(root), *more]
        log = lab.state / f"mirror-{port}.log"
        daemon([*lab.inside, *argv], pid=log.with_suffix(".pid"), log=log)
        listening = ["ss", "--no-header", "--listening", "--tcp", "--numeric", f"sport = :{port}"]
        wait(lambda listening=listening: bool(lab.output(listening)), 10, f"no mirror: see {log}")  # type: ignore[misc]
    return Path(pair[0])


@pytest.mark.parametrize("how", MIRRORS)
def test_a_mirror_that_misbehaves(cluster: Deployed, writing: Writing, mirrors: Path, how: str) -> None:
    mirror, version, env, said = MIRRORS[how]
    config = cluster.config.read_text()
    cluster.edit(etcd={"version": version}, release={"mirror": mirror})
    with intact(cluster, writing, still=cluster.hosts):
        done = cluster.invoke("download", code=1, env={"SSL_CERT_FILE": str(mirrors), **env})
    cluster.config.write_text(config)
    assert said in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert not [path for path in (cluster.lab.state / "cache").rglob("*") if version in path.name and path.is_dir()]


# The preflight has passed before a step begins: what it would refuse happens behind it.
MEANWHILE = """
import subprocess
from steps.api import hookimpl

@hookimpl
def etcd_before_step(step, cluster, nodes):
    subprocess.run(%r, check=True)
"""


def test_a_binary_that_does_not_run_on_the_node_replaces_none(
    cluster: Deployed, writing: Writing, tmp_path: Path
) -> None:
    host = cluster.hosts[0]
    before = binaries(host)
    noexec = "mount --bind /usr/local/bin /usr/local/bin && mount -o remount,bind,noexec /usr/local/bin"
    folder = project(tmp_path, MEANWHILE % [*host.enter(), "sh", "-c", noexec])
    try:
        with intact(cluster, writing):
            said = cluster.invoke("distribute", "--node", host.name, code=3, cwd=folder).stderr
    finally:
        host.sh("umount /usr/local/bin")
    assert f"{host.name}: distribute failed at: {BINARY}" in said
    assert "Permission denied" in said
    assert binaries(host) == before


def test_a_tarball_with_another_digest_than_the_pinned_one(cluster: Deployed, writing: Writing) -> None:
    config = cluster.config.read_text()
    pinned = "0" * 64
    cluster.edit(release={"sha256": {"amd64": pinned, "arm64": pinned}})
    with intact(cluster, writing, still=cluster.hosts):
        said = cluster.invoke("download", code=1)
        cluster.config.write_text(config)
        again = cluster.invoke("download").stdout
    sums = next(Path(cluster.lab.state / "cache").rglob(f"*{version(cluster)}*/release.json")).read_text()
    (actual,) = [line.split('"')[3] for line in sums.splitlines() if '"tarball"' in line]
    assert pinned in said.stderr
    assert actual in said.stderr
    assert "is in the cache" in again  # which was not poisoned, nor thrown away


def version(cluster: Deployed) -> str:
    (line,) = [line for line in cluster.config.read_text().splitlines() if line.startswith("version")]
    return line.split('"')[1]


def test_the_disk_gets_full_in_the_middle_of_an_upload(cluster: Deployed, writing: Writing) -> None:
    host = cluster.hosts[1]
    old, before = installed(host), binaries(host)
    host.sh(FULL)
    try:
        with intact(cluster, writing):
            said = cluster.invoke("distribute", "--node", host.name, code=1).stderr
        assert f"{host.name}: distribute failed at: {BINARY}" in said
        assert "No space left on device" in said
        assert "next: mend the cause, then: invoke " in said
        assert (installed(host), running(host)) == (old, old)
        assert binaries(host) == before
    finally:
        host.sh("umount /usr/local/bin /small")


def staged(host: Host) -> int:
    """Bytes of what is being uploaded."""
    said = host.sh("stat -c %s /usr/local/bin/.etcd-steps.* 2>/dev/null || true")
    return int(said.split()[0]) if said else 0


def halfway(process: Running, host: Host) -> None:
    while staged(host) < HALF:
        assert process.poll() is None, ended(process)


def slowed(cluster: Deployed, host: Host) -> None:
    """What goes to the host is held to 20 Mbit/s."""
    words = f"tc qdisc replace dev {host.name} root tbf rate 20mbit burst 64kbit latency 400ms"
    cluster.lab.output(words.split())


def unslowed(cluster: Deployed, host: Host) -> None:
    cluster.lab.output(f"tc qdisc del dev {host.name} root".split())


def elsewhere(writing: Writing, cluster: Deployed, host: Host) -> Writing:
    """The writer asks the other members: no client has its answer from behind a cut cable within its patience."""
    endpoints = ",".join(f"https://{other.ip}:2379" for other in cluster.hosts if other is not host)
    return partial(writing, endpoints=endpoints)


def another(cluster: Deployed, host: Host, folder: Path) -> Done:
    """A run of another controller, which cannot know whether the first one still works there."""
    file = folder / "etcd.toml"
    file.write_text(cluster.config.read_text())
    return cluster.lab.invoke(file, "env", "--node", host.name)


@pytest.mark.parametrize("how", ["the cable is pulled", "sshd dies"])
def test_the_connection_drops_in_the_middle_of_an_upload(
    cluster: Deployed, writing: Writing, tmp_path: Path, how: str
) -> None:
    leader = cluster.leader()
    host = next(host for host in cluster.hosts if host.name != leader)
    old, before = installed(host), binaries(host)
    slowed(cluster, host)
    try:
        with intact(cluster, elsewhere(writing, cluster, host)):
            with started(cluster, "distribute", "--node", host.name) as process:
                halfway(process, host)
                begun = time.monotonic()
                if how == "sshd dies":
                    host.sh(SSHD.format("KILL"))
                else:
                    host.cut()
                    host.sh(SSHD.format("STOP"))  # as behind a firewall that forgot the connection: it never hears
                code, said = ended(process)
                took = time.monotonic() - begun
            host.heal()
            unslowed(cluster, host)
            if how == "the cable is pulled":
                assert "another run holds the lock" in another(cluster, host, tmp_path).stderr
                cluster.invoke("env", "--node", host.name)  # which ends what its predecessor left behind
                host.sh(SSHD.format("KILL"))
        assert code == 1, said
        assert took < 60, took
        assert f"error: {host.name}: " in said
        assert f"next: invoke distribute --node {host.name} --config {cluster.config}" in said
    finally:
        host.heal()
    assert (installed(host), running(host)) == (old, old)
    assert binaries(host) == before
    cluster.wait_healthy()


def test_binaries_are_replaced_under_running_members(cluster: Deployed, writing: Writing) -> None:
    """A running file cannot be written to (ETXTBSY); it can be renamed over."""
    old, before, new = running(cluster.hosts[0]), pids(cluster.hosts), version(cluster)
    with intact(cluster, writing):
        cluster.invoke("distribute")
    assert pids(cluster.hosts) == before
    assert each(installed, cluster.hosts) == [new] * 3
    assert each(running, cluster.hosts) == [old] * 3
    with intact(cluster, writing):
        cluster.invoke("start")
    assert each(running, cluster.hosts) == [new] * 3
