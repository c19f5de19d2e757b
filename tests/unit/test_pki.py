from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from steps.builtin.ca import Builtin
from steps.core.base.errors import CertificateError, StepFailed
from steps.core.base.problem import Problem
from steps.core.tls import pki, validate
from steps.core.tls.contracts import CARequest, LeafProfile

SUBJECT = {"C": "CN", "ST": "BeiJing", "L": "BeiJing", "O": "etcd", "OU": "opsnull"}
MEMBER = LeafProfile(
    "etcd-1", "member", "etcd-1", SUBJECT, ("10.0.0.1", "etcd-1", "localhost", "127.0.0.1", "::1"), 365
)
CLIENT = LeafProfile("root", "client", "root", SUBJECT, ("100::1",), 365)
KEYS = ("ecdsa:p256", "ecdsa:p384", "ecdsa:p521", "rsa:2048")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def now() -> datetime:
    return datetime.now(timezone.utc)


def request_for(path: Path, *, key: str = "ecdsa:p256", days: int = 3650, cn: str = "etcd-ca") -> CARequest:
    return CARequest(cn, SUBJECT, key, days, path)


def authority(path: Path, **wanted: object) -> tuple[Builtin, bytes]:
    builtin = Builtin()
    return builtin, builtin.ca(request_for(path, **wanted))  # type: ignore[arg-type]


def extensions(certificate: x509.Certificate) -> dict[str, tuple[bool, x509.ExtensionType]]:
    return {type(e.value).__name__: (e.critical, e.value) for e in certificate.extensions}


def key_usage(*on: str) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in on for name in names})


def ski(certificate: x509.Certificate) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


# -- what the built-in backend makes, read back -------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_every_field_of_the_ca(tmp_path: Path, key: str) -> None:
    _, pem = authority(tmp_path / "builtin", key=key)
    (ca,) = pki.read(pem)
    assert extensions(ca) == {
        "BasicConstraints": (True, x509.BasicConstraints(ca=True, path_length=0)),
        "KeyUsage": (True, key_usage("key_cert_sign", "crl_sign")),
        "SubjectKeyIdentifier": (False, ski(ca)),
    }
    assert ca.version is x509.Version.v3
    assert ca.subject.rfc4514_string() == "CN=etcd-ca,OU=opsnull,O=etcd,L=BeiJing,ST=BeiJing,C=CN"
    assert ca.issuer == ca.subject
    assert pki.key_spec(pem) == key
    assert ca.serial_number.bit_length() > 64
    assert timedelta(0) < now() - ca.not_valid_before_utc <= HOUR
    assert abs(ca.not_valid_after_utc - now() - 3650 * DAY) < HOUR
    ca.verify_directly_issued_by(ca)
    assert validate.ca_problems(pem, now=now()) == []


