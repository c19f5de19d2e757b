"""A mirror that misbehaves: python mirror.py PORT ROOT [CERTIFICATE KEY]. The first word of a path is its mood.

ROOT holds a release as a good mirror has it. With a certificate it speaks TLS.
"""

from __future__ import annotations

import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, ROOT = int(sys.argv[1]), Path(sys.argv[2])


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        _, mood, *rest = self.path.split("/")
        content = (ROOT / Path(*rest)).read_bytes()
        sums = rest[-1] == "SHA256SUMS"
        if mood == "failing":
            self.answer(503)
        elif mood == "plain" and not sums:
            self.answer(302, location=f"http://127.0.0.1:{PORT + 1}/good/{'/'.join(rest)}")
        elif mood == "html" and sums:
            self.answer(200, b"<!doctype html><title>Sign in</title>")
        elif mood == "lacking" and sums:
            self.answer(200, b"0" * 64 + b"  another.tar.gz\n")
        elif mood == "mismatch" and sums:
            self.answer(200, b"0" * 64 + content[64:])
        elif mood == "cut" and not sums:
            self.answer(200, content[:1000], length=len(content))
        else:
            self.answer(200, content)

    def answer(self, code: int, content: bytes = b"", *, length: int | None = None, location: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)


server = ThreadingHTTPServer(("127.0.0.1", PORT), Mirror)
if sys.argv[3:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[3:])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
