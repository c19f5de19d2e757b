from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from steps.builtin.ca import Builtin
from steps.core.base import files
from steps.core.base.errors import CertificateError, Pending, StepFailed, UsageError
from steps.core.tls import pki, validate
from steps.core.tls.contracts import CARequest, LeafProfile
from steps.core.tls.store import Pair, Store

KEY = "ecdsa:p256"
MEMBER = LeafProfile("etcd-1", "member", "etcd-1", {"O": "etcd"}, ("10.0.0.1", "etcd-1"), 365)
FORWARD = {"SANs": replace(MEMBER, sans=("10.0.0.4", "etcd-1")), "CN": replace(MEMBER, cn="x")}


def now() -> datetime:
    return datetime.now(timezone.utc)


def opened(work: Path, backend: str = "builtin", days: int = 3650) -> tuple[Store, Builtin]:
    kept, builtin = Store(work), Builtin()
    kept.adopt_ca(builtin.ca(CARequest("etcd-ca", {}, KEY, days, kept.backend_dir(backend))))
    return kept, builtin


def issued(work: Path) -> Pair:
    kept, builtin = opened(work)
    return kept.issue("etcd-1", MEMBER, KEY, builtin.sign)


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def assert_private(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir() and not path.is_symlink():
            assert mode == 0o700, path
        elif "key" in path.name:
            assert mode == 0o600, path


@pytest.fixture(params=[0, 0o022, 0o077], ids=["umask 0", "umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


# -- what is there, and how it is guarded -------------------------------------------------------------------------


def test_the_layout_and_its_modes(tmp_path: Path, umask: None) -> None:
    work = tmp_path / ".etcd" / "demo"
    pair = issued(work)
    gen = f"certs/etcd-1/gen-{pair.generation}"
    assert tree(work) == {
        *("ca", "ca/ca.pem", "ca/builtin", "ca/builtin/ca.pem", "ca/builtin/ca-key.pem"),
        *("certs", "certs/etcd-1", "certs/etcd-1/live", gen, f"{gen}/cert.pem", f"{gen}/key.pem", f"{gen}/csr.pem"),
    }
    assert_private(work)
    assert Store(work).pair("etcd-1") == pair
    assert pair.cert_file.read_bytes() == pair.cert
    assert pair.key_file.read_bytes() == pair.key
    assert pki.spki(pair.cert) == pki.spki(pair.key)
    assert "PRIVATE" not in repr(pair)


def test_a_wider_directory_is_narrowed(tmp_path: Path) -> None:
    (tmp_path / "work" / "ca").mkdir(parents=True, mode=0o755)
    opened(tmp_path / "work")
    assert_private(tmp_path / "work")


def test_an_empty_store(tmp_path: Path) -> None:
    kept = Store(tmp_path / "work")
    assert (kept.ca(), kept.pair("etcd-1")) == (None, None)
    assert kept.reason("etcd-1", MEMBER, KEY, 30, now()) == "none yet"
    with pytest.raises(StepFailed, match="no CA yet"):
        kept.issue("etcd-1", MEMBER, KEY, Builtin().sign)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "-x", "a\nb"])
def test_no_name_leads_out_of_the_store(tmp_path: Path, name: str) -> None:
    kept, builtin = opened(tmp_path / "work")
    for call in (lambda: kept.pair(name), lambda: kept.issue(name, MEMBER, KEY, builtin.sign)):
        with pytest.raises(UsageError, match="cannot name a directory"):
            call()


# -- the CA -------------------------------------------------------------------------------------------------------


def test_the_trusted_ca_is_never_replaced(tmp_path: Path) -> None:
    kept, _ = opened(tmp_path / "work")
    trusted = kept.ca()
    assert trusted is not None
    kept.adopt_ca(b"text before\n" + trusted)
    with pytest.raises(CertificateError, match="is never replaced") as caught:
        kept.adopt_ca(opened(tmp_path / "elsewhere")[0].ca() or b"")
    assert pki.fingerprint(trusted) in caught.value.message
    assert kept.ca() == trusted


def test_a_trusted_ca_is_not_made_again_where_the_backend_lost_or_never_had_its_own(tmp_path: Path) -> None:
    kept, _ = opened(tmp_path / "work")
    trusted = kept.ca()
    (tmp_path / "work/ca/builtin/ca-key.pem").unlink()
    again, builtin = opened(tmp_path / "work", backend="other")
    assert again.ca() == trusted
    assert list((tmp_path / "work" / "ca" / "other").iterdir()) == []
    with pytest.raises(CertificateError, match="the CA's key is missing") as caught:
        again.issue("etcd-1", MEMBER, KEY, builtin.sign)
    assert "the backend before" in caught.value.hint


def test_a_trusted_ca_is_shared_with_the_backend_that_comes_next(tmp_path: Path) -> None:
    before = issued(tmp_path / "work")
    kept, builtin = opened(tmp_path / "work", backend="other")
    pair = kept.issue("etcd-1", MEMBER, KEY, builtin.sign)
    assert pki.read(pair.cert)[0].issuer == pki.read(before.cert)[0].issuer
    keys = [tmp_path / "work/ca" / backend / "ca-key.pem" for backend in ("builtin", "other")]
    assert keys[0].samefile(keys[1])
    assert_private(tmp_path / "work")


def test_unfit_cas_are_not_adopted_and_a_key_in_the_file_is_left_out(tmp_path: Path) -> None:
    kept = Store(tmp_path / "work")
    pair = issued(tmp_path / "elsewhere")
    for pem in (b"", b"garbage", pair.cert):
        with pytest.raises(CertificateError, match="the CA cannot be used"):
            kept.adopt_ca(pem)
    ca = Store(tmp_path / "elsewhere").ca()
    assert ca is not None
    kept.adopt_ca(ca + pair.key)
    assert kept.ca() == ca


# -- issuing ------------------------------------------------------------------------------------------------------


def test_a_wrong_answer_is_not_saved_and_the_request_is_asked_again(tmp_path: Path) -> None:
    before = issued(tmp_path)
    kept, builtin = opened(tmp_path)
    asked: list[bytes] = []

    def wrong(csr: bytes, profile: LeafProfile) -> bytes:
        asked.append(csr)
        return before.cert

    for _ in range(2):
        with pytest.raises(CertificateError, match=r"etcd-1: the backend's certificate .* public key: not ours"):
            kept.issue("etcd-1", MEMBER, KEY, wrong)
    assert kept.pair("etcd-1") == before
    after = kept.issue("etcd-1", MEMBER, KEY, lambda csr, profile: builtin.sign(asked.append(csr) or csr, profile))  # type: ignore[func-returns-value]
    assert len(set(asked)) == 1
    assert after.generation != before.generation


def test_a_signer_may_take_days(tmp_path: Path) -> None:
    kept, builtin = opened(tmp_path)
    asked: list[bytes] = []

    def later(csr: bytes, profile: LeafProfile) -> bytes:
        asked.append(csr)
        raise Pending(["etcd-1.csr"], "sign these")

    with pytest.raises(Pending):
        kept.issue("etcd-1", MEMBER, KEY, later)
    answer = builtin.sign(asked[0], MEMBER)
    pair = kept.issue("etcd-1", MEMBER, KEY, lambda *_: answer)
    assert pair.cert == answer
    assert not (tmp_path / "certs" / "etcd-1" / "request").exists()


@pytest.mark.parametrize(
    ("profile", "key"), [(MEMBER, "rsa:2048"), *((p, KEY) for p in FORWARD.values())], ids=["key", *FORWARD]
)
def test_a_change_of_mind_makes_a_new_request(tmp_path: Path, profile: LeafProfile, key: str) -> None:
    kept, builtin = opened(tmp_path)
    with pytest.raises(CertificateError):
        kept.issue("etcd-1", MEMBER, KEY, lambda *_: b"")
    pair = kept.issue("etcd-1", profile, key, builtin.sign)
    assert kept.reason("etcd-1", profile, key, 30, now()) is None
    assert pki.key_spec(pair.key) == key


@pytest.mark.parametrize("half", ["key.pem", "csr.pem"])
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_half_a_request_is_made_anew(tmp_path: Path, half: str, content: bytes | None) -> None:
    kept, builtin = opened(tmp_path)
    with pytest.raises(CertificateError):
        kept.issue("etcd-1", MEMBER, KEY, lambda *_: b"")
    file = tmp_path / "certs" / "etcd-1" / "request" / half
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    kept.issue("etcd-1", MEMBER, KEY, builtin.sign)
    assert kept.reason("etcd-1", MEMBER, KEY, 30, now()) is None


def test_only_certificates_are_saved(tmp_path: Path) -> None:
    kept, builtin = opened(tmp_path)
    secret = pki.new_key(KEY)
    pair = kept.issue("etcd-1", MEMBER, KEY, lambda csr, p: b"Certificate: text\n" + builtin.sign(csr, p) + secret)
    assert pair.cert.startswith(b"-----BEGIN CERTIFICATE-----")
    assert b"PRIVATE" not in pair.cert_file.read_bytes()


def test_the_generation_before_is_kept_and_older_ones_go(tmp_path: Path) -> None:
    kept, builtin = opened(tmp_path)
    made = [kept.issue("etcd-1", MEMBER, KEY, builtin.sign) for _ in range(4)]
    home = tmp_path / "certs" / "etcd-1"
    assert {p.name for p in home.glob("gen-*")} == {f"gen-{pair.generation}" for pair in made[-2:]}
    assert (home / "live").readlink() == Path(f"gen-{made[-1].generation}")


def test_a_shortened_leaf_warns_once(tmp_path: Path) -> None:
    kept, builtin = opened(tmp_path, days=20)
    pair = kept.issue("etcd-1", MEMBER, KEY, builtin.sign)
    assert "20 days, not the 365" in pair.warnings[0]
    assert kept.reason("etcd-1", MEMBER, KEY, 30, now()) is None


# -- reasons ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "key", "days", "said"),
    [
        (MEMBER, KEY, 0, None),
        (replace(MEMBER, days=9), KEY, 0, None),  # the lifetime counts from the next one on
        (FORWARD["SANs"], KEY, 0, "SANs changed: +10.0.0.4 -10.0.0.1"),
        (replace(MEMBER, sans=("ETCD-1", "10.0.0.1", "10.0.0.1")), KEY, 0, None),
        (FORWARD["CN"], KEY, 0, "CN changed: etcd-1 to x"),
        (replace(MEMBER, subject={"O": "etcd", "C": "CN"}), KEY, 0, "subject changed"),
        (MEMBER, "rsa:2048", 0, "key type changed: ecdsa:p256 to rsa:2048"),
        (MEMBER, KEY, 334, None),
        (MEMBER, KEY, 336, "due for renewal, expires in 28 days"),
        (MEMBER, KEY, 366, "expired on"),
    ],
)
def test_why_a_certificate_is_issued_again(
    tmp_path: Path, profile: LeafProfile, key: str, days: int, said: str | None
) -> None:
    issued(tmp_path)
    reason = Store(tmp_path).reason("etcd-1", profile, key, 30, now() + timedelta(days=days))
    assert reason == said or (said is not None and reason is not None and reason.startswith(said))