@pytest.mark.parametrize("ca_key", ["ecdsa:p256", "rsa:2048"])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("profile", [MEMBER, CLIENT], ids=["member", "client"])
def test_every_field_of_a_leaf(tmp_path: Path, ca_key: str, key: str, profile: LeafProfile) -> None:
    builtin, ca_pem = authority(tmp_path / "builtin", key=ca_key)
    key_pem = pki.new_key(key)
    pem = builtin.sign(pki.new_csr(key_pem, profile), profile)
    (leaf,), (ca,) = pki.read(pem), pki.read(ca_pem)
    usage = ("digital_signature", "key_encipherment") if key.startswith("rsa") else ("digital_signature",)
    usages = (
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        if profile is MEMBER
        else [ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    expected: dict[str, tuple[bool, x509.ExtensionType]] = {
        "BasicConstraints": (True, x509.BasicConstraints(ca=False, path_length=None)),
        "KeyUsage": (True, key_usage(*usage)),
        "ExtendedKeyUsage": (False, x509.ExtendedKeyUsage(usages)),
        "SubjectKeyIdentifier": (False, ski(leaf)),
        "AuthorityKeyIdentifier": (False, x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski(ca))),
    }
    sans = x509.SubjectAlternativeName(pki.general_names(profile.sans))
    names = ["IPAddress", "DNSName", "DNSName", "IPAddress", "IPAddress"] if profile is MEMBER else ["IPAddress"]
    assert [type(san).__name__ for san in sans] == names
    expected["SubjectAlternativeName"] = (False, sans)
    assert extensions(leaf) == expected
    assert leaf.subject.rfc4514_string() == f"CN={profile.cn},OU=opsnull,O=etcd,L=BeiJing,ST=BeiJing,C=CN"
    assert leaf.issuer == ca.subject
    assert leaf.serial_number.bit_length() > 64
    assert timedelta(0) < now() - leaf.not_valid_before_utc <= HOUR
    assert abs(leaf.not_valid_after_utc - now() - 365 * DAY) < HOUR
    assert pki.key_spec(pem) == key
    assert validate.leaf_problems(pem, ca_pem=ca_pem, key=key_pem, profile=profile, now=now()) == []
    assert validate.leaf_warnings(pem, profile) == ()


def test_openssl_agrees(tmp_path: Path) -> None:
    builtin, ca_pem = authority(tmp_path / "builtin")
    (tmp_path / "ca.pem").write_bytes(ca_pem)
    (tmp_path / "leaf.pem").write_bytes(builtin.sign(pki.new_csr(pki.new_key("ecdsa:p256"), MEMBER), MEMBER))
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("profile", [MEMBER, CLIENT], ids=["member", "client"])
def test_a_request_asks_for_every_extension(profile: LeafProfile) -> None:
    csr = pki.read_csr(pki.new_csr(pki.new_key("rsa:2048"), profile))
    asked = {type(e.value): e.critical for e in csr.extensions}
    expected = {x509.BasicConstraints: True, x509.KeyUsage: True, x509.ExtendedKeyUsage: False}
    assert asked == expected | {x509.SubjectAlternativeName: False}
    assert pki.csr_problems(csr, profile) == []


# -- the built-in backend refuses ---------------------------------------------------------------------------------


def test_the_ca_is_kept(tmp_path: Path) -> None:
    _, first = authority(tmp_path / "builtin")
    key = (tmp_path / "builtin" / "ca-key.pem").read_bytes()
    _, second = authority(tmp_path / "builtin", key="rsa:2048", cn="other")
    assert second == first
    assert (tmp_path / "builtin" / "ca-key.pem").read_bytes() == key


def test_without_its_key_the_ca_is_returned_and_issues_nothing(tmp_path: Path) -> None:
    _, pem = authority(tmp_path / "builtin")
    (tmp_path / "builtin" / "ca-key.pem").unlink()
    builtin, again = authority(tmp_path / "builtin")
    assert again == pem
    with pytest.raises(CertificateError, match=r"ca-key\.pem: the CA's key is missing") as caught:
        builtin.sign(pki.new_csr(pki.new_key("ecdsa:p256"), MEMBER), MEMBER)
    assert "backup" in caught.value.hint
    assert not (tmp_path / "builtin" / "ca-key.pem").exists()


def test_a_key_without_its_certificate_is_not_replaced(tmp_path: Path) -> None:
    authority(tmp_path / "builtin")
    key = (tmp_path / "builtin" / "ca-key.pem").read_bytes()
    (tmp_path / "builtin" / "ca.pem").unlink()
    with pytest.raises(CertificateError, match=r"a CA key without its certificate ca\.pem"):
        authority(tmp_path / "builtin")
    assert [(f.name, f.read_bytes()) for f in (tmp_path / "builtin").iterdir()] == [("ca-key.pem", key)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pki.new_key("ecdsa:p256"), "not the key of ca.pem"),
        (b"", "not a private key"),
        (b"garbage", "not a private key"),
    ],
    ids=["another", "empty", "garbage"],
)
def test_another_key_beside_the_certificate_stops(tmp_path: Path, content: bytes, said: str) -> None:
    builtin, pem = authority(tmp_path / "builtin")
    (tmp_path / "builtin" / "ca-key.pem").write_bytes(content)
    with pytest.raises(CertificateError, match=said):
        authority(tmp_path / "builtin")
    with pytest.raises(CertificateError, match=said):
        builtin.sign(pki.new_csr(pki.new_key("ecdsa:p256"), MEMBER), MEMBER)
    assert (tmp_path / "builtin" / "ca.pem").read_bytes() == pem
    assert (tmp_path / "builtin" / "ca-key.pem").read_bytes() == content


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "builtin").mkdir()
    (tmp_path / "builtin" / "notes").write_text("mine")
    with pytest.raises(StepFailed, match="no CA was made"):
        authority(tmp_path / "builtin")
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["builtin", "builtin/notes"]


