"""A client that must lose nothing: puts every 20 ms through etcd's JSON gateway until SIGTERM, then says how it went.

Stands alone (standard library only), for it runs where the hosts are reachable. One TLS connection is kept alive. A
refused or broken connection, or an answer that is no success, tries the next endpoint; a put that is not acknowledged
within 3 s is a loss. At the end every acknowledged value is read back. Prints one JSON object:
{"acknowledged", "lost", "missing", "longest_gap_ms"}; `writing` on standard error after the first acknowledgement.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

EVERY, PATIENCE, CONNECT, READ_BACK, PAGE = 0.020, 3.0, 1.0, 30.0, 1000  # seconds; keys per page


class Gateway:
    """The endpoints, tried in turn; one connection at a time, kept alive."""

    def __init__(self, endpoints: list[str], context: ssl.SSLContext | None) -> None:
        self.endpoints = endpoints
        self.context = context
        self.connection: http.client.HTTPConnection | None = None

    def call(self, method: str, body: Mapping[str, Any], patience: float) -> dict[str, Any] | None:
        """The answer, or None where nobody gave one in time."""
        deadline = time.monotonic() + patience
        payload = json.dumps(body).encode()
        while (left := deadline - time.monotonic()) > 0:
            answer = self._try(f"/v3/kv/{method}", payload, left)
            if answer is not None:
                return answer
            self._next()
            time.sleep(EVERY)
        return None

    def _try(self, path: str, payload: bytes, left: float) -> dict[str, Any] | None:
        try:
            # A member that is about to stop closes behind its answer, and the socket is gone.
            if self.connection is None or self.connection.sock is None:
                self.connection = self._connect(min(CONNECT, left))
            self.connection.sock.settimeout(left)
            self.connection.request("POST", path, payload)
            response = self.connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: half an answer
            return None
        return answer if response.status == http.client.OK else None

    def _connect(self, patience: float) -> http.client.HTTPConnection:
        url = urlsplit(self.endpoints[0])
        host, port = url.hostname or "", url.port or 2379
        if url.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=patience, context=self.context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=patience)
        connection.connect()
        return connection

    def _next(self) -> None:
        if self.connection:
            self.connection.close()
            self.connection = None
        self.endpoints.append(self.endpoints.pop(0))


class Writer:
    def __init__(self, gateway: Gateway, prefix: str) -> None:
        self.gateway = gateway
        self.prefix = prefix
        self.acknowledged: dict[str, str] = {}
        self.lost = 0
        self.longest_gap = 0.0
        self.stopped = False

    def write(self) -> None:
        number = 0
        last = due = time.monotonic()
        while not self.stopped:
            key, value = f"{self.prefix}{number:09}", f"value {number}"
            body = {"key": encoded(key), "value": encoded(value)}
            if self.gateway.call("put", body, PATIENCE) is None:
                self.lost += 1
            else:
                now = time.monotonic()
                if self.acknowledged:
                    self.longest_gap = max(self.longest_gap, now - last)
                else:
                    print("writing", file=sys.stderr, flush=True)  # noqa: T201 - whoever waits for it reads it
                last = now
                self.acknowledged[key] = value
            number += 1
            due = max(
                due + EVERY, time.monotonic() - EVERY
            )  # what was missed during a pause is not caught up in a burst
            time.sleep(max(0.0, due - time.monotonic()))

    def missing(self) -> int:
        """How many acknowledged values cannot be read back."""
        found: dict[str, str] = {}
        start, end = encoded(self.prefix), encoded(self.prefix[:-1] + chr(ord(self.prefix[-1]) + 1))
        while True:
            answer = self.gateway.call("range", {"key": start, "range_end": end, "limit": PAGE}, READ_BACK)
            rows = (answer or {}).get("kvs", [])
            found.update({decoded(row["key"]): decoded(row.get("value", "")) for row in rows})
            if len(rows) < PAGE:
                return sum(found.get(key) != value for key, value in self.acknowledged.items())
            start = encoded(decoded(rows[-1]["key"]) + "\0")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", required=True, help="https://192.168.1.220:2379,…")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--prefix", default="writer/")
    args = parser.parse_args()
    context = ssl.create_default_context(cafile=args.ca) if args.ca else None
    if context and args.cert:
        context.load_cert_chain(args.cert, args.key)
    writer = Writer(Gateway(args.endpoints.split(","), context), args.prefix)

    def stop(*_: object) -> None:
        writer.stopped = True

    signal.signal(signal.SIGTERM, stop)
    writer.write()
    result = {
        "acknowledged": len(writer.acknowledged),
        "lost": writer.lost,
        "missing": writer.missing(),
        "longest_gap_ms": round(writer.longest_gap * 1000),
    }
    print(json.dumps(result))  # noqa: T201 - this is a program


if __name__ == "__main__":
    main()
