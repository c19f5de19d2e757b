"""The certificate backends with the real programs: cfssl of two Debian releases, and openssl."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from steps.builtin.ca import Builtin
from steps.builtin.debian import unpacked
from steps.core.base.errors import CertificateError, Pending, Refused, SourceUnavailable, StepFailed, StepsError
from steps.core.base.files import private_directory
from steps.core.config.model import Cluster
from steps.core.release.binaries import own_arch
from steps.core.release.releases import default_cache
from steps.core.tls import pki, validate
from steps.core.tls.authority import Authority
from steps.core.tls.contracts import CARequest, CertBackend, LeafProfile
from steps.core.tls.store import Pair, Store
from steps.testing import CLIENT, MEMBER, Hanging, ca_request, check_backend, hanging, load_plugin, make_cluster

__all__ = ["ca_request", "hanging"]

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
CFSSL, EXEC, CSR = (load_plugin(PLUGINS / f"{name}.py") for name in ("cfssl", "exec", "csr"))
VERSIONS = {"1.2.0": "bookworm", "1.6.5": "trixie"}
OPENSSL = [
    *("openssl", "x509", "-req", "-CA", "{ca}/ca.pem", "-CAkey", "{ca}/ca-key.pem"),
    *("-copy_extensions", "copy", "-days", "{days}"),
]


@pytest.fixture(scope="session")
def programs() -> Path:
    """suite → usr/bin/cfssl, fetched once and kept beside the release cache."""
    home = default_cache() / "tests-cfssl"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for suite in VERSIONS.values():
        if (home / suite).exists():
            continue
        staged = home / f".{suite}.{os.getpid()}"
        try:
            unpacked(["golang-cfssl"], suite, own_arch(), state=home / "apt", into=staged, deadline=120)
        except SourceUnavailable as error:
            pytest.skip(str(error))
        staged.rename(home / suite)
    return home


@pytest.fixture(params=VERSIONS)
def cfssl(request: pytest.FixtureRequest, programs: Path) -> str:
    return str(programs / VERSIONS[request.param] / "usr/bin/cfssl")


def configured(directory: Path, binary: str = "cfssl", more: str = "", tls: str = "") -> Cluster:
    return make_cluster(directory, f'[tls]\nbackend = "cfssl"\n{tls}\n[tls.cfssl]\nbinary = "{binary}"\n{more}\n')


def signed(backend: CertBackend, request: CARequest, profile: LeafProfile = MEMBER) -> tuple[bytes, bytes]:
    """A leaf by that backend, and its key."""
    backend.ca(request)
    key = pki.new_key("ecdsa:p256")
    return backend.sign(pki.new_csr(key, profile), profile), key


def script(file: Path, text: str) -> str:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return str(file)


# -- the contract, kept by all ------------------------------------------------------------------------------------


def test_builtin_keeps_the_contract(ca_request: CARequest) -> None:
    check_backend(Builtin(), ca_request)
    check_backend(Builtin())


def test_cfssl_keeps_the_contract(tmp_path: Path, ca_request: CARequest, cfssl: str) -> None:
    check_backend(CFSSL.Cfssl(configured(tmp_path, cfssl)), ca_request)


def outside(tmp_path: Path) -> tuple[Path, list[str]]:
    """A CA that openssl made, and the words that sign with it."""
    home = tmp_path / "outside"
    home.mkdir()
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=corporate -days 3650"
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    files = ["-keyout", str(home / "ca-key.pem"), "-out", str(home / "ca.pem")]
    subprocess.run([*new.split(), *usage, *files], check=True, capture_output=True)
    return home, [word.replace("{ca}", str(home)) for word in OPENSSL]


def test_exec_keeps_the_contract_with_openssl(tmp_path: Path, ca_request: CARequest) -> None:
    home, argv = outside(tmp_path)
    check_backend(EXEC.Exec(tuple(argv), home / "ca.pem", 20), ca_request)


def test_the_suite_catches_what_is_wrong(ca_request: CARequest) -> None:
    class Forgetful(Builtin):
        def ca(self, request: CARequest) -> bytes:
            shutil.rmtree(request.dir)
            private_directory(request.dir)
            return super().ca(request)

    class Credulous(Builtin):
        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            return super().sign(csr or pki.new_csr(pki.new_key("ecdsa:p256"), profile), profile)

    class Talkative(Builtin):
        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            subprocess.run(["cat", str(ca_request.dir / "ca-key.pem")], check=True)
            return super().sign(csr, profile)

    class Short(Builtin):
        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            return super().sign(csr, replace(profile, days=2))

    class Nameless(Builtin):
        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            key = pki.new_key("ecdsa:p256")
            less = replace(profile, sans=profile.sans[1:])
            return super().sign(pki.new_csr(key, less), less)

    class Slow(Builtin):
        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            time.sleep(2)
            return super().sign(csr, profile)

    class Raw(Builtin):
        def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
            if not csr:
                raise IndexError("list index out of range")
            return super().sign(csr, profile)

    wrong: dict[type[Builtin], str] = {
        Forgetful: "another CA on the second call",
        Credulous: "empty request returned a certificate",
        Talkative: "a private key was printed",
        Short: "lives .* not the 90 days",
        Nameless: r"SAN: .*\+10.0.0.1",
        Slow: "not done within 1 s",
        Raw: "raised IndexError",
    }
    for kind, message in wrong.items():
        with pytest.raises(AssertionError, match=message):
            check_backend(kind(), ca_request, deadline=1 if kind is Slow else 30)


# -- cfssl --------------------------------------------------------------------------------------------------------


def test_cfssls_files_are_the_how_tos(tmp_path: Path, ca_request: CARequest, cfssl: str) -> None:
    backend = CFSSL.Cfssl(configured(tmp_path, cfssl))
    pem, key = signed(backend, ca_request)
    home = ca_request.dir
    csr = json.loads((home / "ca-csr.json").read_text())
    assert csr["ca"] == {"expiry": "87600h", "pathlen": 0, "pathlenzero": True}
    assert csr["key"] == {"algo": "ecdsa", "size": 256}
    profiles = json.loads((home / "ca-config.json").read_text())["signing"]["profiles"]
    assert {name: profile["usages"][1:] for name, profile in profiles.items()} == {
        "etcd-cluster": ["server auth", "client auth"],
        "etcd-client": ["client auth"],
    }
    leaf = json.loads((home / "etcd-1" / "etcd-csr.json").read_text())
    assert (leaf["CN"], leaf["hosts"]) == ("etcd-1", list(MEMBER.sans))
    assert not validate.leaf_problems(pem, ca_pem=backend.ca(ca_request), key=key, profile=MEMBER, now=pki_now())
    (ca,) = pki.read((home / "ca.pem").read_bytes())
    constraints = ca.extensions.get_extension_for_class(pki.x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert stat.S_IMODE((home / "ca-key.pem").stat().st_mode) == 0o600
    assert pki.common_name(ca.subject) == "test-ca"


def pki_now() -> Any:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc)


@pytest.mark.parametrize("spec", ["rsa:2048", "ecdsa:p384"])
def test_cfssl_makes_the_ca_of_the_asked_key(tmp_path: Path, ca_request: CARequest, cfssl: str, spec: str) -> None:
    ca = CFSSL.Cfssl(configured(tmp_path, cfssl)).ca(replace(ca_request, key=spec))
    assert pki.key_spec(ca) == spec


def adopted(programs: Path, home: Path, *, client: bool) -> None:
    """A directory that the how-to's commands made, with nothing of ours."""
    config: dict[str, Any] = {"usages": ["signing", "key encipherment", "server auth", "client auth"]}
    profiles = {"kubernetes": {**config, "expiry": "876000h"}}
    if client:
        profiles["etcd-client"] = {"usages": ["signing", "client auth"], "expiry": "1h"}
    (home / "ca-config.json").write_text(json.dumps({"signing": {"profiles": profiles}}))
    (home / "ca-csr.json").write_text(json.dumps({"CN": "kubernetes-ca", "key": {"algo": "rsa", "size": 2048}}))
    cfssl = programs / "trixie/usr/bin/cfssl"
    made = subprocess.run([cfssl, "gencert", "-initca", "ca-csr.json"], cwd=home, check=True, capture_output=True)
    for field, name in (("cert", "ca.pem"), ("key", "ca-key.pem")):
        (home / name).write_text(json.loads(made.stdout)[field])


