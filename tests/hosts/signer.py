"""A certificate authority's program as the backend "exec" calls it, that can be made to answer wrongly.

`signer.py MODE CA-DIRECTORY NAME KIND SANS` reads a request and prints a certificate; MODE `good`, or what is wrong.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steps.core.tls import pki
from steps.core.tls.contracts import LeafProfile

DAYS = 90


def sign(mode: str, home: Path, profile: LeafProfile, request: x509.CertificateSigningRequest) -> x509.Certificate:
    authority = x509.load_pem_x509_certificate((home / "ca.pem").read_bytes())
    key = load_pem_private_key((home / "ca-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    subject, public, signing = request.subject, request.public_key(), key
    now = datetime.now(timezone.utc) - timedelta(minutes=5)
    until = now + timedelta(days=DAYS)
    if mode == "cn":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody"), *list(subject)[:-1]])
    elif mode == "key":
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
    elif mode == "issuer":
        signing = ec.generate_private_key(ec.SECP256R1())
    elif mode == "beyond":
        until = authority.not_valid_after_utc + timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(authority.subject).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(until)
    for extension, critical in pki.leaf_extensions(profile, request.public_key()):
        if changed := altered(mode, extension):
            builder = builder.add_extension(changed, critical=critical)
    return builder.sign(signing, hashes.SHA256())


def altered(mode: str, extension: x509.ExtensionType) -> x509.ExtensionType | None:
    if isinstance(extension, x509.ExtendedKeyUsage) and mode == "eku":
        return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    if isinstance(extension, x509.SubjectAlternativeName):
        names = list(extension)
        if mode == "san":
            return x509.SubjectAlternativeName([*names, x509.DNSName("somebody.example")])
        if mode == "ip":  # the node's own is the first
            return x509.SubjectAlternativeName(names[1:])
    return extension


def main() -> None:
    mode, home, name, kind, sans = sys.argv[1:]
    request = x509.load_pem_x509_csr(sys.stdin.buffer.read())
    names = tuple(filter(None, sans.split(",")))
    profile = LeafProfile(name, "member" if kind == "member" else "client", name, {}, names, DAYS)
    sys.stdout.buffer.write(sign(mode, Path(home), profile, request).public_bytes(Encoding.PEM))


if __name__ == "__main__":
    main()
