"""A shell on this machine, for nodes that are this machine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

from steps.core.transport import shell_session


class LocalPipe:
    """A shell on this machine, in a session of its own so that Ctrl-C reaches only the controller."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101  Popen was asked for it
        view, end = memoryview(data), time.monotonic() + shell_session.patience(len(data))
        os.set_blocking(self._process.stdin.fileno(), False)
        while view:
            wait = min(shell_session.STALL, max(0, end - time.monotonic()))
            if not select.select([], [self._process.stdin], [], wait)[1]:
                raise TimeoutError(f"nothing was read for {wait:.0f} s")
            view = view[self._process.stdin.write(view) or 0 :]

    def recv(self, timeout: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101  Popen was asked for it
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError
        return os.read(self._process.stdout.fileno(), 1 << 16)

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