def test_a_leaf_never_outlives_its_ca(tmp_path: Path) -> None:
    builtin, ca_pem = authority(tmp_path / "builtin", days=10)
    key = pki.new_key("ecdsa:p256")
    pem = builtin.sign(pki.new_csr(key, MEMBER), MEMBER)
    assert pki.read(pem)[0].not_valid_after_utc == pki.read(ca_pem)[0].not_valid_after_utc
    assert validate.leaf_problems(pem, ca_pem=ca_pem, key=key, profile=MEMBER, now=now()) == []
    (warning,) = validate.leaf_warnings(pem, MEMBER)
    assert warning.startswith("etcd-1: valid until ")
    assert "10 days, not the 365" in warning


def test_an_expired_ca_issues_nothing(tmp_path: Path) -> None:
    builtin, ca_pem = authority(tmp_path / "builtin", days=0)
    with pytest.raises(CertificateError, match="the CA expired on"):
        builtin.sign(pki.new_csr(pki.new_key("ecdsa:p256"), MEMBER), MEMBER)
    (problem,) = validate.ca_problems(ca_pem, now=now())
    assert problem.code == "ca.expired"
    assert "expired on" in problem.message


def test_signing_before_the_ca_is_known_says_so() -> None:
    with pytest.raises(StepFailed, match="not open"):
        Builtin().sign(pki.new_csr(pki.new_key("ecdsa:p256"), MEMBER), MEMBER)


def forged_csr() -> bytes:
    """A request whose signature is by another key than its own."""
    der = bytearray(pki.read_csr(pki.new_csr(pki.new_key("rsa:2048"), MEMBER)).public_bytes(pki.DER))
    der[-1] ^= 1
    body = serialization.Encoding.PEM
    return x509.load_der_x509_csr(bytes(der)).public_bytes(body)


@pytest.mark.parametrize(
    ("csr", "said"),
    [
        (b"", "not a certificate request"),
        (b"garbage", "not a certificate request"),
        (pki.new_key("ecdsa:p256"), "not a certificate request"),
        (forged_csr(), "its signature is not by its own key"),
        (pki.new_csr(pki.new_key("ecdsa:p256"), replace(MEMBER, cn="etcd-2")), "CN is 'etcd-2'"),
        (pki.new_csr(pki.new_key("ecdsa:p256"), replace(MEMBER, sans=("etcd-1",))), r"SANs differ: \+10.0.0.1"),
        (pki.new_csr(pki.new_key("ecdsa:p256"), replace(MEMBER, sans=(*MEMBER.sans, "evil"))), "SANs differ: -evil"),
        (pki.new_csr(pki.new_key("ecdsa:p256"), replace(MEMBER, subject={"O": "evil"})), "subject is CN=etcd-1,O=evil"),
    ],
    ids=["empty", "garbage", "key", "forged", "cn", "san-less", "san-more", "subject"],
)
def test_requests_that_are_refused(tmp_path: Path, csr: bytes, said: str) -> None:
    builtin, _ = authority(tmp_path / "builtin")
    with pytest.raises(CertificateError, match=said):
        builtin.sign(csr, MEMBER)


def test_signing_concurrently(tmp_path: Path) -> None:
    builtin, _ = authority(tmp_path / "builtin")
    csr = pki.new_csr(pki.new_key("ecdsa:p256"), MEMBER)
    with ThreadPoolExecutor(8) as pool:
        leaves = list(pool.map(lambda _: pki.read(builtin.sign(csr, MEMBER))[0], range(32)))
    assert len({leaf.serial_number for leaf in leaves}) == 32