@pytest.mark.parametrize("client", [True, False], ids=["with a client profile", "without"])
def test_a_cfssl_directory_is_taken_over_as_it_is(
    tmp_path: Path, ca_request: CARequest, programs: Path, cfssl: str, *, client: bool
) -> None:
    adopted(programs, ca_request.dir, client=client)
    before = {file.name: file.read_bytes() for file in ca_request.dir.iterdir()}
    backend = CFSSL.Cfssl(configured(tmp_path, cfssl, 'profile = "kubernetes"'))
    ca = backend.ca(ca_request)
    assert ca == before["ca.pem"]
    for profile in (MEMBER, CLIENT):
        pem, key = signed(backend, ca_request, profile)
        assert not validate.leaf_problems(pem, ca_pem=ca, key=key, profile=profile, now=pki_now())
        warnings = validate.leaf_warnings(pem, profile)
        assert ["serverAuth" in warning for warning in warnings] == ([] if client or profile is MEMBER else [True])
    assert {file.name: file.read_bytes() for file in ca_request.dir.iterdir() if file.is_file()} == before


def test_cfssl_usages_follow_the_kind_of_key(tmp_path: Path, ca_request: CARequest, programs: Path, cfssl: str) -> None:
    """Also where ca-config.json is the how-to's, for RSA keys: keyEncipherment with an EC key is wrong (RFC 8813)."""
    adopted(programs, ca_request.dir, client=False)
    backend = CFSSL.Cfssl(configured(tmp_path, cfssl, 'profile = "kubernetes"'))
    backend.ca(ca_request)
    leaf = pki.read(signed(backend, ca_request)[0])[0]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment) == (True, False)


