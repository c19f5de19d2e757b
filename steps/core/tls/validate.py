"""Is a certificate what was asked for? Every signer's answer passes here before any host sees it.

A leaf with serverAuth alone leaves `endpoint health` green while the peers reject each other: each field counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from steps.core.base.errors import CertificateError
from steps.core.base.problem import Problem
from steps.core.tls import pki
from steps.core.tls.contracts import LeafProfile

# Go, and so etcd, accepts no other hash in a signature (crypto/x509: SHA-1 and MD5 are refused).
_HASHES = ("sha256", "sha384", "sha512")
_MAX_CHAIN = 8
_MAX_CHECKS = 100  # signatures for one leaf: Go's limit (crypto/x509, maxChainSignatureChecks)


def ca_problems(ca_pem: bytes, *, now: datetime) -> list[Problem]:
    """What keeps CA certificates (one, or several while one CA replaces another) from being trusted; empty if nothing.

    Any path length is fine: an adopted CA may have intermediates. An expired one beside a valid one is harmless.
    """
    try:
        authorities = pki.read(ca_pem, "CA")
    except CertificateError as error:
        return [Problem("ca.unreadable", error.message)]
    problems: list[Problem] = []
    for authority in authorities:
        subject = f"CA {_called(authority)}"
        problems += [replace(each, message=f"{subject}: {each.message}") for each in _not_an_authority(authority)]
    if any(_is_valid(authority, now) for authority in authorities):
        return problems
    for authority in authorities:
        code = "ca.expired" if _has_ended(authority, now) else "ca.not-yet-valid"
        problems.append(Problem(code, f"CA {_called(authority)}: {_validity(authority, now)}"))
    return problems


def leaf_problems(leaf_pem: bytes, *, ca_pem: bytes, key: bytes, profile: LeafProfile, now: datetime) -> list[Problem]:
    """Each field in which a leaf (and the intermediates behind it) is not what `profile` asked for; empty if none.

    `key` is our private key or our request, PEM: the leaf must hold its public half.
    """
    try:
        chain, authorities = pki.read(leaf_pem, "leaf"), pki.read(ca_pem, "CA")
    except CertificateError as error:
        return [Problem("certificate.unreadable", error.message)]
    leaf = chain[0]
    problems = _name_problems(leaf, profile) + _usage_problems(leaf, profile)
    if pki.spki(leaf) != pki.spki(key):
        said = "public key: not ours, it belongs to another private key"
        problems.append(Problem("certificate.other-key", said))
    if not _is_valid(leaf, now):
        code = "certificate.expired" if _has_ended(leaf, now) else "certificate.not-yet-valid"
        problems.append(Problem(code, f"validity: {_validity(leaf, now)}"))
    return problems + _chain_problems(chain, authorities, now)


def leaf_warnings(leaf_pem: bytes, profile: LeafProfile) -> tuple[str, ...]:
    """What differs from the profile and works all the same: a shorter or longer life, a client that may also serve."""
    leaf = pki.read(leaf_pem)[0]
    warnings = []
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if abs(lifetime - timedelta(days=profile.days)) > timedelta(days=1):
        warnings.append(
            f"{profile.name}: valid until {leaf.not_valid_after_utc:%Y-%m-%d}: "
            f"{lifetime.days} days, not the {profile.days} that were asked for"
        )
    if profile.kind == "client" and ExtendedKeyUsageOID.SERVER_AUTH in _extended_usages(leaf):
        warnings.append(f"{profile.name}: a client's certificate that may also serve (serverAuth)")
    return tuple(warnings)


def peer_from_anywhere(leaf_pem: bytes) -> bool:
    """Return whether etcd's peer ports take a certificate (PEM) from any address: it has no SAN (contracts.NO_HOST)."""
    return not pki.sans_of(pki.read(leaf_pem)[0])


def issued_by(leaf_pem: bytes, ca_pem: bytes) -> bool:
    """Whether a chain leads from the leaf, through the intermediates behind it, to one of the CA certificates."""
    chain = pki.read(leaf_pem)
    return any(_paths(chain[0], chain[1:], pki.read(ca_pem)))


def directly_issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s name and key stand behind the leaf's signature; nothing is said about being allowed to."""
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# -- the leaf's own fields ----------------------------------------------------------------------------------------


def _name_problems(leaf: x509.Certificate, profile: LeafProfile) -> list[Problem]:
    problems = []
    if (cn := pki.common_name(leaf.subject)) != profile.cn:
        problems.append(Problem("certificate.cn", f"CN: {cn!r} instead of {profile.cn!r}"))
    wanted = pki.name(profile.cn, profile.subject)
    if not pki.same_subject(leaf.subject, wanted):
        said = f"subject: {leaf.subject.rfc4514_string()} instead of {wanted.rfc4514_string()}"
        problems.append(Problem("certificate.subject", said))
    if changes := pki.san_changes(pki.sans_of(leaf), profile):
        said = f"SAN: not exactly what was asked for (+ missing, - not asked for): {changes}"
        problems.append(Problem("certificate.san", said))
    return problems