# -- the validator ------------------------------------------------------------------------------------------------


class Forge:
    """Certificates by hand, with one thing wrong."""

    def __init__(self, tmp_path: Path) -> None:
        self.builtin, self.ca = authority(tmp_path / "builtin")
        self.ca_cert = pki.read(self.ca)[0]
        self.ca_key = pki.load_key((tmp_path / "builtin" / "ca-key.pem").read_bytes())
        self.key = pki.new_key("ecdsa:p256")
        self.other, self.other_ca = authority(tmp_path / "other")

    def leaf(  # every field of a certificate that a backend may get wrong
        self,
        *,
        profile: LeafProfile = MEMBER,
        drop: type[x509.ExtensionType] | None = None,
        put: x509.ExtensionType | None = None,
        critical: bool = False,
        key: bytes = b"",
        start: timedelta = -HOUR,
        end: timedelta = 365 * DAY,
    ) -> bytes:
        own = pki.load_key(key or self.key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(pki.name(profile.cn, profile.subject))
            .issuer_name(self.ca_cert.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() + start)
            .not_valid_after(now() + end)
        )
        for extension, is_critical in pki.leaf_extensions(profile, own):
            if not isinstance(extension, tuple(t for t in (drop, type(put)) if t not in (None, type(None)))):
                builder = builder.add_extension(extension, critical=is_critical)
        if put is not None:
            builder = builder.add_extension(put, critical=critical)
        return builder.sign(self.ca_key, hashes.SHA256()).public_bytes(pki.PEM)

    def problems(
        self, leaf: bytes, *, ca: bytes = b"", profile: LeafProfile = MEMBER, at: timedelta = timedelta(0)
    ) -> str:
        found = validate.leaf_problems(leaf, ca_pem=ca or self.ca, key=self.key, profile=profile, now=now() + at)
        return " | ".join(map(str, found))

    def codes(self, leaf: bytes, *, ca: bytes = b"", profile: LeafProfile = MEMBER) -> list[str]:
        found = validate.leaf_problems(leaf, ca_pem=ca or self.ca, key=self.key, profile=profile, now=now())
        return [problem.code.removeprefix("certificate.") for problem in found]


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
CLIENT_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
ANY_USAGE = x509.ExtendedKeyUsage([*BOTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
WRONG = {
    "san missing": ({"drop": x509.SubjectAlternativeName}, "SAN: .*+10.0.0.1 +127.0.0.1 +::1 +etcd-1 +localhost"),
    "ip absent": ({"profile": replace(MEMBER, sans=MEMBER.sans[1:])}, "SAN: .*+10.0.0.1"),
    "san too many": ({"profile": replace(MEMBER, sans=(*MEMBER.sans, "*.evil"))}, "SAN: .*-*.evil"),
    "serverAuth only": ({"put": SERVER_ONLY}, "extendedKeyUsage: clientAuth is missing, a member needs it"),
    "clientAuth only": ({"put": CLIENT_ONLY}, "extendedKeyUsage: serverAuth is missing, a member needs it"),
    "other key": ({"key": pki.new_key("ecdsa:p256")}, "public key: not ours"),
    "expired": ({"start": -3 * DAY, "end": -DAY}, "validity: expired on"),
    "future": ({"start": DAY}, "validity: not valid before"),
    "CA:TRUE": (
        {"put": x509.BasicConstraints(ca=True, path_length=None), "critical": True},
        "basicConstraints: CA:TRUE",
    ),
    "cn": ({"profile": replace(MEMBER, cn="etcd-2")}, "CN: 'etcd-2' instead of 'etcd-1'"),
    "subject": ({"profile": replace(MEMBER, subject={"O": "x"})}, "subject: CN=etcd-1,O=x instead of CN=etcd-1,OU="),
    "beyond the ca": ({"end": 4000 * DAY}, "validity: notAfter .* is beyond that of its CA etcd-ca"),
    "key usage": ({"put": key_usage("key_encipherment"), "critical": True}, "keyUsage: digitalSignature is missing"),
    "may sign certificates": (
        {"put": key_usage("digital_signature", "key_cert_sign"), "critical": True},
        "keyUsage: keyCertSign or cRLSign, which only a CA may have",
    ),
    "any usage": ({"put": ANY_USAGE}, "extendedKeyUsage: anyExtendedKeyUsage"),
    "no key usage": ({"drop": x509.KeyUsage}, "keyUsage: digitalSignature is missing"),
    "unknown critical": (
        {"put": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), "critical": True},
        "extension 1.2.3.4: critical and unknown",
    ),
}


CODES = {
    "san missing": "san",
    "ip absent": "san",
    "san too many": "san",
    "serverAuth only": "extended-key-usage",
    "clientAuth only": "extended-key-usage",
    "other key": "other-key",
    "expired": "expired",
    "future": "not-yet-valid",
    "CA:TRUE": "is-a-ca",
    "cn": "cn",
    "subject": "subject",
    "beyond the ca": "outlives-its-ca",
    "key usage": "key-usage",
    "may sign certificates": "key-usage",
    "any usage": "extended-key-usage",
    "no key usage": "key-usage",
    "unknown critical": "unknown-extension",
}


def test_leaf_problems_client_without_its_san_is_refused(forge: Forge) -> None:
    leaf = forge.leaf(profile=CLIENT, drop=x509.SubjectAlternativeName)
    assert "SAN: not exactly what was asked for (+ missing, - not asked for): +100::1" in forge.problems(
        leaf, profile=CLIENT
    )
    assert validate.peer_from_anywhere(leaf)
    assert not validate.peer_from_anywhere(forge.leaf(profile=CLIENT))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_leaf_has_its_one_wrong_field_named(forge: Forge, case: str) -> None:
    changes, said = WRONG[case]
    found = forge.problems(forge.leaf(**changes))  # type: ignore[arg-type]
    head, _, tail = said.partition(".*")
    assert forge.codes(forge.leaf(**changes)) == [CODES[case]]  # type: ignore[arg-type]
    assert found.startswith(head)
    assert tail in found
    assert found.endswith(tail) or not case.startswith(("san", "ip"))
    assert " | " not in found


def test_no_extended_usage_at_all(forge: Forge) -> None:
    assert forge.codes(forge.leaf(drop=x509.ExtendedKeyUsage)) == ["extended-key-usage"] * 2


def test_another_issuer_of_the_same_name(forge: Forge) -> None:
    leaf = forge.other.sign(pki.new_csr(forge.key, MEMBER), MEMBER)
    assert forge.problems(leaf).startswith("issuer: not signed by the CA (etcd-ca (")
    assert forge.problems(leaf, ca=forge.other_ca) == ""
    assert not validate.issued_by(leaf, forge.ca)


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
)
def test_garbage_is_a_problem_and_no_traceback(forge: Forge, garbage: bytes) -> None:
    with pytest.raises(CertificateError, match="not a certificate in PEM"):
        pki.read(garbage)
    assert forge.problems(garbage) == "leaf: not a certificate in PEM"
    assert validate.ca_problems(garbage, now=now()) == [Problem("ca.unreadable", "CA: not a certificate in PEM")]
    if garbage:
        assert forge.problems(forge.leaf(), ca=garbage) == "CA: not a certificate in PEM"


