"""One file over HTTP: through the proxy of the environment, resumed, retried, and never past its deadline for long."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import proxy_bypass

import urllib3
from urllib3 import exceptions as broken

from steps.core.base.errors import SourceUnavailable, StepFailed
from steps.core.base.urls import apart, loopback, masked_url, shown

CONNECT, READ = 10.0, 10.0  # seconds for one connection and for one wait for bytes
FAILURES = 5  # in a row without one new byte
GRACE = 0.25  # seconds behind the deadline, in which a wait's own limit may end it and say more
PAUSE = 8.0  # seconds, the longest between two attempts
REDIRECTS = 5
CHUNK = 1 << 16
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_MOVED = {301, 302, 303, 307, 308}
_GONE = {404, 410}


class _Again(Exception):
    """This attempt failed; another one may not."""


def proxy_for(url: str) -> tuple[str, str]:
    """The environment variable that names a proxy for this URL, and its value; two empty strings where there is none.

    As curl does: lower case first, then upper case, then ALL_PROXY, unless NO_PROXY exempts the host; loopback never.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if loopback(host) or proxy_bypass(host):
        return "", ""
    names = [f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"]
    return next(((name, os.environ[name]) for name in names if os.environ.get(name)), ("", ""))


def _with_scheme(proxy: str) -> str:
    """Return a proxy's URL: the environment may name one without a scheme."""
    return proxy if "//" in proxy else f"http://{proxy}"


def download(
    url: str,
    to: Path,
    *,
    who: str,
    deadline: float,
    limit: int,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Writes what `url` serves into the file `to`, at most `limit` bytes, within `deadline` seconds in all.

    One wait for bytes may outlive the deadline by READ seconds at most. What a broken attempt left in `to` is resumed
    by the next one; a file left after an error is the caller's to remove. Raises SourceUnavailable, in one line that
    begins with `who`, where the server cannot be reached, has no such file or keeps failing; StepFailed where going
    on would be unsafe (a redirect to plain http, more bytes than `limit`).
    """
    _Download(url, to, who, time.monotonic(), deadline, limit, progress).run()


@dataclass
class _Download:
    url: str
    to: Path
    who: str
    began: float
    deadline: float
    limit: int
    progress: Callable[[int, int | None], None] | None
    done: int = 0
    attempts: int = 0
    met: bool = False  # a server answered: from now on, trouble is worth another attempt
    validator: str = ""
    pools: dict[str, urllib3.PoolManager] = field(default_factory=dict)
    opened: list[socket.socket] = field(default_factory=list)  # what _cut ends
    over: bool = False

    @property
    def left(self) -> float:
        return self.began + self.deadline - time.monotonic()

    def unavailable(self, cause: str) -> SourceUnavailable:
        return SourceUnavailable(f"{self.who}: {cause}")

    def run(self) -> None:
        # Every single wait has its own limit; that a byte now and then makes no end of them, the clock sees to.
        watch = Timer(max(self.left, 0) + GRACE, self._cut)
        watch.daemon = True
        watch.start()
        try:
            self._attempts()
        finally:
            watch.cancel()
            watch.join()
            for sock in self.opened:
                sock.close()
            for pool in self.pools.values():
                pool.clear()

    def _cut(self) -> None:
        self.over = True
        for sock in [*self.opened]:
            with contextlib.suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)

    def _attempts(self) -> None:
        failures, cause = 0, "no time left"
        while self.left > 0 and failures < FAILURES:
            before = self.done
            self.attempts += 1
            try:
                self._attempt()
            except (_Again, broken.HTTPError) as error:
                slow = self.over and not isinstance(error, _Again)
                cause = f"{self.done} bytes came in time" if slow else self._cause(error)
            else:
                return
            failures = 0 if self.done > before else failures + 1
            time.sleep(max(0, min(0.25 * 2**failures, PAUSE, self.left)))
        spent = time.monotonic() - self.began
        tries = f"{self.attempts} attempt{'s' if self.attempts != 1 else ''}"
        raise self.unavailable(f"{shown(self.url)}: gave up after {tries} in {spent:.1f} s: {cause}")

    def _attempt(self) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": "etcd-steps"}
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if self.validator:
                headers["If-Range"] = self.validator
        response = self._open(headers)
        try:
            self._judge(response)
            self._receive(response)
        finally:
            response.close()

    def _open(self, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        url = self.url
        for _ in range(REDIRECTS):
            if urlsplit(url).scheme != "https" and not loopback(urlsplit(url).hostname or ""):
                raise StepFailed(f"{self.who}: refused {shown(url)}: only https is safe beyond this machine")
            response = self._request(url, headers)
            self.met = True
            if response.status not in _MOVED:
                return response
            response.close()
            target = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise StepFailed(f"{self.who}: refused the redirect from {shown(url)} to {shown(target)}: not https")
            url = target
        raise self.unavailable(f"{shown(self.url)}: more than {REDIRECTS} redirects")

    def _request(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        variable, proxy = proxy_for(url)
        pool = self._pool(variable, proxy)
        left = max(self.left, 0.1)
        timeout = urllib3.Timeout(connect=min(CONNECT, left), read=min(READ, left))
        try:
            return pool.request(
                "GET", url, headers=headers, redirect=False, retries=False, preload_content=False, timeout=timeout
            )
        except broken.ProxyError as error:
            cause = f"the proxy of {variable} ({masked_url(_with_scheme(proxy))}) does not serve: {_reason(error)}"
            raise self.unavailable(cause) from error
        except (broken.NewConnectionError, broken.ConnectTimeoutError, broken.SSLError) as error:
            certificate = isinstance(_root(error), ssl.SSLCertVerificationError)
            if self.met and not certificate:
                raise
            hint = "" if variable or loopback(urlsplit(url).hostname or "") else "; behind a proxy, set HTTPS_PROXY"
            raise self.unavailable(f"cannot reach {urlsplit(apart(url)[0]).netloc}: {_reason(error)}{hint}") from error

    def _pool(self, variable: str, proxy: str) -> urllib3.PoolManager:
        if proxy not in self.pools:
            pool = self._proxied(variable, proxy) if proxy else urllib3.PoolManager()
            pool.pool_classes_by_scheme = {
                scheme: self._watched(kind) for scheme, kind in pool.pool_classes_by_scheme.items()
            }
            self.pools[proxy] = pool
        return self.pools[proxy]

    def _watched(self, kind: type[urllib3.HTTPConnectionPool]) -> type[urllib3.HTTPConnectionPool]:
        """The same pool, of connections that `_cut` ends: before TLS, for a handshake can be slow, too."""
        download, connection = self, kind.ConnectionCls

        class Connection(connection):  # type: ignore[misc, valid-type]  # decided by the scheme
            def _new_conn(self) -> socket.socket:
                sock: socket.socket = super()._new_conn()
                download.opened.append(sock.dup())  # TLS takes the socket itself over
                if download.over:
                    sock.close()
                    raise broken.ConnectTimeoutError(self, "no time left")
                return sock

            def _tunnel(self) -> None:
                super()._tunnel()
                if download.over:  # what was cut off may read as a proxy's whole answer
                    raise TimeoutError("no time left")

        return type(kind.__name__, (kind,), {"ConnectionCls": Connection})

    def _proxied(self, variable: str, proxy: str) -> urllib3.PoolManager:
        url, login = apart(_with_scheme(proxy))
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            shown_proxy = masked_url(_with_scheme(proxy))
            raise self.unavailable(f"the proxy of {variable} ({shown_proxy}) is neither http nor https")
        user, _, password = login.partition(":")
        basic = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        return urllib3.ProxyManager(url, proxy_headers={"Proxy-Authorization": f"Basic {basic}"} if user else None)

    def _judge(self, response: urllib3.BaseHTTPResponse) -> None:
        """Lets a response with content through, and puts `done` where that content begins."""
        status = response.status
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if status == 206 and start and int(start[1]) == self.done:  # noqa: PLR2004 - Partial Content
            return
        self.done = 0 if status in {200, 206, 416} else self.done
        if status == 200:  # noqa: PLR2004 - OK
            return
        if status in _AGAIN or status in {206, 416}:
            raise _Again(f"HTTP {status}")
        words = {407: "the proxy wants a login: put it into HTTPS_PROXY"}
        if status in _GONE:
            raise self.unavailable(f"{shown(self.url)}: HTTP {status}, there is no such file")
        raise self.unavailable(f"{shown(self.url)}: HTTP {status}{': ' + words[status] if status in words else ''}")

    def _receive(self, response: urllib3.BaseHTTPResponse) -> None:
        tag = response.headers.get("ETag", "")
        self.validator = response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
        length = response.headers.get("Content-Length", "")
        total = self.done + int(length) if length.isdigit() else None
        with self.to.open("ab" if self.done else "wb") as file:
            while chunk := response.read1(CHUNK):
                self.done += len(chunk)
                if self.done > self.limit:
                    raise StepFailed(f"{self.who}: {shown(self.url)} is larger than {self.limit} bytes")
                file.write(chunk)
                if self.progress:
                    self.progress(self.done, total)
                if self.left <= 0:
                    raise _Again(f"{self.done} of {total or 'unknown'} bytes came in time")
        if self.over and self.done != total:
            raise _Again(f"{self.done} bytes came in time")

    def _cause(self, error: Exception) -> str:
        if isinstance(error, broken.ReadTimeoutError):
            return f"no byte within {min(READ, self.deadline):.0f} s"
        if isinstance(error, broken.IncompleteRead | broken.ProtocolError):
            return f"the connection broke after {self.done} bytes"
        return _reason(error)


def _root(error: BaseException) -> BaseException:
    """The system's own error under urllib3's, which keeps it in one of three places."""
    inner = [getattr(error, "original_error", None), error.__cause__, *error.args]
    found = next((cause for cause in inner if isinstance(cause, Exception)), None)
    return _root(found) if found else error


def _reason(error: BaseException) -> str:
    cause = _root(error)
    if isinstance(cause, TimeoutError | broken.TimeoutError):
        return "no answer"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    return getattr(cause, "strerror", None) or str(cause)
