"""Faults of the CA, of certificates and of the backends that sign them: nothing wrong ever reaches a host."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Writing
from deploy import Deployed, pids
from host import Host
from invariants import files, intact, kept, same, tidy
from lab import Lab
from releases import Releases
from runs import described

from steps.core.tls import pki

SIGNER = Path(__file__).with_name("signer.py")
HANGING = "86397"  # seconds, and a word that no other process has
# A mv, found before the real one, that kills the script which is about to place the key.
KILLER = """
printf '#!/bin/sh\\ncase "$*" in */etcd-key.pem) kill -9 $PPID;; esac\\nexec /bin/mv "$@"\\n' > /usr/local/sbin/mv
chmod 755 /usr/local/sbin/mv
"""

LOCAL = """
[cluster]
name = "local"
[etcd]
version = "%s"
[hosts]
transport = "local"
[[nodes]]
name = "a"
ip = "127.0.0.1"
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A healthy cluster with the built-in CA. Tests leave it so; the last one leaves it with another backend."""
    made = described(lab, tmp_path_factory.mktemp("certs"))
    made.invoke("all")
    return made


@contextmanager
def changed(file: Path, content: bytes | None) -> Iterator[None]:
    """While `file` has other content, or is not there."""
    aside = file.with_suffix(".aside")
    file.rename(aside)
    try:
        if content is not None:
            file.write_bytes(content)
            file.chmod(0o600)
        yield
    finally:
        aside.rename(file)


def test_a_ca_key_that_is_not_the_cas(cluster: Deployed, writing: Writing) -> None:
    key = cluster.work / "ca" / "builtin" / "ca-key.pem"
    with intact(cluster, writing, still=cluster.hosts), changed(key, pki.new_key("ecdsa:p256")):
        said = cluster.invoke("certs", "--renew", code=1).stderr
        assert f"{key}: not the key of ca.pem beside it" in said
        assert f"restore the key of {key.with_name('ca.pem')} from a backup" in said
        cluster.invoke("verify")


def test_a_lost_ca_key_keeps_nothing_but_issuing_from_working(cluster: Deployed, writing: Writing) -> None:
    key = cluster.work / "ca" / "builtin" / "ca-key.pem"
    with intact(cluster, writing, still=cluster.hosts), changed(key, None):
        cluster.invoke("start", "verify")
        cluster.invoke("all")
        said = cluster.invoke("certs", "--renew", code=1).stderr
    assert f"{key}: the CA's key is missing, so nothing can be issued; all else still works" in said
    assert "restore ca.pem and ca-key.pem (mode 0600)" in said


def test_a_pair_whose_halves_do_not_match(cluster: Deployed, writing: Writing) -> None:
    """etcd-2 refuses every new connection until it is mended; those that are open live on."""
    host, other = cluster.hosts[1], cluster.hosts[0]
    foreign = other.sh("cat /etc/etcd/cert/live/etcd.pem")
    file = "$(readlink -f /etc/etcd/cert/etcd.pem)"
    old = pids(cluster.hosts)
    with intact(cluster, writing, still=[other, cluster.hosts[2]]):
        host.sh(f"cat > {file} <<'END'\n{foreign}END\n")
        said = cluster.invoke("verify", code=5).stderr
        assert "etcd-2" in said
        assert "certificate" in said
        done = cluster.invoke("certs", "--node", host.name).stdout
        assert "etcd.pem is replaced" in done
        cluster.invoke("verify")
    assert pids(cluster.hosts) == old


def live(host: Host) -> str:
    return host.sh("readlink /etc/etcd/cert/live; cat /etc/etcd/cert/etcd.pem /etc/etcd/cert/etcd-key.pem")


def test_a_node_is_killed_between_the_key_and_the_certificate(cluster: Deployed, writing: Writing) -> None:
    host = cluster.hosts[0]
    old, processes = live(host), pids(cluster.hosts)
    with intact(cluster, writing):
        host.sh(KILLER)
        said = cluster.invoke("certs", "--renew", code=1).stderr
        assert f"{host.name}: certs failed at: /etc/etcd/cert/gen-" in said
        host.sh("rm /usr/local/sbin/mv")
        assert live(host) == old
        cluster.invoke("status")  # by the old pair
        done = cluster.invoke("certs").stdout
        assert done.count("the new certificate is served on both ports") == 3
    assert live(host) != old
    assert pids(cluster.hosts) == processes
    cluster.invoke("verify")


def test_an_expired_ca_signs_nothing(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    """On this machine: a CA that nobody has yet is the controller's affair alone."""
    config = tmp_path / "etcd.toml"
    config.write_text(LOCAL % releases.versions[-1])
    local = Deployed(lab, config, [])
    home = local.work / "ca" / "builtin"
    home.mkdir(parents=True, mode=0o700)
    expired_ca(home)
    before = kept(local)
    said = local.invoke("ca", "certs", code=1).stderr
    assert "expired on 2020-01-02" in said
    assert not (local.work / "certs").exists()
    same(before, kept(local))
    tidy(local)