def test_a_good_leaf_by_hand_and_what_is_tolerated(forge: Forge) -> None:
    assert forge.problems(forge.leaf()) == ""
    rsa_habit = key_usage("digital_signature", "key_encipherment")
    assert forge.problems(forge.leaf(put=rsa_habit, critical=True)) == ""
    both = forge.leaf(
        profile=CLIENT, put=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    )
    assert forge.problems(both, profile=CLIENT) == ""
    assert validate.leaf_warnings(both, CLIENT) == ("root: a client's certificate that may also serve (serverAuth)",)
    assert "clientAuth is missing, a client" in forge.problems(
        forge.leaf(profile=CLIENT, put=SERVER_ONLY), profile=CLIENT
    )


def test_a_bundle_while_one_ca_replaces_another(forge: Forge) -> None:
    old, new = forge.leaf(), forge.other.sign(pki.new_csr(forge.key, MEMBER), MEMBER)
    for bundle in (forge.ca + forge.other_ca, forge.other_ca + forge.ca):
        assert len(pki.read(bundle)) == 2
        assert validate.ca_problems(bundle, now=now()) == []
        assert forge.problems(old, ca=bundle) == forge.problems(new, ca=bundle) == ""


def test_a_backend_with_a_bundle_signs_with_the_certificate_of_its_key(tmp_path: Path) -> None:
    builtin, new = authority(tmp_path / "builtin")
    _, old = authority(tmp_path / "old")
    (tmp_path / "builtin" / "ca.pem").write_bytes(old + new)
    key = pki.new_key("ecdsa:p256")
    assert validate.issued_by(builtin.sign(pki.new_csr(key, MEMBER), MEMBER), new)