def test_an_unknown_profile_is_told_with_the_known_ones(tmp_path: Path, ca_request: CARequest, programs: Path) -> None:
    adopted(programs, ca_request.dir, client=False)
    backend = CFSSL.Cfssl(configured(tmp_path, str(programs / "trixie/usr/bin/cfssl")))
    with pytest.raises(StepFailed, match=r"no profile 'etcd-cluster', only: kubernetes"):
        signed(backend, ca_request)


def test_a_leaf_never_outlives_its_ca(tmp_path: Path, ca_request: CARequest, cfssl: str) -> None:
    backend = CFSSL.Cfssl(configured(tmp_path, cfssl))
    pem, key = signed(backend, replace(ca_request, days=5))
    ca = backend.ca(ca_request)
    assert not validate.leaf_problems(pem, ca_pem=ca, key=key, profile=MEMBER, now=pki_now())
    assert "not the 90" in validate.leaf_warnings(pem, MEMBER)[0]


def test_lost_and_foreign_keys(tmp_path: Path, ca_request: CARequest, cfssl: str) -> None:
    backend = CFSSL.Cfssl(configured(tmp_path, cfssl))
    ca = backend.ca(ca_request)
    key = ca_request.dir / "ca-key.pem"
    kept = key.read_bytes()
    key.write_bytes(pki.new_key("ecdsa:p256"))
    with pytest.raises(CertificateError, match=r"not the key of ca.pem"):
        backend.ca(ca_request)
    key.unlink()
    assert backend.ca(ca_request) == ca
    with pytest.raises(CertificateError, match="the CA's key is missing"):
        signed(backend, ca_request)
    key.write_bytes(kept)
    (ca_request.dir / "ca.pem").unlink()
    with pytest.raises(CertificateError, match="without its certificate"):
        backend.ca(ca_request)
    assert not (ca_request.dir / "ca.pem").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo no such flag >&2; exit 1", r"exit code 1\n    no such flag"),
        ("echo hello", "printed no JSON"),
        ("echo '[]'", "printed no JSON"),
        ("echo '{}'", "has no 'cert'"),
        ('echo \'{"cert": "x"}\'; echo "[INFO] fine" >&2', "has no 'key'"),
    ],
)
def test_a_cfssl_that_fails(tmp_path: Path, ca_request: CARequest, body: str, message: str) -> None:
    backend = CFSSL.Cfssl(configured(tmp_path, script(tmp_path / "cfssl", body)))
    with pytest.raises(StepFailed, match=message) as caught:
        backend.ca(ca_request)
    assert caught.value.exit_code == 1
    assert not (ca_request.dir / "ca.pem").exists()


