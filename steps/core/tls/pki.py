"""Keys, requests and certificates: made, read and described. Everything crosses this module's edge as PEM."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from steps.core.base.errors import CertificateError
from steps.core.base.problem import Problem
from steps.core.tls.contracts import LeafProfile

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER

CURVES: Mapping[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
RSA_BITS = (2048, 3072, 4096)

# In the order in which a subject is written; keys as in etcd.toml and in cfssl's files.
SUBJECT_OIDS: Mapping[str, x509.ObjectIdentifier] = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}

# A member dials its peers with the certificate that it serves (etcd's transport security guide), so it needs both.
USAGES: Mapping[str, tuple[x509.ObjectIdentifier, ...]] = {
    "member": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "client": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


# -- keys ---------------------------------------------------------------------------------------------------------


def new_key(spec: str) -> bytes:
    """A fresh private key, PEM (PKCS#8, not encrypted). `spec`: "ecdsa:p256|p384|p521" or "rsa:2048|3072|4096"."""
    kind, _, size = spec.partition(":")
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "ecdsa" and size in CURVES:
        key = ec.generate_private_key(CURVES[size])
    elif kind == "rsa" and size in map(str, RSA_BITS):
        key = rsa.generate_private_key(public_exponent=65537, key_size=int(size))
    else:
        known = [f"ecdsa:{curve}" for curve in CURVES] + [f"rsa:{bits}" for bits in RSA_BITS]
        raise CertificateError(f"key type {spec!r}", [f"not one of {', '.join(known)}"])
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(pem: bytes, what: str = "private key") -> CertificateIssuerPrivateKeyTypes:
    """The private key in `pem` (PKCS#8, or cfssl's and openssl's older forms). Raises CertificateError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError(what, ["the key is encrypted; keep it decrypted, mode 0600"]) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(what, ["not a private key in PEM"]) from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise CertificateError(what, ["neither an ECDSA nor an RSA key"])
    return key


def digest_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash to sign with: as strong as the curve (RFC 5480, section 4), SHA-256 for RSA."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:  # noqa: PLR2004 - bits of P-256
        return hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA512()  # noqa: PLR2004 - bits of P-384
    return hashes.SHA256()


def key_spec(pem: bytes) -> str:
    """The type of the key in a private key, request or certificate (PEM), as in etcd.toml: "ecdsa:p256", "rsa:2048"."""
    public = serialization.load_der_public_key(spki(pem))
    if isinstance(public, ec.EllipticCurvePublicKey):
        known = {curve.name: name for name, curve in CURVES.items()}
        return f"ecdsa:{known.get(public.curve.name, public.curve.name)}"
    if isinstance(public, rsa.RSAPublicKey):
        return f"rsa:{public.key_size}"
    return type(public).__name__


def spki(thing: bytes | x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The public key (DER SubjectPublicKeyInfo) of a private key, a request or the first certificate in a PEM."""
    if isinstance(thing, bytes):
        if b"PRIVATE KEY-----" in thing:
            return _public_der(load_key(thing).public_key())
        thing = read_csr(thing) if b"CERTIFICATE REQUEST-----" in thing else read(thing)[0]
    return _public_der(thing.public_key())


def _public_der(key: object) -> bytes:
    der: bytes = key.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return der


# -- names --------------------------------------------------------------------------------------------------------


def name(cn: str, subject: Mapping[str, str]) -> x509.Name:
    """The X.509 name of `subject` (keys C, ST, L, O, OU; empty values left out) and `cn`. Raises CertificateError."""
    if unknown := sorted(set(subject) - set(SUBJECT_OIDS)):
        raise CertificateError(f"subject of {cn}", [f"unknown field {field}" for field in unknown])
    try:
        parts = [x509.NameAttribute(oid, subject[key]) for key, oid in SUBJECT_OIDS.items() if subject.get(key)]
        return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    except ValueError as error:
        raise CertificateError(f"subject of {cn}", [str(error)]) from None


def common_name(subject: x509.Name) -> str:
    return ", ".join(str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def same_subject(one: x509.Name, other: x509.Name) -> bool:
    """Whether both hold the same fields, the common name aside: signers put them in different orders."""

    def fields(subject: x509.Name) -> Counter[tuple[str, str]]:
        return Counter((a.oid.dotted_string, str(a.value)) for a in subject if a.oid != NameOID.COMMON_NAME)

    return fields(one) == fields(other)


def general_names(sans: Iterable[str]) -> list[x509.GeneralName]:
    """SANs of plain text: what reads as an IP address becomes one, everything else a DNS name; no duplicates."""
    names: dict[str, x509.GeneralName] = {}
    for san in sans:
        entry = _general_name(san)
        names[str(entry.value).lower()] = entry
    return list(names.values())


def _general_name(san: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        pass  # a name, then
    try:
        return x509.DNSName(san)
    except ValueError:
        raise CertificateError("SAN", [f"{san!r} is neither an IP address nor an ASCII DNS name"]) from None


def san_texts(names: Iterable[x509.GeneralName]) -> frozenset[str]:
    """SANs as comparable text: addresses normalised, DNS names in lower case, other kinds with their type first."""
    texts = set()
    for entry in names:
        if isinstance(entry, x509.DNSName):
            texts.add(entry.value.lower())
        elif isinstance(entry, x509.IPAddress):
            texts.add(str(entry.value))
        else:
            texts.add(f"{type(entry).__name__}:{entry.value}")
    return frozenset(texts)


def sans_of(thing: x509.Certificate | x509.CertificateSigningRequest) -> frozenset[str]:
    try:
        return san_texts(thing.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return frozenset()


def san_changes(have: frozenset[str], profile: LeafProfile) -> str:
    """How the SANs differ from what the profile wants: "+10.0.0.4 -10.0.0.3" (+: missing), empty where they do not."""
    want = san_texts(general_names(profile.sans))
    return " ".join([*(f"+{san}" for san in sorted(want - have)), *(f"-{san}" for san in sorted(have - want))])


# -- requests -----------------------------------------------------------------------------------------------------


def key_usage(*allowed: str) -> x509.KeyUsage:
    """Return the extension that allows these usages, by cryptography's names for them, and no other."""
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in allowed for name in names})


def leaf_extensions(profile: LeafProfile, key: object) -> list[tuple[x509.ExtensionType, bool]]:
    """What a leaf for `profile` and that (public or private) key carries, with the criticality of each (RFC 5280)."""
    allowed = ["digital_signature"]
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        allowed.append("key_encipherment")  # only RSA key exchange encrypts with the certificate's key
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage(*allowed), True),
        (x509.ExtendedKeyUsage(USAGES[profile.kind]), False),
    ]
    if profile.sans:
        extensions.append((x509.SubjectAlternativeName(general_names(profile.sans)), False))
    return extensions


