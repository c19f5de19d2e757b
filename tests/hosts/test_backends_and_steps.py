"""Plugins on real hosts: every certificate backend and a step of a plugin's own lead to a healthy cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from host import Host, each
from lab import ROOT, Lab
from rootfs import locked

from steps.builtin.debian import unpacked
from steps.core.release.binaries import own_arch
from steps.testing import load_plugin, make_cluster, make_context

Config = Callable[..., Path]
EXAMPLES = ROOT / "examples" / "plugins"
VERSIONS = {"1.2.0": "bookworm", "1.6.5": "trixie"}
TASKS = """
from pathlib import Path
from steps.program import tasks
ns = tasks(Path(__file__).resolve().parent)
"""
CA = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=corporate -days 3650 "
    "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign "
    "-keyout ca-key.pem -out ca.pem"
)
DROPPED = 124  # timeout's word for it
SIGN = ["openssl", "x509", "-req", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-copy_extensions", "copy", "-days"]


@pytest.fixture(scope="session")
def cfssl() -> dict[str, Path]:
    """Version → the distribution's cfssl."""
    with locked("cfssl") as cache:
        for suite in VERSIONS.values():
            home = cache / f"cfssl-{suite}"
            if not home.exists():
                staged = cache / f".cfssl-{suite}"
                shutil.rmtree(staged, ignore_errors=True)
                state = cache / "apt"
                unpacked(["golang-cfssl"], suite, own_arch(), state=state, into=staged, deadline=120)
                staged.rename(home)
        return {version: cache / f"cfssl-{suite}" / "usr/bin/cfssl" for version, suite in VERSIONS.items()}


@pytest.fixture
def corporate(tmp_path: Path) -> Path:
    """A directory with the ca.pem and ca-key.pem of an authority outside."""
    home = tmp_path / "corporate"
    home.mkdir()
    subprocess.run(CA.split(), cwd=home, check=True, capture_output=True)
    return home


