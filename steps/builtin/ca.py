"""The built-in certificate backend: a CA of this cluster alone, whose key stays in the work directory."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from steps.core.base.errors import CertificateError, StepFailed
from steps.core.base.files import create, private_directory, sync
from steps.core.base.hints import invoke
from steps.core.tls import pki
from steps.core.tls.authority import shared_ca
from steps.core.tls.contracts import CARequest, LeafProfile

_BACKDATE = timedelta(minutes=30)  # for nodes whose clock is behind


class Builtin:
    """Signs with ca-key.pem in `CARequest.dir`. `ca` comes first in every run: it says where that is."""

    def __init__(self) -> None:
        self._dir: Path | None = None

    def ca(self, request: CARequest) -> bytes:
        """The CA certificate(s), PEM; made on first use, with its key, in one rename. Never replaces anything.

        Without its key the certificate is still returned: all but issuing goes on. So it is where this backend has
        nothing, but the cluster trusts a CA already: a second CA would help nobody, and one is shared where possible.
        Raises CertificateError where the key is there without its certificate, or is not this certificate's.
        """
        self._dir = request.dir
        cert, key = request.dir / "ca.pem", request.dir / "ca-key.pem"
        if cert.exists():
            if key.exists():
                _authority(request.dir)
            pem = cert.read_bytes()
            pki.read(pem, str(cert))
            return pem
        if key.exists():
            raise CertificateError(
                str(key),
                [f"a CA key without its certificate {cert.name}; neither is ever replaced"],
                hint=f"restore {cert} from a backup (every node has it as ca.pem)",
            )
        return shared_ca(request) or _create(request)

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        """The leaf, PEM. Its names and usages come from the profile, the public key from the request.

        notAfter is never beyond the CA's. Raises CertificateError: the CA's key is lost or not its own, the CA expired,
        the request is unreadable or asks for something else than the profile.
        """
        if self._dir is None:
            raise StepFailed(f"{profile.name}: the built-in CA is not open", hint=invoke("ca"))
        request = pki.read_csr(csr, f"{profile.name}: request")
        if problems := pki.csr_problems(request, profile):
            raise CertificateError(f"{profile.name}: the request is not for this certificate", problems)
        authority, key = _authority(self._dir)
        now = datetime.now(timezone.utc).replace(microsecond=0)
        if authority.not_valid_after_utc <= now:
            raise CertificateError(
                str(self._dir / "ca.pem"),
                [f"the CA expired on {authority.not_valid_after_utc:%Y-%m-%d}, so nothing can be issued"],
                hint="replace the CA",
            )
        public = request.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(pki.name(profile.cn, profile.subject))
            .issuer_name(authority.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - _BACKDATE, authority.not_valid_before_utc))
            .not_valid_after(min(now + timedelta(days=profile.days), authority.not_valid_after_utc))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_authority_key_identifier(authority), critical=False)
        )
        for extension, critical in pki.leaf_extensions(profile, public):
            builder = builder.add_extension(extension, critical=critical)
        return pki.write([builder.sign(key, pki.digest_for(key))])


def _authority(directory: Path) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    """The CA's key, and the certificate that it belongs to: while one CA replaces another, ca.pem holds two."""
    cert, key = directory / "ca.pem", directory / "ca-key.pem"
    try:
        key_pem = key.read_bytes()
    except FileNotFoundError:
        raise CertificateError(
            str(key),
            ["the CA's key is missing, so nothing can be issued; all else still works"],
            hint=f"restore {cert.name} and {key.name} (mode 0600) in {directory}, from a backup or the backend before",
        ) from None
    loaded = pki.load_key(key_pem, str(key))
    for certificate in pki.read(cert.read_bytes(), str(cert)):
        if pki.spki(certificate) == pki.spki(key_pem):
            return certificate, loaded
    raise CertificateError(
        str(key), [f"not the key of {cert.name} beside it"], hint=f"restore the key of {cert} from a backup, mode 0600"
    )


def _create(request: CARequest) -> bytes:
    """Makes both files in a directory beside, then renames it over `request.dir`.

    The kernel does that only while `request.dir` is empty: nothing is replaced. A killed run leaves both files or none.
    """
    key_pem = pki.new_key(request.key)
    pem = _self_signed(request, pki.load_key(key_pem))
    staged = request.dir.with_name(f".{request.dir.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    private_directory(staged)
    create(staged / "ca-key.pem", key_pem)
    create(staged / "ca.pem", pem, mode=0o644)
    sync(staged)
    try:
        staged.rename(request.dir)
    except OSError as error:
        shutil.rmtree(staged)
        raise StepFailed(
            f"{request.dir}: no CA was made: {error.strerror}", hint="empty that directory; it holds no CA"
        ) from None
    sync(request.dir.parent)
    return pem


def _self_signed(request: CARequest, key: CertificateIssuerPrivateKeyTypes) -> bytes:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    subject = pki.name(request.cn, request.subject)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + timedelta(days=request.days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(pki.key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, pki.digest_for(key))
    )
    return pki.write([certificate])


def _authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # an adopted CA may have none
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