def test_another_ca_and_another_kind_are_reasons(tmp_path: Path) -> None:
    kept, builtin = opened(tmp_path)
    client = replace(MEMBER, kind="client")
    kept.issue("etcd-1", client, KEY, builtin.sign)
    assert kept.reason("etcd-1", client, KEY, 30, now()) is None
    reason = kept.reason("etcd-1", MEMBER, KEY, 30, now())
    assert reason == "extendedKeyUsage: serverAuth is missing, a member needs it"
    (tmp_path / "ca" / "ca.pem").unlink()
    opened(tmp_path, backend="other")
    assert kept.reason("etcd-1", client, KEY, 30, now()) == "issued by another CA"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("key.pem", pki.new_key(KEY), "not the key of cert.pem beside it"),
        ("key.pem", None, "the file is missing"),
        ("key.pem", b"", "not a private key"),
        ("cert.pem", b"garbage", "not a certificate"),
        ("cert.pem", None, "the file is missing"),
    ],
)
def test_a_damaged_pair_names_its_file(tmp_path: Path, file: str, content: bytes | None, said: str) -> None:
    pair = issued(tmp_path)
    path = pair.directory / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for call in (
        lambda: Store(tmp_path).pair("etcd-1"),
        lambda: Store(tmp_path).reason("etcd-1", MEMBER, KEY, 30, now()),
    ):
        with pytest.raises(CertificateError, match=said) as caught:
            call()
        assert str(path) in caught.value.message


