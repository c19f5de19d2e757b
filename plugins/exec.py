"""Certificate backend "exec": any program that reads a request on stdin and prints the certificate, both PEM.

    [tls]
    backend = "exec"
    ca_file = "corporate-ca.pem"
    [tls.exec]
    argv = ["vault", "write", "-field=certificate", "pki/sign/etcd", "csr=-", "ttl={days}d"]

{name}, {kind} (member or client), {days} and {sans} (with commas) are filled in; no shell is involved.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from steps.api import CARequest, CertBackend, CertificateError, Cluster, LeafProfile, StepFailed, hookimpl


@hookimpl
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    if name != "exec":
        return None
    return Exec(cluster.tls.exec.argv, cluster.tls.ca_file or Path("ca.pem"), cluster.tls.exec.timeout)


class Exec:
    """`argv` with placeholders, the CA's certificate(s) in `ca_file`, a deadline of `timeout` seconds for each call."""

    def __init__(self, argv: tuple[str, ...], ca_file: Path, timeout: float) -> None:
        self._argv, self._ca_file, self._timeout = argv, ca_file, timeout

    def ca(self, request: CARequest) -> bytes:
        from steps.api import configured_ca

        del request
        return configured_ca(self._ca_file)

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        """What the program prints. Its stderr is shown where it fails, its stdout never."""
        from steps.api import pki, run

        pki.read_csr(csr, f"{profile.name}: request")
        values = {
            "name": profile.name,
            "kind": profile.kind,
            "days": str(profile.days),
            "sans": ",".join(profile.sans),
        }
        argv = [_filled(word, values) for word in self._argv]
        try:
            done = run(argv, deadline=self._timeout, stdin=csr.decode())
        except subprocess.TimeoutExpired:
            hint = "try it by hand, or raise [tls.exec] timeout"
            raise StepFailed(f"{profile.name}: {argv[0]} was killed after {self._timeout} s", hint=hint) from None
        except OSError as error:
            raise StepFailed(f"{profile.name}: {argv[0]} does not start: {error.strerror}") from error
        said = "\n    ".join(done.stderr.strip().splitlines()[-8:])
        if done.returncode:
            raise StepFailed(f"{profile.name}: {argv[0]} failed with exit code {done.returncode}\n    {said}")
        if "-----BEGIN CERTIFICATE-----" not in done.stdout:
            raise CertificateError(f"{profile.name}: {argv[0]}", [f"printed no certificate in PEM\n    {said}"])
        return done.stdout.encode()


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word
