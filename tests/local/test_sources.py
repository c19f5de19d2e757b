"""The release sources against real servers on loopback that misbehave, and the real apt."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import ipaddress
import multiprocessing
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steps.builtin.debian import DebianSource, offered
from steps.builtin.github import GithubSource
from steps.builtin.path import PathSource
from steps.core.base.errors import SourceUnavailable, StepFailed
from steps.core.release import web
from steps.core.release.binaries import own_arch, printed_version
from steps.core.release.releases import Sources, cached, fetch

VERSION = "3.5.16"
FOREIGN = "s390x" if own_arch() != "s390x" else "amd64"  # never run here, so a header is enough
HEADER = b"\x7fELF" + (
    bytes([2, 2, 1]) + bytes(9) + struct.pack(">HH", 2, 22)
    if FOREIGN == "s390x"
    else bytes([2, 1, 1]) + bytes(9) + struct.pack("<HH", 2, 62)
)
NAME = f"etcd-v{VERSION}-linux-{FOREIGN}"
FILE, SUMS = f"/v{VERSION}/{NAME}.tar.gz", f"/v{VERSION}/SHA256SUMS"


def tarball() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name in ("etcd", "etcdctl", "etcdutl"):
            content = HEADER + name.encode() + os.urandom(300_000)
            info = tarfile.TarInfo(f"{NAME}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


TARBALL = tarball()
DIGEST = hashlib.sha256(TARBALL).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; `server.moods[path]` are what the next requests for that path get instead."""

    server: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        moods = self.server.moods.get(self.path, [])
        mood = moods.pop(0) if moods else Handler.serve
        mood(self)

    def do_CONNECT(self) -> None:
        """A proxy: every host is the server at `server.behind`; its login, where it wants one, is bob:s3cret."""
        self.server.requests.append((self.path, dict(self.headers)))
        if self.server.login and self.headers.get("Proxy-Authorization") != "Basic Ym9iOnMzY3JldA==":
            self.send_error(407)
            return
        with socket.create_connection(("127.0.0.1", self.server.behind)) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=pump, args=(upstream, self.connection))
            back.start()
            pump(self.connection, upstream)
            back.join()
        self.close_connection = True

    def serve(self, cut: int | None = None) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == '"one"':
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:cut])
        self.close_connection = cut is not None