def expired_ca(home: Path) -> None:
    from datetime import datetime, timezone

    from steps.builtin import ca as builtin
    from steps.core.tls.contracts import CARequest

    class Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2020, 1, 1, tzinfo=timezone.utc)

    made = home.with_name("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "datetime", Then)
        builtin.Builtin().ca(CARequest("etcd-ca", {}, "ecdsa:p256", 1, made))
    shutil.rmtree(home)
    made.rename(home)


# mode of signer.py → what the message says of it
WRONG = {
    "san": "SAN: not exactly what was asked for",
    "ip": "SAN: not exactly what was asked for (+ missing, - not asked for): +192.168.1.220",
    "cn": "CN: 'somebody' instead of 'etcd-1'",
    "eku": "extendedKeyUsage: clientAuth is missing, a member needs it",
    "key": "public key: not ours",
    "issuer": "issuer: not signed by the CA",
    "beyond": "validity: notAfter",
}
# argv of the backend exec → what the message says
BROKEN = {
    "absent": (["/nonexistent/signer"], "/nonexistent/signer does not start: No such file or directory"),
    "fails": (["sh", "-c", "echo no such role >&2; exit 1"], "failed with exit code 1\n    no such role"),
    "prints nothing": (["sh", "-c", "echo not today >&2"], "printed no certificate in PEM\n    not today"),
    "hangs": (["sh", "-c", f"sleep {HANGING} & sleep {HANGING}"], "sh was killed after 2 s"),
    "cannot be loaded": ([sys.executable, "/nonexistent.py"], "failed with exit code 2"),
}


def signer(cluster: Deployed, mode: str) -> list[str]:
    home = str(cluster.work / "ca" / "builtin")
    return [sys.executable, str(SIGNER), mode, home, "{name}", "{kind}", "{sans}"]


def test_what_a_backend_does_wrong_reaches_no_host(cluster: Deployed, writing: Writing) -> None:
    processes, ca = pids(cluster.hosts), str(cluster.work / "ca" / "ca.pem")
    cluster.edit(tls={"backend": "exec", "ca_file": ca, "exec": {"argv": signer(cluster, "good"), "timeout": 20}})
    with intact(cluster, writing):
        cluster.invoke("certs")
    with intact(cluster, writing, still=cluster.hosts):
        served, said = files(cluster.hosts), {}
        for mode in WRONG:
            cluster.edit(tls={"exec": {"argv": signer(cluster, mode)}})
            said[mode] = cluster.invoke("certs", "--renew", code=1).stderr
        for fault, (argv, _) in BROKEN.items():
            cluster.edit(tls={"exec": {"argv": argv, "timeout": 2}})
            said[fault] = cluster.invoke("certs", "--renew", code=1).stderr
            assert not running(HANGING)
        assert files(cluster.hosts) == served
    for fault, expected in {**WRONG, **{fault: words for fault, (_, words) in BROKEN.items()}}.items():
        assert expected in said[fault], f"{fault}: {said[fault]}"
        assert "etcd-1: " in said[fault], fault
    cluster.edit(tls={"exec": {"argv": signer(cluster, "good"), "timeout": 20}})
    with intact(cluster, writing):
        cluster.invoke("certs", "--renew")
    assert pids(cluster.hosts) == processes


def running(word: str) -> bool:
    """Whether a process of this machine has `word` on its command line."""
    lines = [file.read_bytes().split(b"\0") for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    return any(word.encode() in words for words in lines)


def test_cfssl_that_prints_no_json(cluster: Deployed, writing: Writing, tmp_path: Path) -> None:
    """Signed by another backend until now: the built-in CA is cfssl's too, so a failure is cfssl's own."""
    config = cluster.config.read_text()
    fake = tmp_path / "cfssl"
    fake.write_text("#!/bin/sh\necho 'the database is gone' >&2\necho '<html>'\n")
    fake.chmod(0o755)
    with intact(cluster, writing, still=cluster.hosts):
        for binary, expected in ((str(fake), "printed no JSON\n    the database is gone"), ("no-cfssl", "no-cfssl")):
            cluster.edit(tls={"backend": "cfssl", "cfssl": {"binary": binary}})
            said = cluster.invoke("certs", code=1).stderr
            assert expected in said, said
        cluster.config.write_text(config)
        cluster.invoke("verify")
