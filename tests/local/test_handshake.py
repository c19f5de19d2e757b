"""Handshakes with a real TLS server, which demands a client's certificate as etcd does."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steps.builtin.ca import Builtin
from steps.core.base.errors import CertificateError
from steps.core.tls import pki
from steps.core.tls.contracts import CARequest, LeafProfile
from steps.core.tls.handshake import Channel, Handshake, handshake, probe
from steps.core.tls.store import Pair, Store

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
MEMBER = LeafProfile("etcd-1", "member", "etcd-1", {}, ("127.0.0.1", "localhost"), 365)
CLIENT = LeafProfile("root", "client", "root", {}, (), 365)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Authority:
    def __init__(self, work: Path) -> None:
        self.store, self.builtin = Store(work), Builtin()
        request = CARequest("etcd-ca", {}, "ecdsa:p256", 3650, self.store.backend_dir("builtin"))
        self.ca = self.builtin.ca(request)
        self.store.adopt_ca(self.ca)
        self.member = self.issue(MEMBER)
        self.client = self.issue(CLIENT)

    def issue(self, profile: LeafProfile) -> Pair:
        return self.store.issue(profile.name, profile, "ecdsa:p256", self.builtin.sign)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"))


Serve = Callable[[socket.socket], None]
Start = Callable[[Serve], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """start(serve) → port of a listener on loopback that gives its first connection to `serve` in a thread."""
    with contextlib.ExitStack() as stack:

        def begin(serve: Serve) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(10)

            def run() -> None:
                connection, _ = listener.accept()
                connection.settimeout(10)
                with connection, contextlib.suppress(OSError):  # the client's refusal is the client's to report
                    serve(connection)

            thread = threading.Thread(target=run)
            thread.start()
            stack.callback(thread.join)
            port: int = listener.getsockname()[1]
            return port

        yield begin


def tls_server(pair: Pair, ca: bytes, version: ssl.TLSVersion, answer: Callable[[ssl.SSLSocket], None]) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(pair.cert_file, pair.key_file)
    context.load_verify_locations(cadata=ca.decode())
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            answer(tls)

    return serve


def reply(tls: ssl.SSLSocket) -> None:
    request = tls.recv(65536)
    assert request.startswith(b"GET /version HTTP/1.1\r\nHost: ")
    tls.sendall(ANSWER)


def hold(connection: socket.socket) -> None:
    """Says nothing until the client leaves."""
    while connection.recv(65536):
        pass


def shake(port: int, ca: bytes, pair: Pair | None, *, name: str = "127.0.0.1", deadline: float = 5) -> Handshake:
    return probe(
        lambda left: socket.create_connection(("127.0.0.1", port), timeout=left),
        ca=ca,
        cert=pair.cert_file if pair else None,
        key=pair.key_file if pair else None,
        server_name=name,
        deadline=deadline,
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_accepted(ours: Authority, start: Start, version: ssl.TLSVersion, name: str) -> None:
    port = start(tls_server(ours.member, ours.ca, version, reply))
    result = shake(port, ours.ca, ours.client, name=name)
    leaf = pki.read(ours.member.cert)[0]
    assert result == Handshake(
        outcome="accepted",
        detail="HTTP/1.1 200 OK",
        leaf=leaf.public_bytes(pki.DER),
        serial=leaf.serial_number,
        not_after=leaf.not_valid_after_utc,
        issuer=pki.fingerprint(ours.ca),
        protocol=version.name.replace("_", "."),
    )
    assert result.accepted


REFUSED = {
    "nobody, TLS 1.2": "handshake failure",  # OpenSSL's choice there; Go says bad certificate
    "nobody, TLS 1.3": "certificate required",
    "stranger, TLS 1.2": "unknown ca",
    "stranger, TLS 1.3": "unknown ca",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(ours: Authority, theirs: Authority, start: Start, case: str) -> None:
    version = VERSIONS[1] if case.endswith("1.3") else VERSIONS[0]
    port = start(tls_server(ours.member, ours.ca, version, reply))
    result = shake(port, ours.ca, theirs.client if case.startswith("stranger") else None)
    assert (result.outcome, result.detail, result.accepted) == ("refused", REFUSED[case], False)
    if version is ssl.TLSVersion.TLSv1_3:  # known by then, and worth having
        assert result.serial == pki.read(ours.member.cert)[0].serial_number


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_of_another_ca_or_name_is_untrusted(
    ours: Authority, theirs: Authority, start: Start, version: ssl.TLSVersion
) -> None:
    result = shake(start(tls_server(theirs.member, ours.ca, version, reply)), ours.ca, ours.client)
    assert result.outcome == "untrusted"
    assert "certificate" in result.detail
    result = shake(start(tls_server(ours.member, ours.ca, version, reply)), ours.ca, ours.client, name="10.0.0.1")
    assert result.outcome == "untrusted"
    assert "10.0.0.1" in result.detail


def test_the_issuer_is_found_in_a_bundle(ours: Authority, theirs: Authority, start: Start) -> None:
    bundle = theirs.ca + ours.ca
    result = shake(start(tls_server(ours.member, bundle, VERSIONS[1], reply)), bundle, theirs.client)
    assert (result.outcome, result.issuer) == ("accepted", pki.fingerprint(ours.ca))


@pytest.mark.parametrize("version", VERSIONS)
def test_silence_after_the_handshake_is_a_timeout_and_no_acceptance(
    ours: Authority, start: Start, version: ssl.TLSVersion
) -> None:
    port = start(tls_server(ours.member, ours.ca, version, hold))
    began = time.monotonic()
    result = shake(port, ours.ca, ours.client, deadline=0.4)
    assert (result.outcome, result.accepted) == ("timed out", False)
    assert 0.3 < time.monotonic() - began < 3


def test_silence_from_the_start_is_a_timeout(ours: Authority, start: Start) -> None:
    result = shake(start(hold), ours.ca, ours.client, deadline=0.3)
    assert (result.outcome, result.serial) == ("timed out", None)


def test_a_drip_of_bytes_does_not_outlast_the_deadline(ours: Authority, start: Start) -> None:
    def drip(tls: ssl.SSLSocket) -> None:
        while True:
            tls.sendall(b"H")
            time.sleep(0.05)

    began = time.monotonic()
    assert shake(
        start(tls_server(ours.member, ours.ca, VERSIONS[1], drip)), ours.ca, ours.client, deadline=0.4
    ).outcome == ("timed out")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_hangs_up(ours: Authority, start: Start, version: ssl.TLSVersion) -> None:
    assert shake(start(lambda _: None), ours.ca, ours.client).outcome == "closed"

    def leave(tls: ssl.SSLSocket) -> None:
        tls.recv(65536)

    assert shake(start(tls_server(ours.member, ours.ca, version, leave)), ours.ca, ours.client).outcome == "closed"


def test_what_is_no_http_or_no_tls_is_not_accepted(ours: Authority, start: Start) -> None:
    def babble(tls: ssl.SSLSocket) -> None:
        tls.recv(65536)
        tls.sendall(b"220 mail\r\n")

    result = shake(start(tls_server(ours.member, ours.ca, VERSIONS[1], babble)), ours.ca, ours.client)
    assert (result.outcome, result.detail) == ("closed", "no HTTP answer, but '220 mail'")

    def plain(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    assert shake(start(plain), ours.ca, ours.client).outcome == "closed"


def test_nobody_listens(ours: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = shake(port, ours.ca, ours.client)
    assert (result.outcome, result.detail) == ("unreachable", "connection refused")


def test_our_own_unfit_files_are_named(ours: Authority, tmp_path: Path) -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(CertificateError, match=r"cert\.pem and .*key\.pem"):
        probe(
            lambda _: one,
            ca=ours.ca,
            cert=ours.client.cert_file,
            key=ours.member.key_file,
            server_name="127.0.0.1",
            deadline=1,
        )


class Narrow:
    """A channel that takes and gives a few bytes at a time, as an SSH channel with a small window may."""

    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner

    def settimeout(self, timeout: float) -> None:
        self.inner.settimeout(timeout)

    def send(self, data: bytes) -> int:
        return self.inner.send(data[:7])

    def recv(self, size: int) -> bytes:
        return self.inner.recv(min(size, 7))

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_narrow_channel(ours: Authority, start: Start, version: ssl.TLSVersion) -> None:
    port = start(tls_server(ours.member, ours.ca, version, reply))
    with socket.create_connection(("127.0.0.1", port)) as inner:
        channel: Channel = Narrow(inner)
        cert, key = ours.client.cert_file, ours.client.key_file
        result = handshake(channel, ca=ours.ca, cert=cert, key=key, server_name="127.0.0.1", deadline=5)
    assert result.accepted