def healthy(lab: Lab, config: Path, **more: Any) -> str:
    """`invoke all` reaches a healthy cluster, and a second one finds nothing to do. Returns what the first said."""
    done = lab.invoke(config, "all", **more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is healthy" in done.stdout
    again = lab.invoke(config, "plan", **more)
    assert again.returncode == 0, again.stdout + again.stderr
    return done.stdout


def issuers(hosts: list[Host]) -> set[str]:
    """Who signed what the members serve."""
    files = each(lambda host: host.sh("cat /etc/etcd/cert/etcd.pem"), hosts)
    show = ["openssl", "x509", "-noout", "-issuer"]
    return {subprocess.run(show, input=pem, capture_output=True, text=True, check=True).stdout.strip() for pem in files}


def test_cfssl_of_both_versions_and_a_switch_between_backends(
    lab: Lab, hosts: list[Host], config: Config, cfssl: dict[str, Path]
) -> None:
    old, new = ({"backend": "cfssl", "cfssl": {"binary": str(cfssl[version])}} for version in VERSIONS)
    healthy(lab, config(tls=old))
    ca = {host.sh("cat /etc/etcd/cert/ca.pem") for host in hosts}
    started = each(lambda host: host.sh("systemctl show --property=MainPID etcd"), hosts)
    renewed = config(tls={**new, "leaf_days": 30, "renew_days": 36500})
    done = lab.invoke(renewed, "certs", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    said = healthy(lab, config(tls={"backend": "builtin"}))
    assert "signed by cfssl, the backend is builtin now" in said
    assert {host.sh("cat /etc/etcd/cert/ca.pem") for host in hosts} == ca
    assert each(lambda host: host.sh("systemctl show --property=MainPID etcd"), hosts) == started
    assert not any(each(lambda host: host.sh("find / -xdev -name '*ca-key*' 2>/dev/null", check=False), hosts))


def test_todays_cfssl_makes_a_cluster_too(lab: Lab, hosts: list[Host], config: Config, cfssl: dict[str, Path]) -> None:
    healthy(lab, config(tls={"backend": "cfssl", "cfssl": {"binary": str(cfssl["1.6.5"])}}))
    assert len(issuers(hosts)) == 1


def test_an_authority_outside_signs_what_it_is_handed(
    lab: Lab, hosts: list[Host], config: Config, corporate: Path, tmp_path: Path
) -> None:
    file = config(tls={"backend": "csr", "ca_file": str(corporate / "ca.pem")})
    waiting = lab.invoke(file, "all")
    assert waiting.returncode == 3, waiting.stdout + waiting.stderr
    home = tmp_path / ".etcd" / "lab" / "ca" / "csr"
    names = ["etcd-1", "etcd-2", "etcd-3", "operator"]
    assert sorted(request.stem for request in home.glob("*.csr")) == names
    readme = (home / "README").read_text()
    for name in names:
        assert str(home / f"{name}.csr") in waiting.stderr
        assert f"{name}.csr" in readme
    assert not any(each(lambda host: host.sh("ls /etc/etcd/cert/live 2>/dev/null", check=False), hosts))
    requests = {request: request.read_bytes() for request in home.glob("*.csr")}
    for request, asked in requests.items():
        answer = subprocess.run([*SIGN, "300"], cwd=corporate, input=asked, check=True, capture_output=True)
        request.with_suffix(".pem").write_bytes(answer.stdout)
    healthy(lab, file)
    assert {request: request.read_bytes() for request in requests} == requests
    assert issuers(hosts) == {"issuer=CN = corporate"}


def test_any_program_signs(lab: Lab, hosts: list[Host], config: Config, corporate: Path) -> None:
    argv = [str(corporate / word) if word.startswith("ca") else word for word in SIGN]
    tls = {"backend": "exec", "ca_file": str(corporate / "ca.pem"), "exec": {"argv": [*argv, "{days}"]}}
    healthy(lab, config(tls=tls))
    assert issuers(hosts) == {"issuer=CN = corporate"}
    refused = lab.invoke(config(tls={"backend": "builtin"}), "certs")
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert issuers(hosts) == {"issuer=CN = corporate"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A project with the examples as its plugins."""
    root = tmp_path / "site"
    shutil.copytree(EXAMPLES, root / "plugins", ignore=shutil.ignore_patterns("__pycache__", "webhook.py"))
    (root / "tasks.py").write_text(TASKS)
    shutil.copy(ROOT / "invoke.yaml", root)
    return root


def test_steps_flags_templates_checks_and_a_veto(lab: Lab, hosts: list[Host], config: Config, site: Path) -> None:
    options: dict[str, Any] = {"sysctl": {"settings": {"net.ipv4.tcp_keepalive_time": 301}}}
    options["maintenance"] = {"window": "00:00-00:00"}  # never
    options["disable"] = ["nftables"]  # the hosts have no nft
    each(lambda host: host.sh("mount -o remount,bind,rw /proc/sys"), hosts)  # a container's is read-only
    file = config(plugins=options)
    said = healthy(lab, file, cwd=site)
    assert "sysctl" in said
    host = hosts[1]
    assert host.sh("cat /proc/sys/net/ipv4/tcp_keepalive_time").strip() == "301"
    assert 'member="etcd-2"' in host.sh("cat /var/lib/prometheus/node-exporter/etcd_certificate.prom")
    assert "--metrics=extensive" in host.sh("cat /proc/$(pidof etcd)/cmdline").replace("\0", " ")
    assert host.sh("systemctl show --property=OOMScoreAdjust --value etcd").strip() == "-900"
    host.sh("echo 300 >/proc/sys/net/ipv4/tcp_keepalive_time")
    checked = lab.invoke(file, "verify", cwd=site)
    assert checked.returncode == 5, checked.stdout + checked.stderr
    assert "etcd-2: sysctl: net.ipv4.tcp_keepalive_time is 300, not 301" in checked.stderr
    host.sh("echo 301 >/proc/sys/net/ipv4/tcp_keepalive_time")
    pids = each(lambda host: host.sh("pidof etcd"), hosts)
    vetoed = lab.invoke(config(plugins=options, etcd={"flags": {"snapshot-count": 5000}}), "units", "start", cwd=site)
    assert vetoed.returncode == 3, vetoed.stdout + vetoed.stderr
    assert "plugin maintenance: etcd_before_restart in step start on etcd-" in vetoed.stderr
    assert each(lambda host: host.sh("pidof etcd"), hosts) == pids
    (site / "plugins" / "boom.py").write_text(
        "from steps.api import File, Step, hookimpl\n"
        "class Boom(Step):\n"
        '    name, after = "boom", "env"\n'
        "    def prepare(self, cluster, nodes, ctx):\n"
        "        raise ZeroDivisionError(1)\n"
        "@hookimpl\n"
        "def etcd_steps():\n"
        "    return [Boom()]\n"
    )
    failed = lab.invoke(file, "boom", cwd=site)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "plugin boom: Boom.prepare in step boom" in failed.stderr
    assert "boom.py:5: ZeroDivisionError" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_nftables_example_is_a_ruleset_and_closes_the_ports(
    lab: Lab, hosts: list[Host], config: Config, tmp_path: Path
) -> None:
    """The hosts have no nft: the file goes to the kernel from here, into the network that is a host's own."""
    plugin = load_plugin(EXAMPLES / "nftables.py")
    cluster = make_cluster(tmp_path, "", plugin, "nftables")
    nodes = tuple(replace(node, ip=host.ip) for node, host in zip(cluster.nodes, hosts, strict=True))
    (step,) = plugin.etcd_steps()
    (file,) = step.desired(make_context(replace(cluster, nodes=nodes)), nodes[0])
    rules = tmp_path / "etcd.nft"
    rules.write_text(file.content)
    healthy(lab, config())
    outside = ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{hosts[0].ip}/2379"]
    assert lab.run(outside, check=False).returncode == 0
    for _ in range(2):  # it replaces itself
        hosts[0].net("nft", "-f", str(rules))
    try:
        assert lab.run(outside, check=False).returncode == DROPPED
        healthy(lab, config())  # members reach each other
    finally:
        hosts[0].heal()