def test_a_private_key_in_cfssls_output_is_never_shown(tmp_path: Path, ca_request: CARequest) -> None:
    body = 'echo \'{"key": "-----BEGIN EC PRIVATE KEY-----"}\'; exit 1'
    with pytest.raises(StepFailed) as caught:
        CFSSL.Cfssl(configured(tmp_path, script(tmp_path / "cfssl", body))).ca(ca_request)
    assert "PRIVATE" not in caught.value.message


def test_a_cfssl_that_hangs_is_killed_with_its_children(
    tmp_path: Path, ca_request: CARequest, hanging: Hanging
) -> None:
    backend = CFSSL.Cfssl(configured(tmp_path, str(hanging.program), "timeout = 1"))
    started = time.monotonic()
    with pytest.raises(StepFailed, match="killed after 1 s"):
        backend.ca(ca_request)
    assert time.monotonic() - started < 3
    hanging.assert_killed()


def test_the_environment_reaches_cfssl(tmp_path: Path, ca_request: CARequest) -> None:
    body = f'echo "$TOKEN" >{tmp_path}/seen; exit 1'
    with pytest.raises(StepFailed) as caught:
        CFSSL.Cfssl(configured(tmp_path, script(tmp_path / "cfssl", body), 'environment = { TOKEN = "secret" }')).ca(
            ca_request
        )
    assert (tmp_path / "seen").read_text() == "secret\n"
    assert "secret" not in caught.value.message


def test_an_absent_cfssl_is_told_with_the_ways_to_get_it(tmp_path: Path, ca_request: CARequest) -> None:
    with pytest.raises(StepFailed, match="no cfssl-x on this machine") as caught:
        CFSSL.Cfssl(configured(tmp_path, "cfssl-x")).ca(ca_request)
    for way in ("apt install golang-cfssl", 'source = "debian"', "sha256"):
        assert way in caught.value.hint


def test_an_absent_cfssl_comes_from_the_distribution(tmp_path: Path, ca_request: CARequest, programs: Path) -> None:
    cluster = configured(tmp_path, "cfssl-x", 'source = "debian"')
    signed(CFSSL.Cfssl(cluster), ca_request)
    assert (cluster.work / "cfssl/debian-trixie/usr/bin/cfssl").exists()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    root = tmp_path / "mirror"
    root.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_absent_cfssl_comes_from_a_mirror_with_its_digest(
    tmp_path: Path, ca_request: CARequest, programs: Path, mirror: tuple[str, Path]
) -> None:
    url, root = mirror
    shutil.copy(programs / "bookworm/usr/bin/cfssl", root / "cfssl")
    digest = hashlib.sha256((root / "cfssl").read_bytes()).hexdigest()

    def backend(pin: str) -> CertBackend:
        cluster = configured(tmp_path, "cfssl-x", f'source = "{url}/cfssl"\nsha256 = "{pin}"')
        made: CertBackend = CFSSL.Cfssl(cluster)
        return made

    with pytest.raises(StepFailed, match=r"expected sha256 0{64}"):
        backend("0" * 64).ca(ca_request)
    signed(backend(digest), ca_request)
    (root / "cfssl").unlink()
    signed(backend(digest), ca_request)
    (kept,) = (tmp_path / ".etcd/test/cfssl").glob(digest)
    kept.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(StepFailed, match="is not what"):
        signed(backend(digest), ca_request)


# -- exec ---------------------------------------------------------------------------------------------------------


def test_execs_placeholders(tmp_path: Path, ca_request: CARequest) -> None:
    seen = tmp_path / "seen"
    program = script(tmp_path / "sign", f'for word; do echo "$word"; done >{seen}; cat >{tmp_path}/csr; exit 1')
    argv = (program, "{name}", "--days={days}", "{kind}", "{sans}", "{ other }", "$HOME", "two words")
    with pytest.raises(StepFailed, match="exit code 1"):
        signed(EXEC.Exec(argv, tmp_path / "none.pem", 5), ca_request_with(ca_request, tmp_path / "none.pem"))
    assert seen.read_text().splitlines() == [
        *("etcd-1", "--days=90", "member", "10.0.0.1,etcd-1,localhost,::1", "{ other }", "$HOME", "two words")
    ]
    assert "BEGIN CERTIFICATE REQUEST" in (tmp_path / "csr").read_text()