class Mirror(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {FILE: TARBALL, SUMS: f"{DIGEST}  {NAME}.tar.gz\n".encode()}
        self.moods: dict[str, list[Callable[[Handler], None]]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.behind, self.login = 0, False

    def handle_error(self, request: object, client_address: object) -> None:
        """The client hung up: it may."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


def pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def running(server: Mirror) -> Iterator[Mirror]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "apt" in request.node.name:
        return  # apt's mirror may be behind it
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running(Mirror()) as server:
        yield server


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def status(code: int) -> Callable[[Handler], None]:
    return lambda handler: handler.send_error(code)


def cut(handler: Handler) -> None:
    handler.serve(cut=len(TARBALL) // 2)


def redirect(target: str) -> Callable[[Handler], None]:
    def mood(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return mood


def drip(handler: Handler) -> None:
    """A byte at a time, for longer than any deadline here."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(TARBALL)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.02)


def get(mirror: Mirror, into: Path, deadline: float = 30, pin: str = "") -> dict[str, Path]:
    release = GithubSource(mirror.url, {FOREIGN: pin} if pin else {}).fetch(VERSION, FOREIGN, into, deadline)
    assert sorted(path.name for path in into.iterdir()) == sorted(release.binaries)
    return dict(release.binaries)


def test_a_release_is_fetched_and_its_progress_told(mirror: Mirror, into: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    release = GithubSource(f"{mirror.url}/", progress=lambda *step: seen.append(step)).fetch(VERSION, FOREIGN, into, 30)
    assert [*release.binaries] == ["etcd", "etcdctl", "etcdutl"]
    assert (release.origin, release.tarball) == (f"{mirror.url}{FILE}", DIGEST)
    assert release.verified_by == f"{mirror.url}{SUMS}"
    assert seen[-1] == (len(TARBALL), len(TARBALL))
    assert seen == sorted(seen)


def test_with_a_pin_sha256sums_is_not_asked(mirror: Mirror, into: Path) -> None:
    get(mirror, into, pin=DIGEST.upper())
    assert mirror.paths() == [FILE]


def test_404_names_url_and_version_and_is_not_repeated(mirror: Mirror, into: Path) -> None:
    with pytest.raises(SourceUnavailable, match=f"github: {mirror.url}/v3.5.99/SHA256SUMS: HTTP 404"):
        GithubSource(mirror.url).fetch("3.5.99", FOREIGN, into, 30)
    assert len(mirror.requests) == 1


def test_500_is_tried_again(mirror: Mirror, into: Path) -> None:
    mirror.moods = {FILE: [status(500), status(503)], SUMS: [status(502)]}
    get(mirror, into)
    assert mirror.paths() == [SUMS, SUMS, FILE, FILE, FILE]


def test_500_for_ever_ends_at_the_deadline(mirror: Mirror, into: Path) -> None:
    mirror.moods[FILE] = [status(500)] * 1000
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"gave up after \d attempts in 1\.\d s: HTTP 500"):
        get(mirror, into, deadline=1.5)
    assert time.monotonic() - began < 4
    assert not [*into.iterdir()]


def test_a_slow_body_ends_at_the_deadline(mirror: Mirror, into: Path) -> None:
    mirror.moods[FILE] = [drip] * 10
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"gave up after 1 attempt .* bytes came in time"):
        get(mirror, into, deadline=1)
    assert time.monotonic() - began < 3
    assert not [*into.iterdir()]


@contextlib.contextmanager
def dribbling(start: bytes, more: bytes) -> Iterator[int]:
    """A server that says `start` and then a byte of `more` now and then, for longer than any deadline here."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(start)
            for _ in range(300):
                connection.sendall(more)
                time.sleep(0.05)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("scheme", "start", "more"),
    [
        ("http", b"HTTP/1.1 200 ", b"x"),
        ("http", OK + b"X-Header: ", b"x"),
        ("http", OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: /", b"x"),
        ("https", b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb", b"\x03"),
    ],
    ids=["status line", "header", "chunk's size", "redirect", "TLS handshake"],
)
def test_a_server_that_dribbles_ends_at_the_deadline(into: Path, scheme: str, start: bytes, more: bytes) -> None:
    with dribbling(start, more) as port:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="github: ") as caught:
            GithubSource(f"{scheme}://127.0.0.1:{port}").fetch(VERSION, FOREIGN, into, 1)
    assert time.monotonic() - began < 3
    assert scheme == "https" or " bytes came in time" in caught.value.message
    assert not [*into.iterdir()]


def test_a_proxy_that_dribbles_ends_at_the_deadline(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dribbling(b"HTTP/1.1 200 ", b"x") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="github: "):
            GithubSource("https://mirror.invalid").fetch(VERSION, FOREIGN, into, 1)
    assert time.monotonic() - began < 3


def test_a_silent_server_ends_at_the_deadline(into: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="no byte within 1 s"):
            GithubSource(f"http://127.0.0.1:{silent.getsockname()[1]}").fetch(VERSION, FOREIGN, into, 1)
    assert time.monotonic() - began < 4


def test_a_cut_body_is_resumed(mirror: Mirror, into: Path) -> None:
    mirror.moods[FILE] = [cut]
    get(mirror, into)
    ranges = [headers.get("Range") for path, headers in mirror.requests if path == FILE]
    assert ranges == [None, f"bytes={len(TARBALL) // 2}-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(mirror: Mirror, into: Path) -> None:
    def cut_old(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"old"')
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"old" * 100)
        handler.close_connection = True

    mirror.moods[FILE] = [cut_old]
    get(mirror, into)
    assert mirror.requests[-1][1]["If-Range"] == '"old"'


def test_a_body_that_is_always_cut_leaves_nothing(mirror: Mirror, into: Path) -> None:
    def always(handler: Handler) -> None:
        handler.headers.replace_header("Range", "") if "Range" in handler.headers else None
        cut(handler)

    mirror.moods[FILE] = [always] * 1000
    with pytest.raises(SourceUnavailable, match="the connection broke after"):
        get(mirror, into, deadline=2)
    assert not [*into.iterdir()]


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (b"<!DOCTYPE html><html>please log in</html>", "no list of SHA-256 digests.*DOCTYPE"),
        (f"{DIGEST}  etcd-v{VERSION}-darwin-amd64.zip\n".encode(), f"lacks {NAME}.tar.gz"),
        (f"{'0' * 64}  {NAME}.tar.gz\n".encode(), f"expected sha256 {'0' * 64}\n    found    sha256 {DIGEST}"),
    ],
    ids=["html", "lacks", "mismatch"],
)
def test_what_cannot_be_verified_stops_the_search_and_is_not_cached(
    mirror: Mirror, tmp_path: Path, sums: bytes, message: str
) -> None:
    mirror.files[SUMS] = sums
    sources: Sources = [("github", GithubSource(mirror.url)), ("path", PathSource())]
    said: list[str] = []
    with pytest.raises(StepFailed, match=message):
        fetch(sources, VERSION, FOREIGN, cache=tmp_path / "cache", pin=None, deadline=30, say=said.append)
    assert (said, [path.suffix for path in (tmp_path / "cache").iterdir()]) == ([], [".lock"])


def test_a_body_without_end_is_cut(mirror: Mirror, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steps.builtin.github.MAX_TARBALL", 1000)
    with pytest.raises(StepFailed, match="larger than 1000 bytes"):
        get(mirror, into)
    assert not [*into.iterdir()]


def test_a_redirect_on_this_machine_is_followed(mirror: Mirror, into: Path) -> None:
    mirror.moods[FILE] = [redirect("/elsewhere?signature=s3cret")]
    mirror.files["/elsewhere?signature=s3cret"] = TARBALL
    get(mirror, into)


def test_redirects_in_a_circle_end(mirror: Mirror, into: Path) -> None:
    mirror.moods[FILE] = [redirect(FILE)] * 100
    with pytest.raises(SourceUnavailable, match="more than 5 redirects"):
        get(mirror, into)


def test_plain_http_beyond_this_machine_is_refused(mirror: Mirror, into: Path) -> None:
    mirror.moods[FILE] = [redirect("http://bob:s3cret@mirror.invalid/x")]
    with pytest.raises(StepFailed, match=r"refused http://\*\*\*@mirror.invalid/x: only https"):
        get(mirror, into)


def test_unreachable_is_said_at_once_in_one_line(into: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(SourceUnavailable) as caught:
        GithubSource(f"http://127.0.0.1:{port}").fetch(VERSION, FOREIGN, into, 60)
    assert caught.value.message == f"github: cannot reach 127.0.0.1:{port}: Connection refused"
    assert time.monotonic() - began < 3


def test_an_unknown_host_is_said_in_one_line(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SourceUnavailable) as caught:
        GithubSource("https://mirror.invalid/x").fetch(VERSION, FOREIGN, into, 60)
    assert caught.value.message == (
        "github: cannot reach mirror.invalid: Name or service not known; behind a proxy, set HTTPS_PROXY"
    )


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror with a certificate for mirror.invalid and 127.0.0.1 that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mirror")])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("mirror.invalid"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "cert.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Mirror()
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with running(server):
        yield server


def test_https_serves_and_a_redirect_to_http_is_refused(tls: Mirror, mirror: Mirror, into: Path) -> None:
    source = GithubSource(f"https://127.0.0.1:{tls.server_port}")
    tls.moods[FILE] = [redirect(f"{mirror.url}{FILE}?signature=s3cret")]
    with pytest.raises(StepFailed, match=r"refused the redirect from https.* to http://127.*: not https") as caught:
        source.fetch(VERSION, FOREIGN, into, 30)
    assert "s3cret" not in caught.value.message
    assert (mirror.requests, [*into.iterdir()]) == ([], [])
    assert source.fetch(VERSION, FOREIGN, into, 30).tarball == DIGEST


def test_an_untrusted_certificate_is_named(tls: Mirror, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    with pytest.raises(SourceUnavailable, match="certificate is not trusted"):
        GithubSource(f"https://127.0.0.1:{tls.server_port}").fetch(VERSION, FOREIGN, into, 30)


def test_the_proxy_is_used_with_its_login(
    tls: Mirror, mirror: Mirror, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.behind, mirror.login = tls.server_port, True
    monkeypatch.setenv("HTTPS_PROXY", f"http://bob:s3cret@127.0.0.1:{mirror.server_port}")
    assert GithubSource("https://mirror.invalid").fetch(VERSION, FOREIGN, into, 30).tarball == DIGEST
    assert {*mirror.paths()} == {"mirror.invalid:443"}


@pytest.mark.parametrize("how", ["login", "down", "no scheme", "an @ in it", "socks"])
def test_a_proxy_that_does_not_serve_is_named_without_its_login(
    mirror: Mirror, into: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.login = True
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    proxy, message = {
        "login": (f"http://bob:wr0ng@127.0.0.1:{mirror.server_port}", "407"),
        "down": (f"http://bob:wr0ng@127.0.0.1:{closed}", "Connection refused"),
        "no scheme": (f"bob:wr0ng@127.0.0.1:{closed}", "Connection refused"),
        "an @ in it": (f"http://bob:x@wr0ng@127.0.0.1:{closed}", "Connection refused"),
        "socks": ("socks5://bob:wr0ng@127.0.0.1:1", "neither http nor https"),
    }[how]
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SourceUnavailable, match=rf"HTTPS_PROXY \((\w+://)?\*\*\*@127.*{message}") as caught:
        GithubSource("https://mirror.invalid").fetch(VERSION, FOREIGN, into, 5)
    assert "wr0ng" not in caught.value.message
    assert "\n" not in caught.value.message


def fetch_in_another_process(url: str, cache: Path) -> None:
    fetch([("github", GithubSource(url))], VERSION, FOREIGN, cache=cache, pin=None, deadline=30, say=print)


def test_two_processes_fetch_once(mirror: Mirror, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=fetch_in_another_process, args=(mirror.url, tmp_path / "cache")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert mirror.paths() == [SUMS, FILE]


def test_a_killed_fetch_is_taken_up_by_the_next(mirror: Mirror, tmp_path: Path) -> None:
    reached = threading.Event()

    def hang(handler: Handler) -> None:
        reached.set()
        drip(handler)

    mirror.moods[FILE] = [hang]
    cache = tmp_path / "cache"
    process = multiprocessing.get_context("spawn").Process(target=fetch_in_another_process, args=(mirror.url, cache))
    process.start()
    assert reached.wait(30)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert [*cache.glob(".*.new/0")]
    sources = [("github", GithubSource(mirror.url))]
    assert cached(sources, VERSION, FOREIGN, cache=cache, pin=None) is None
    fetch(sources, VERSION, FOREIGN, cache=cache, pin=None, deadline=30, say=print)
    assert [path.name.rpartition("-")[0] for path in cache.iterdir() if path.suffix != ".lock"] == [NAME]


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """apt's private state, and the version that trixie offers."""
    if not shutil.which("apt-get"):
        pytest.skip("this machine has no apt-get")
    state = tmp_path_factory.mktemp("apt")
    try:
        return state, offered("trixie", own_arch(), state, 120)
    except SourceUnavailable as error:
        if re.search(
            "not configured for Debian's archive|resolv|ould not connect|timed out|unreachable", error.message
        ):
            pytest.skip(error.message)
        raise


def test_apt_serves_real_binaries_then_found_on_the_path(
    apt: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, version = apt
    debian = ("debian", DebianSource("trixie", state))
    staged = fetch([debian], version, own_arch(), cache=tmp_path / "cache", pin=None, deadline=120, say=print)
    assert {*staged.binaries} >= {"etcd", "etcdctl"}
    assert printed_version(staged.binaries["etcd"].path) == version
    assert "trixie" in staged.origin
    installed = tmp_path / "installed"
    installed.mkdir()
    for name, blob in staged.binaries.items():
        shutil.copy(blob.path, installed / name)
    monkeypatch.setenv("PATH", str(installed))
    monkeypatch.setenv("ETCD_NAME", "not to be read")
    into = tmp_path / "into"
    into.mkdir()
    found = PathSource(search_path=True).fetch(version, own_arch(), into, 30)
    assert {*found.binaries} == {*staged.binaries}
    with pytest.raises(SourceUnavailable, match=rf"etcd is {version}, not 3\.5\.99"):
        PathSource(search_path=True).fetch("3.5.99", own_arch(), into, 30)
    with pytest.raises(SourceUnavailable, match="not for"):
        PathSource(search_path=True).fetch(version, FOREIGN, into, 30)


def test_apt_serves_another_architecture(apt: tuple[Path, str], tmp_path: Path) -> None:
    state, version = apt
    other = "arm64" if own_arch() != "arm64" else "amd64"
    debian = ("debian", DebianSource("trixie", state))
    staged = fetch([debian], version, other, cache=tmp_path / "cache", pin=None, deadline=120, say=print)
    assert (staged.arch, staged.verified_by) == (other, "apt (the archive's signature)")


def test_apt_s_suite_with_another_version_says_which(apt: tuple[Path, str], into: Path) -> None:
    state, version = apt
    with pytest.raises(SourceUnavailable, match=rf"^debian: trixie has {version}, not 3\.5\.99$"):
        DebianSource("trixie", state).fetch("3.5.99", own_arch(), into, 120)


def test_apt_s_unknown_suite_is_said(apt: tuple[Path, str], into: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"^debian: apt-get: .*nosuchsuite"):
        DebianSource("nosuchsuite", apt[0]).fetch(VERSION, own_arch(), into, 120)


def test_apt_that_is_not_done_in_time_is_stopped(apt: tuple[Path, str], tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="was not done in"):
        offered("trixie", own_arch(), tmp_path / "fresh", 0.3)
    assert time.monotonic() - began < 5


def test_loopback_is_what_it_says() -> None:
    assert [web.loopback(host) for host in ("127.0.0.1", "::1", "localhost", "10.0.0.1", "mirror.test")] == [
        True,
        True,
        True,
        False,
        False,
    ]