def _usage_problems(leaf: x509.Certificate, profile: LeafProfile) -> list[Problem]:
    problems = []
    if _constraints(leaf).ca:
        said = "basicConstraints: CA:TRUE, a leaf must not be able to sign"
        problems.append(Problem("certificate.is-a-ca", said))
    usage = _key_usage(leaf)
    if usage is None or not usage.digital_signature:
        problems.append(Problem("certificate.key-usage", "keyUsage: digitalSignature is missing"))
    if usage is not None and (usage.key_cert_sign or usage.crl_sign):
        said = "keyUsage: keyCertSign or cRLSign, which only a CA may have"
        problems.append(Problem("certificate.key-usage", said))
    have = _extended_usages(leaf)
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in have:
        said = f"extendedKeyUsage: anyExtendedKeyUsage, a {profile.kind} needs its own usages and no other"
        problems.append(Problem("certificate.extended-key-usage", said))
    names = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}
    for oid in pki.USAGES[profile.kind]:
        if oid not in have:
            said = f"extendedKeyUsage: {names[oid]} is missing, a {profile.kind} needs it"
            problems.append(Problem("certificate.extended-key-usage", said))
    hashed = leaf.signature_hash_algorithm
    if hashed is not None and hashed.name not in _HASHES:
        said = f"signature: made with {hashed.name}, which etcd refuses"
        problems.append(Problem("certificate.signature", said))
    for extension in leaf.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            said = f"extension {extension.oid.dotted_string}: critical and unknown, which etcd refuses"
            problems.append(Problem("certificate.unknown-extension", said))
    return problems


# -- the chain ----------------------------------------------------------------------------------------------------


def _chain_problems(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: datetime
) -> list[Problem]:
    paths = list(_paths(chain[0], chain[1:], authorities))
    if not paths:
        trusted = ", ".join(_called(authority) for authority in authorities)
        said = f"issuer: not signed by the CA ({trusted}), but by {chain[0].issuer.rfc4514_string()!r}"
        return [Problem("certificate.other-issuer", said)]
    found = [_path_problems(chain[0], path, now) for path in paths]
    return min(found, key=len)  # one good path is enough: with two CAs of one name there are several


def _path_problems(leaf: x509.Certificate, path: Sequence[x509.Certificate], now: datetime) -> list[Problem]:
    """Return what is wrong with the issuers of a leaf, from the one that signed it up to a root."""
    problems = []
    for issuer in path:
        if not _is_valid(issuer, now):
            said = f"issuer: {_called(issuer)} {_validity(issuer, now)}"
            problems.append(Problem("certificate.issuer-not-valid", said))
    end = leaf.not_valid_after_utc
    for issuer in path:
        if issuer.not_valid_after_utc < end:
            said = (
                f"validity: notAfter {end:%Y-%m-%d %H:%M:%SZ} is beyond that of its CA {_called(issuer)}, "
                f"{issuer.not_valid_after_utc:%Y-%m-%d %H:%M:%SZ}"
            )
            problems.append(Problem("certificate.outlives-its-ca", said))
    return problems


def _paths(
    leaf: x509.Certificate, between: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]
) -> Iterator[list[x509.Certificate]]:
    """Every list of issuers from `leaf` up to one of `roots`: an intermediate among these is a root, as in Go.

    Certificates of one name and key all issue each other, and their orders are without number: the search ends after
    as many signatures as Go's does.
    """
    checks = iter(range(_MAX_CHECKS))
    return _above(leaf, list(dict.fromkeys(between)), list(dict.fromkeys(roots)), 0, checks)


def _above(
    leaf: x509.Certificate,
    between: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    above: int,
    checks: Iterator[int],
) -> Iterator[list[x509.Certificate]]:
    if above >= _MAX_CHAIN:
        return
    for issuer in roots:
        if _may_issue(issuer, leaf, above, checks):
            yield [issuer]
    for index, issuer in enumerate(between):
        if _may_issue(issuer, leaf, above, checks):
            for rest in _above(issuer, [*between[:index], *between[index + 1 :]], roots, above + 1, checks):
                yield [issuer, *rest]


def _may_issue(issuer: x509.Certificate, leaf: x509.Certificate, below: int, checks: Iterator[int]) -> bool:
    """`below`: how many intermediates stand between the issuer and the leaf proper (RFC 5280, pathLenConstraint)."""
    if issuer.subject != leaf.issuer or next(checks, None) is None or _not_an_authority(issuer):
        return False
    length = _constraints(issuer).path_length
    return (length is None or length >= below) and directly_issued(leaf, issuer)


def _not_an_authority(certificate: x509.Certificate) -> list[Problem]:
    problems = []
    if not _constraints(certificate).ca:
        problems.append(Problem("ca.no-ca", "basicConstraints: CA:TRUE is missing, it is no CA"))
    usage = _key_usage(certificate)
    if usage is not None and not usage.key_cert_sign:
        problems.append(Problem("ca.key-usage", "keyUsage: keyCertSign is missing"))
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < min(pki.RSA_BITS):
        said = f"key: RSA of {public.key_size} bits, at least {min(pki.RSA_BITS)} are needed"
        problems.append(Problem("ca.weak-key", said))
    return problems


# -- reading a certificate ----------------------------------------------------------------------------------------


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return x509.BasicConstraints(ca=False, path_length=None)  # what its absence means


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _extended_usages(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        return frozenset(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return frozenset()


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _has_ended(certificate: x509.Certificate, now: datetime) -> bool:
    return now > certificate.not_valid_after_utc


def _validity(certificate: x509.Certificate, now: datetime) -> str:
    if _has_ended(certificate, now):
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%SZ}"
    return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%SZ}; compare the clocks"


def _called(certificate: x509.Certificate) -> str:
    return f"{pki.common_name(certificate.subject) or 'without a CN'} ({pki.fingerprint(certificate)[:16]})"