def ca_request_with(request: CARequest, file: Path) -> CARequest:
    file.write_bytes(Builtin().ca(request))
    return request


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("cat >/dev/null; echo denied >&2; exit 3", StepFailed, r"exit code 3\n    denied"),
        ("cat >/dev/null; echo sorry", CertificateError, "printed no certificate in PEM"),
        ("exit 4", StepFailed, "exit code 4"),
    ],
)
def test_a_signer_that_fails(
    tmp_path: Path, ca_request: CARequest, body: str, error: type[StepsError], message: str
) -> None:
    backend = EXEC.Exec((script(tmp_path / "sign", body),), tmp_path / "ca.pem", 5)
    with pytest.raises(error, match=message):
        signed(backend, ca_request_with(ca_request, tmp_path / "ca.pem"))


def test_a_signer_that_is_not_there(tmp_path: Path, ca_request: CARequest) -> None:
    backend = EXEC.Exec(("/nowhere/sign",), tmp_path / "ca.pem", 5)
    with pytest.raises(StepFailed, match=r"ca_file .*No such file"):
        backend.ca(ca_request)
    with pytest.raises(StepFailed, match="/nowhere/sign does not start"):
        signed(backend, ca_request_with(ca_request, tmp_path / "ca.pem"))


def test_a_signer_that_hangs_is_killed_with_its_children(
    tmp_path: Path, ca_request: CARequest, hanging: Hanging
) -> None:
    backend = EXEC.Exec((str(hanging.program),), tmp_path / "ca.pem", 1)
    with pytest.raises(StepFailed, match="killed after 1 s"):
        signed(backend, ca_request_with(ca_request, tmp_path / "ca.pem"))
    hanging.assert_killed()


# -- csr ----------------------------------------------------------------------------------------------------------


def test_csr_waits_until_the_certificate_for_this_request_is_there(tmp_path: Path, ca_request: CARequest) -> None:
    home, argv = outside(tmp_path)
    store = Store(ca_request.dir.parents[1])
    backend = CSR.Csr(home / "ca.pem")
    store.adopt_ca(backend.ca(ca_request))
    issue = partial(store.issue, "etcd-1", MEMBER, "ecdsa:p256", backend.sign)
    with pytest.raises(Pending, match="wait for their certificates") as caught:
        issue()
    assert caught.value.exit_code == 3
    request, readme = ca_request.dir / "etcd-1.csr", ca_request.dir / "README"
    assert caught.value.files == (str(request),)
    for word in ("etcd-1.csr", "member, 90 days", "10.0.0.1", "serverAuth and clientAuth", str(home / "ca.pem")):
        assert word in readme.read_text()
    asked = request.read_bytes()
    with pytest.raises(Pending):
        issue()
    assert request.read_bytes() == asked
    (ca_request.dir / "etcd-1.pem").write_text("garbage")
    with pytest.raises(CertificateError, match=r"etcd-1.pem: not a certificate"):
        issue()
    other, _ = signed(Builtin(), replace(ca_request, dir=other_dir(tmp_path)))
    (ca_request.dir / "etcd-1.pem").write_bytes(other)
    with pytest.raises(Pending):
        issue()
    answer(argv, request)
    first: Pair = issue()
    assert validate.issued_by(first.cert, (home / "ca.pem").read_bytes())
    with pytest.raises(Pending):  # a renewal has a new key: the old answer is none
        issue()
    assert request.read_bytes() != asked


def other_dir(tmp_path: Path) -> Path:
    private_directory(tmp_path / "other/ca/builtin")
    return tmp_path / "other/ca/builtin"


def answer(argv: list[str], request: Path, days: int = 90) -> None:
    words = [word.replace("{days}", str(days)) for word in argv]
    done = subprocess.run(words, input=request.read_bytes(), check=True, capture_output=True)
    request.with_suffix(".pem").write_bytes(done.stdout)


