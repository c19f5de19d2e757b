"""What linters from outside say of the packages that we use, and of the certificates of the built-in backend."""

from __future__ import annotations

import csv
import json
import subprocess
import sysconfig
from pathlib import Path

import pytest
from linters import tool

from steps.builtin.ca import Builtin
from steps.core.tls import pki
from steps.core.tls.contracts import CARequest, LeafProfile

SUBJECT = {"O": "etcd"}
LEAVES = (
    LeafProfile("etcd-1", "member", "etcd-1", SUBJECT, ("10.0.0.1", "etcd-1", "localhost", "127.0.0.1", "::1"), 365),
    LeafProfile("root", "client", "root", SUBJECT, (), 365),
)
# pkilint wants a dot in each DNS name. Hosts are known by one label, too, and Go compares such a name as it is.
EXPECTED = {"pkix.invalid_domain_name_syntax"}


def findings(certificate: Path) -> set[str]:
    """Return pkilint's findings (RFC 5280) that are more than information."""
    argv = [tool("lint_pkix_cert"), "lint", "--severity", "NOTICE", "--format", "CSV", str(certificate)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert done.returncode == len(rows), done.stdout + done.stderr
    return {row["code"] for row in rows}


@pytest.mark.parametrize("key", ["ecdsa:p256", "ecdsa:p384", "rsa:2048"])
def test_pkilint_finds_nothing_in_what_the_builtin_backend_makes(tmp_path: Path, key: str) -> None:
    builtin, found = Builtin(), dict[str, set[str]]()
    made = {"CA": builtin.ca(CARequest("etcd-ca", SUBJECT, key, 3650, tmp_path))}
    made |= {each.kind: builtin.sign(pki.new_csr(pki.new_key(key), each), each) for each in LEAVES}
    for name, pem in made.items():
        (tmp_path / f"{name}.pem").write_bytes(pem)
        found[name] = findings(tmp_path / f"{name}.pem")
    assert found == {"CA": set(), "member": EXPECTED, "client": set()}


def test_pip_audit_knows_no_vulnerability_of_our_packages() -> None:
    argv = [tool("pip-audit"), "--path", sysconfig.get_path("purelib"), "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        pytest.skip(f"pip-audit cannot ask: {done.stderr.strip().splitlines()[-1]}")
    packages = json.loads(done.stdout)["dependencies"]
    asked = [each for each in packages if "vulns" in each]
    if not asked:
        pytest.skip("the package index that pip uses here has no list of vulnerabilities")
    assert not [each for each in asked if each["vulns"]]