def intermediate(
    forge: Forge, *, above: tuple[x509.Certificate, object] | None = None, ca: bool = True
) -> tuple[bytes, bytes]:
    """A CA below the root (key, certificate); the root has path length 0 unless `above` gives another one."""
    issuer, key = above or (forge.ca_cert, forge.ca_key)
    key_pem = pki.new_key("ecdsa:p256")
    builder = (
        x509.CertificateBuilder()
        .subject_name(pki.name("between", {}))
        .issuer_name(issuer.subject)
        .public_key(pki.load_key(key_pem).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - HOUR)
        .not_valid_after(now() + 1000 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return key_pem, builder.sign(key, hashes.SHA256()).public_bytes(pki.PEM)  # type: ignore[arg-type]


def unlimited_root() -> tuple[bytes, x509.Certificate, object]:
    key = pki.load_key(pki.new_key("ecdsa:p256"))
    subject = pki.name("corporate", {})
    root = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - HOUR)
        .not_valid_after(now() + 2000 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return root.public_bytes(pki.PEM), root, key


@pytest.mark.parametrize("where", ["behind the leaf", "in the CA's file", "in the CA's file alone"])
def test_an_intermediate_in_either_file(forge: Forge, where: str) -> None:
    root_pem, root, root_key = unlimited_root()
    key_pem, between = intermediate(forge, above=(root, root_key))
    forge.ca_cert, forge.ca_key = pki.read(between)[0], pki.load_key(key_pem)
    leaf = forge.leaf()
    assert forge.codes(leaf, ca=root_pem) == ["other-issuer"]
    files = {
        "behind the leaf": (leaf + between, root_pem),
        "in the CA's file": (leaf, root_pem + between),
        "in the CA's file alone": (leaf, between),
    }
    assert forge.problems(files[where][0], ca=files[where][1]) == ""


@pytest.mark.parametrize("kind", ["identical", "of one name and key"])
@pytest.mark.parametrize("complete", [True, False])
def test_many_intermediates_end_soon(forge: Forge, kind: str, complete: bool) -> None:  # noqa: FBT001  a case
    root_pem, root, root_key = unlimited_root()
    key_pem, between = intermediate(forge, above=(root, root_key))
    key = pki.load_key(key_pem)
    forge.ca_cert, forge.ca_key = pki.read(between)[0], key
    leaf, own = forge.leaf(), forge.ca_cert
    more = [
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(own.subject)
        .public_key(own.public_key())
        .serial_number(1 if kind == "identical" else number + 1)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
        .public_bytes(pki.PEM)
        for number in range(11)
    ]
    if kind == "identical":
        more = more[:1] * 11
    chain = b"".join([leaf, *([between] if complete else []), *more])
    began = time.monotonic()
    assert forge.codes(chain, ca=root_pem) == ([] if complete else ["other-issuer"])
    assert validate.issued_by(chain, root_pem) is complete
    assert time.monotonic() - began < 3


def test_what_may_not_sign_makes_no_chain(forge: Forge) -> None:
    key_pem, between = intermediate(forge)  # below a root of path length 0
    root_pem, root, root_key = unlimited_root()
    leaf_key, no_ca = intermediate(forge, above=(root, root_key), ca=False)
    for signer, certificate, trusted in ((key_pem, between, forge.ca), (leaf_key, no_ca, root_pem)):
        forge.ca_cert, forge.ca_key = pki.read(certificate)[0], pki.load_key(signer)
        assert forge.codes(forge.leaf() + certificate, ca=trusted) == ["other-issuer"]


def test_ca_problems_name_the_field(forge: Forge) -> None:
    (problem,) = validate.ca_problems(forge.leaf(drop=x509.KeyUsage), now=now())
    assert problem.code == "ca.no-ca"
    assert problem.message.endswith(": basicConstraints: CA:TRUE is missing, it is no CA")
    assert "ca.key-usage" in {problem.code for problem in validate.ca_problems(forge.leaf(), now=now())}
    (problem,) = validate.ca_problems(forge.ca, now=now() + 4000 * DAY)
    assert problem.code == "ca.expired"
    assert "issuer: etcd-ca" in forge.problems(forge.leaf(), at=4000 * DAY)


# -- keys and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["rsa:1024", "ecdsa:p224", "ecdsa", "ed25519", "", "rsa:2048 "])
def test_unknown_key_types_are_refused(spec: str) -> None:
    with pytest.raises(CertificateError, match="not one of ecdsa:p256"):
        pki.new_key(spec)


def test_keys_of_other_forms() -> None:
    key = pki.load_key(pki.new_key("ecdsa:p256"))
    cfssl_form = key.private_bytes(
        pki.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    assert b"BEGIN EC PRIVATE KEY" in cfssl_form
    assert pki.key_spec(cfssl_form) == "ecdsa:p256"
    locked = key.private_bytes(pki.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    with pytest.raises(CertificateError, match="encrypted"):
        pki.load_key(locked)
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        pki.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(CertificateError, match="neither an ECDSA nor an RSA key"):
        pki.load_key(edwards)


def test_sans_are_compared_normalised() -> None:
    names = pki.general_names(("Node.Example", "node.example", "fd00:0::1", "fd00::1", "10.0.0.1"))
    assert pki.san_texts(names) == {"node.example", "fd00::1", "10.0.0.1"}
    assert len(names) == 3
    with pytest.raises(CertificateError, match="neither an IP address nor an ASCII DNS name"):
        pki.general_names(("etcd-é",))


@pytest.mark.parametrize(("subject", "said"), [({"X": "y"}, "unknown field X"), ({"C": "China"}, "2")])
def test_a_subject_that_x509_has_no_room_for(subject: dict[str, str], said: str) -> None:
    with pytest.raises(CertificateError, match=said):
        pki.name("cn", subject)


def test_the_generation_follows_the_pair_and_shows_no_key(forge: Forge) -> None:
    leaf = forge.leaf()
    assert pki.generation(leaf, forge.key) == pki.generation(leaf, forge.key)
    assert pki.generation(leaf, forge.key) != pki.generation(forge.leaf(), forge.key)
    assert pki.generation(leaf, forge.key) != pki.generation(leaf, pki.new_key("ecdsa:p256"))
    assert len(pki.generation(leaf, forge.key)) == 16


@pytest.mark.parametrize(
    ("lifetime", "renew_days", "left", "due"),
    [
        (365, 30, 31, False),
        (365, 30, 30, True),
        (9, 30, 4, False),  # a third of a short life
        (9, 30, 3, True),
        (365, 200, 130, False),
        (365, 200, 121, True),
        (365, 30, -1, True),
    ],
)
def test_when_renewal_is_due(forge: Forge, lifetime: int, renew_days: int, left: int, due: bool) -> None:  # noqa: FBT001 - a column
    leaf = forge.leaf(start=timedelta(0), end=lifetime * DAY)
    at = pki.read(leaf)[0].not_valid_after_utc - left * DAY
    assert pki.due(leaf, renew_days, at) is due