def new_csr(key_pem: bytes, profile: LeafProfile) -> bytes:
    """A request (PEM) for `profile`, with every extension that the leaf should have, for signers that copy them."""
    key = load_key(key_pem)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(profile.cn, profile.subject))
    for extension, critical in leaf_extensions(profile, key):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, digest_for(key)).public_bytes(PEM)


def read_csr(pem: bytes, what: str = "request") -> x509.CertificateSigningRequest:
    """The request in `pem`. Raises CertificateError where there is none, or where its own signature is wrong."""
    try:
        request = x509.load_pem_x509_csr(pem)
        _ = request.extensions, request.subject
        signed = request.is_signature_valid
    except _UNREADABLE:
        raise CertificateError(what, ["not a certificate request in PEM"]) from None
    if not signed:
        raise CertificateError(what, ["its signature is not by its own key"])
    return request


def csr_problems(request: x509.CertificateSigningRequest, profile: LeafProfile) -> list[Problem]:
    """In what a request differs from the profile that it should be for."""
    problems = []
    if (cn := common_name(request.subject)) != profile.cn:
        problems.append(Problem("request.cn", f"CN is {cn!r}, {profile.cn!r} was asked for"))
    if not same_subject(request.subject, name(profile.cn, profile.subject)):
        problems.append(Problem("request.subject", f"subject is {request.subject.rfc4514_string()}"))
    if changes := san_changes(sans_of(request), profile):
        problems.append(Problem("request.san", f"SANs differ: {changes}"))
    return problems


# -- certificates -------------------------------------------------------------------------------------------------


def read(pem: bytes, what: str = "certificate") -> list[x509.Certificate]:
    """The certificates in `pem`, at least one, in the file's order. Raises CertificateError on anything unreadable."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:  # both are parsed on demand: find out here, not in the middle of a check
            _ = certificate.extensions, certificate.public_key()
    except _UNREADABLE:
        raise CertificateError(what, ["not a certificate in PEM"]) from None
    return certificates


def write(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates as PEM and nothing else: no text around them, no key that came in the same file."""
    return b"".join(certificate.public_bytes(PEM) for certificate in certificates)


def fingerprint(thing: bytes | x509.Certificate) -> str:
    """SHA-256 of a certificate (of the first one in a PEM), in lower-case hex without colons."""
    certificate = read(thing)[0] if isinstance(thing, bytes) else thing
    return certificate.fingerprint(hashes.SHA256()).hex()


def generation(leaf_pem: bytes, key_pem: bytes) -> str:
    """A short id (16 hex digits) of a pair: of the chain and the key's public half, so that it may be shown."""
    digest = hashlib.sha256(b"".join(c.public_bytes(DER) for c in read(leaf_pem)) + spki(key_pem))
    return digest.hexdigest()[:16]


def due(leaf_pem: bytes, renew_days: float, now: datetime) -> bool:
    """Whether renewal is due: less is left than `renew_days`, or than a third of the lifetime, whichever is shorter."""
    leaf = read(leaf_pem)[0]
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return leaf.not_valid_after_utc - now <= min(timedelta(days=renew_days), lifetime / 3)
