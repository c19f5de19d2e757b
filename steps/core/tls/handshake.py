"""Real TLS handshakes over any byte channel: a socket here, or a port at the far end of an SSH connection.

In TLS 1.3 the server judges the client's certificate only after the client thinks that the handshake is done (RFC 8446,
section 4.4.2.4); so nothing counts as accepted before the server has answered a request.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from steps.core.base.errors import CertificateError

T = TypeVar("T")
Outcome = Literal["accepted", "refused", "untrusted", "timed out", "closed", "unreachable", "not checked"]
_CHUNK = 65536


class Channel(Protocol):
    """What sockets and paramiko's channels share. After `settimeout` both raise TimeoutError."""

    def settimeout(self, timeout: float, /) -> None: ...
    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Handshake:
    """What came of one handshake.

    `outcome`: accepted (an HTTP answer came) · refused (the server sent a TLS alert) · untrusted (the server's
    certificate is not by our CA, or not for that name) · timed out · closed (the connection ended without an answer or
    an alert) · unreachable (there was no connection) · not checked (nobody could try). `detail`: the status line, the
    alert's name ("certificate required"), or what was wrong.
    `leaf` is the server's certificate (DER), `issuer` the fingerprint of the certificate of ours that signed it.
    """

    outcome: Outcome
    detail: str
    leaf: bytes | None = None
    serial: int | None = None
    not_after: datetime | None = None
    issuer: str | None = None
    protocol: str | None = None

    @property
    def accepted(self) -> bool:
        return self.outcome == "accepted"


def probe(
    connect: Callable[[float], Channel],
    *,
    ca: bytes,
    cert: Path | None,
    key: Path | None,
    server_name: str,
    deadline: float,
) -> Handshake:
    """Opens a channel with `connect(seconds left)`, shakes hands over it and closes it; OSError means unreachable."""
    until = time.monotonic() + deadline
    try:
        channel = connect(deadline)
    except TimeoutError:
        return Handshake("timed out", "no connection")
    except OSError as error:
        return Handshake("unreachable", (error.strerror or str(error)).lower())
    with closing(channel):
        left = until - time.monotonic()
        return handshake(channel, ca=ca, cert=cert, key=key, server_name=server_name, deadline=left)


def handshake(
    channel: Channel, *, ca: bytes, cert: Path | None, key: Path | None, server_name: str, deadline: float
) -> Handshake:
    """One handshake, and one `GET /version` over it, in at most `deadline` seconds. The channel is left open.

    `ca`: the trusted certificates, PEM. `cert`, `key`: our pair's files, or None to come without. `server_name`: the
    IP address or DNS name that the server's certificate must be for. Raises CertificateError where our own files are
    unfit.
    """
    wire = _Wire(channel, _context(ca, cert, key), server_name, time.monotonic() + deadline)
    try:
        wire.shake()
        wire.drive(lambda: wire.tls.write(_request(server_name)))
        line = wire.status_line()
    except TimeoutError:
        return wire.result("timed out", f"no answer within {deadline:g} s", ca)
    except OSError as error:  # ssl's own errors are OSErrors too
        return wire.result(*_verdict(error), ca)
    if not line.startswith("HTTP/"):
        return wire.result("closed", f"no HTTP answer, but {line[:80]!r}", ca)
    return wire.result("accepted", line, ca)


def _verdict(error: OSError) -> tuple[Outcome, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "untrusted", error.verify_message
    if isinstance(error, ssl.SSLEOFError):
        return "closed", "by the server, without a TLS alert"
    if isinstance(error, ssl.SSLError) and (alert := _alert(error)):
        return "refused", alert
    return "closed", (error.strerror or str(error)).lower()


class _Wire:
    """A TLS client in memory, and the channel that its bytes go over."""

    def __init__(self, channel: Channel, context: ssl.SSLContext, server_name: str, until: float) -> None:
        self.channel = channel
        self.until = until
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.leaf: bytes | None = None
        self.protocol: str | None = None
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)

    def shake(self) -> None:
        self.drive(self.tls.do_handshake)
        self.leaf = self.tls.getpeercert(binary_form=True)  # now: after an alert, ssl no longer tells
        self.protocol = self.tls.version()

    def drive(self, operation: Callable[[], T]) -> T:
        """Runs one TLS operation, moving bytes both ways until it is done."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                self._flush()  # our own alert: the server logs why we left
                raise
            else:
                self._flush()
                return result

    def status_line(self) -> str:
        """The answer's first line; ends early where the server does. Raises SSLEOFError if not one byte came."""
        answer = b""
        while b"\n" not in answer and len(answer) < _CHUNK:
            try:
                data = self.drive(lambda: self.tls.read(_CHUNK))
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                break
            answer += data
        if not answer:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "closed")
        return answer.split(b"\n", 1)[0].decode("latin-1").strip()

    def result(self, outcome: Outcome, detail: str, ca: bytes) -> Handshake:
        from steps.core.tls import pki, validate

        if self.leaf is None:  # the handshake did not come that far
            return Handshake(outcome, detail)
        certificate = pki.read(ssl.DER_cert_to_PEM_cert(self.leaf).encode())[0]
        issuers = [pki.fingerprint(c) for c in pki.read(ca) if validate.directly_issued(certificate, c)]
        return Handshake(
            outcome,
            detail,
            leaf=self.leaf,
            serial=certificate.serial_number,
            not_after=certificate.not_valid_after_utc,
            issuer=issuers[0] if issuers else None,
            protocol=self.protocol,
        )

    def _flush(self) -> None:
        data = self.outgoing.read()
        while data:
            self._wait()
            try:
                sent = self.channel.send(data)
            except ConnectionError:
                return  # the server left: what it said before that is still to be read
            if sent == 0:
                return
            data = data[sent:]

    def _receive(self) -> None:
        self._wait()
        if data := self.channel.recv(_CHUNK):
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def _wait(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.channel.settimeout(left)


def _context(ca: bytes, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go: an intermediate in the trust file is trusted
    try:
        context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
    except ssl.SSLError as error:
        raise CertificateError("CA", [str(error)]) from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"{cert} and {key}", [str(error)]) from None
    return context


def _request(server_name: str) -> bytes:
    try:
        host = f"[{server_name}]" if ipaddress.ip_address(server_name).version == 6 else server_name  # noqa: PLR2004 - IPv6
    except ValueError:
        host = server_name
    return f"GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def _alert(error: ssl.SSLError) -> str:
    """The alert's name, empty where the error is none: SSLV3_ALERT_BAD_CERTIFICATE → bad certificate."""
    _, found, name = (error.reason or "").partition("_ALERT_")
    return name.replace("_", " ").lower() if found else ""
