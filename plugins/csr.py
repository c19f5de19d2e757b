"""Certificate backend "csr": an authority outside signs, and takes its time.

    [tls]
    backend = "csr"
    ca_file = "corporate-ca.pem"

The run leaves requests and a README in .etcd/CLUSTER/ca/csr and stops with exit code 3. Once NAME.pem (the certificate,
then its intermediates) lies beside each NAME.csr, the same command picks them up, validates them and goes on.
"""

from __future__ import annotations

from pathlib import Path

from steps.api import (
    NO_HOST,
    CARequest,
    CertBackend,
    CertificateError,
    Cluster,
    LeafProfile,
    Pending,
    StepFailed,
    hookimpl,
    invoke,
)

README = """\
Certificate requests of an etcd cluster
=======================================

Each NAME.csr below waits for its certificate: save it as NAME.pem in this directory (PEM, the certificate first, then
its intermediates, the root left out). Then run the same `invoke` command again; it validates what it finds.

A certificate must keep the request's subject and every SAN of it, be signed with SHA-256 or better by the CA in
{ca_file}, and carry these usages (the request asks for them as well):

    member: digitalSignature, serverAuth and clientAuth   (with serverAuth alone the members reject each other)
    client: digitalSignature, clientAuth   (without its SAN, IP address {no_host}, members take it for a member's)

With OpenSSL 3, for example:

    openssl x509 -req -in NAME.csr -CA ca.pem -CAkey ca-key.pem -copy_extensions copy -days {days} -out NAME.pem

{table}
"""


@hookimpl
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    return Csr(cluster.tls.ca_file or Path("ca.pem")) if name == "csr" else None


class Csr:
    """Hands requests over and picks certificates up. `ca` comes first in every run."""

    def __init__(self, ca_file: Path) -> None:
        self._ca_file = ca_file
        self._dir: Path | None = None

    def ca(self, request: CARequest) -> bytes:
        from steps.api import configured_ca

        self._dir = request.dir
        return configured_ca(self._ca_file)

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        """The certificate that lies there. Raises Pending where none does, or only one for an older request."""
        from steps.api import pki, replace

        if self._dir is None:
            raise StepFailed(f"{profile.name}: the CA is not open", hint=invoke("ca"))
        pki.read_csr(csr, f"{profile.name}: request")
        request, answer = self._dir / f"{profile.name}.csr", self._dir / f"{profile.name}.pem"
        if answer.exists() and _answers(answer, csr):
            return answer.read_bytes()
        replace(request, csr, mode=0o644)
        replace(self._dir / "README", self._readme(profile.days).encode(), mode=0o644)
        raise Pending(
            [str(request)],
            f"these requests wait for their certificates; {self._dir / 'README'} says what to sign. "
            "Then run the same command again",
        )

    def _readme(self, days: int) -> str:
        from steps.api import pki

        assert self._dir is not None  # noqa: S101  sign() has asked
        rows = []
        for file in sorted(self._dir.glob("*.csr")):
            answer = file.with_suffix(".pem")
            if answer.exists() and _answers(answer, file.read_bytes()):
                continue
            request = pki.read_csr(file.read_bytes(), str(file))
            sans = ", ".join(sorted(pki.sans_of(request)))
            kind = "client" if sans == NO_HOST else "member"
            subject = request.subject.rfc4514_string()
            rows.append(f"{file.name}\n    {kind}, {days} days\n    subject {subject}\n    SAN     {sans}\n")
        return README.format(ca_file=self._ca_file, days=days, no_host=NO_HOST, table="\n".join(rows))


def _answers(answer: Path, csr: bytes) -> bool:
    """Whether the certificate holds the request's key; one for an older request waits to be replaced."""
    from steps.api import pki

    try:
        return pki.spki(answer.read_bytes()) == pki.spki(csr)
    except CertificateError as error:
        raise CertificateError(str(answer), error.problems, hint=f"save the certificate as PEM in {answer}") from error