def test_csrs_readme_works_with_the_real_openssl(tmp_path: Path, ca_request: CARequest) -> None:
    home, _ = outside(tmp_path)
    backend = CSR.Csr(home / "ca.pem")
    backend.ca(ca_request)
    with pytest.raises(Pending):
        backend.sign(pki.new_csr(key := pki.new_key("ecdsa:p256"), MEMBER), MEMBER)
    found = re.search(r"^    (openssl .*)$", (ca_request.dir / "README").read_text(), re.MULTILINE)
    assert found is not None
    command = found[1].replace("NAME", "etcd-1").replace("ca.pem", str(home / "ca.pem"), 1)
    command = command.replace("ca-key.pem", str(home / "ca-key.pem"))
    subprocess.run(command.split(), cwd=ca_request.dir, check=True, capture_output=True)
    pem = (ca_request.dir / "etcd-1.pem").read_bytes()
    ca = (home / "ca.pem").read_bytes()
    assert not validate.leaf_problems(pem, ca_pem=ca, key=key, profile=MEMBER, now=pki_now())


# -- from one backend to another ----------------------------------------------------------------------------------


def authority(
    directory: Path, backend: str, more: str = "", make: Callable[[Cluster], CertBackend] | None = None
) -> Any:
    cluster = make_cluster(directory, f'[tls]\nbackend = "{backend}"\n{more}')
    made = make(cluster) if make else Builtin()
    return Authority(cluster, made, Store(cluster.work))


def test_a_switch_reissues_under_the_ca_that_both_share(tmp_path: Path, cfssl: str) -> None:
    more = f'[tls.cfssl]\nbinary = "{cfssl}"\n'
    first = authority(tmp_path, "builtin")
    before = first.issue(MEMBER)
    second = authority(tmp_path, "cfssl", more, CFSSL.Cfssl)
    assert second.reason(MEMBER) == "signed by builtin, the backend is cfssl now"
    pair = second.issue(MEMBER)
    assert second.reason(MEMBER) is None
    ca = Store(tmp_path / ".etcd/test").ca() or b""
    assert validate.issued_by(pair.cert, ca)
    assert validate.issued_by(before.cert, ca)
    assert pair.cert != before.cert
    back = authority(tmp_path, "builtin")
    assert validate.issued_by(back.issue(MEMBER).cert, ca)
    keys = list((tmp_path / ".etcd/test/ca").glob("*/ca-key.pem"))
    assert len(keys) == 2
    assert keys[0].samefile(keys[1])


def test_a_switch_to_another_ca_is_refused(tmp_path: Path) -> None:
    home, argv = outside(tmp_path)
    authority(tmp_path, "builtin").issue(MEMBER)
    store = Store(tmp_path / ".etcd/test")
    trusted = store.ca()
    more = f'ca_file = "{home}/ca.pem"\n[tls.exec]\nargv = {json.dumps(argv)}\n'
    for backend, make in (("exec", EXEC.etcd_cert_backend), ("csr", CSR.etcd_cert_backend)):
        other = authority(tmp_path, backend, more, partial(make, backend))
        with pytest.raises(Refused, match="has another CA than this cluster trusts"):
            other.issue(MEMBER)
    assert store.ca() == trusted


def test_a_switch_back_from_an_authority_outside_is_refused(tmp_path: Path) -> None:
    home, argv = outside(tmp_path)
    more = f'ca_file = "{home}/ca.pem"\n[tls.exec]\nargv = {json.dumps(argv)}\n'
    pair = authority(tmp_path, "exec", more, partial(EXEC.etcd_cert_backend, "exec")).issue(MEMBER)
    back = authority(tmp_path, "builtin")
    with pytest.raises(Refused, match=r"signed by exec, the backend is builtin now, which cannot"):
        back.issue(MEMBER)
    assert Store(tmp_path / ".etcd/test").pair("etcd-1") == pair


def test_both_may_sign_for_one_outside_ca(tmp_path: Path) -> None:
    home, argv = outside(tmp_path)
    more = f'ca_file = "{home}/ca.pem"\n[tls.exec]\nargv = {json.dumps(argv)}\n'
    authority(tmp_path, "exec", more, partial(EXEC.etcd_cert_backend, "exec")).issue(MEMBER)
    with pytest.raises(Pending):
        authority(tmp_path, "csr", more, partial(CSR.etcd_cert_backend, "csr")).issue(MEMBER)