def test_a_copy_that_lost_its_links_says_how_to_copy(tmp_path: Path) -> None:
    issued(tmp_path)
    live = tmp_path / "certs" / "etcd-1" / "live"
    live.unlink()
    live.mkdir()
    with pytest.raises(CertificateError, match="not a link") as caught:
        Store(tmp_path).pair("etcd-1")
    assert "cp -a" in caught.value.hint


# -- killed -------------------------------------------------------------------------------------------------------

TOUCHING = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.chmod"}


def killed_at(nth: int, work: Path, action: Callable[[], object]) -> bool:
    """Runs `action` in a child that is killed before its nth touch of a file in `work`. False: it ended before that."""
    child = os.fork()
    if child == 0:
        left = nth

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            if event in TOUCHING and isinstance(args[0], (str, Path)) and str(work) in str(args[0]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        os.umask(0)
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("living", [False, True], ids=["first", "rotation"])
def test_killed_anywhere_the_old_pair_or_the_new_one_serves(tmp_path: Path, living: bool) -> None:  # noqa: FBT001 - a column
    points = 0
    while True:
        work = tmp_path / f"{points:03}"
        before = issued(work) if living else None
        ca = Store(work).ca()
        if not killed_at(points, work, lambda w=work: issued(w)):  # type: ignore[misc]
            break
        points += 1
        if work.exists():
            assert_private(work)
        survivor = Store(work).pair("etcd-1")
        if living:
            assert survivor is not None
            assert Store(work).ca() == ca
            assert not [p for p in tree(work) if Path(p).name.startswith(".")]  # the next issue may be a year away
        if survivor is not None and survivor != before:
            trusted = Store(work).ca()
            assert trusted is not None
            found = validate.leaf_problems(survivor.cert, ca_pem=trusted, key=survivor.key, profile=MEMBER, now=now())
            assert found == []
        after = issued(work)
        assert Store(work).pair("etcd-1") == after
        left_over = {p for p in tree(work) if Path(p).name.startswith(".") or "request" in p}
        assert left_over == set()
        assert len(list((work / "certs" / "etcd-1").glob("gen-*"))) <= 2
    assert points > (10 if living else 20)


def test_a_file_that_exists_is_not_created(tmp_path: Path) -> None:
    files.create(tmp_path / "key", b"one")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"
