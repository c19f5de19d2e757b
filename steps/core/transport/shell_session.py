"""One shell on a node for the whole command line: scripts go in, framed results come out, the node's lock is its own.

The shell is started once per node. It takes the node's lock (an flock that lives exactly as long as the shell and what
it started), then runs one script after another. A script reaches it through stdin, never through argv; what follows the
script on stdin is the script's payload.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from steps.core.base.frames import decoded, head
from steps.core.base.shell import text
from steps.core.transport.node_lock import Lock

STALL = 30  # seconds without one byte taken by the other side while sending
SLOWEST = 8192  # bytes a second that the other side takes, on average; who takes less does not want them
LAST_WORDS = 10  # seconds for what a script still says that takes nothing any more
MAX_SAID = 16 << 20  # bytes that a script says to us; a look at a node has some 50 KB

SUDO_PROMPT = "etcd-steps asks for sudo's password"  # our own, for sudo's speaks the host's language
_SHELL = text(__file__, "session.sh")


def shell_command(lock: Lock | None) -> str:
    """The text that `sh -c` gets on the node; without a lock it only reads."""
    return (lock.script if lock else "") + _SHELL


Sent = Callable[[int, int | None], None]  # bytes done, bytes in all (None: not known here)


@dataclass
class Sink:
    """A file for what a script prints, and the most bytes that it may get."""

    file: BinaryIO
    limit: int
    written: int = 0


def patience(size: int) -> float:
    """Return the seconds within which the other side takes so many bytes, or does not want them."""
    return STALL + size / SLOWEST


class Pipe(Protocol):
    """A running shell's stdin and stdout (stderr merged)."""

    def send(self, data: bytes) -> None:
        """Raise OSError where the other side takes nothing for STALL seconds, or not all in time (`patience`)."""
        ...

    def recv(self, timeout: float) -> bytes:
        """Some bytes, b"" at the end. Raises TimeoutError."""
        ...

    def close(self) -> None: ...


class SessionError(Exception):
    """The shell ended, hung or never came; the message says which, in the remote side's words where there are any."""


@dataclass(frozen=True)
class Result:
    """What a script left: its exit code, its stdout and its stderr."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


class NotReady(SessionError):
    """The shell never was ready: it got no script."""


class Session:
    """A shell, which takes the first script before it has said that it is ready. Not for two threads at once."""

    def __init__(self, pipe: Pipe, *, password: str | None = None, deadline: float = 20) -> None:
        """`deadline`: seconds for the shell to become ready; `password`: what sudo may ask for before."""
        self._pipe = pipe
        self.closed = False
        self._ready = False
        self._password = password
        self._patience = deadline
        self._buffer = b""
        self._token = b"steps-" + os.urandom(8).hex().encode()

    def run(
        self,
        script: str,
        payload: Iterable[bytes] = (),
        *,
        deadline: float,
        sent: Sent | None = None,
        sink: Sink | None = None,
    ) -> Result:
        """Runs `script` with `payload` on its stdin; `sent` hears how many bytes are sent, `sink` gets what it prints.

        `deadline`: seconds for the result, by the clock, whatever comes meanwhile. Before that, what is sent must be
        taken: STALL seconds may pass without a byte, and SLOWEST is the least on average.
        A script that fails ends the session, for what it left of its payload is nobody's. Raises SessionError, and
        NotReady where the shell does not come to its first script.
        """
        text = script.encode()
        broken: OSError | None = None
        try:
            (self._pipe.send if self._ready else self._begin)(b"%d\n%s" % (len(text), text))
            done, begun = 0, time.monotonic()
            for chunk in payload:
                self._pipe.send(chunk)
                done += len(chunk)
                if (took := time.monotonic() - begun) > patience(done):
                    raise TimeoutError(f"only {done} bytes were taken in {took:.0f} s")
                if sent:
                    sent(done, None)
        except OSError as error:
            # The script may have failed before it read its payload: its own words say more than the broken pipe.
            broken = error
        end = time.monotonic() + (deadline if broken is None else min(deadline, LAST_WORDS))
        try:
            out = self._until(b"\n" + self._token + b" ", end, sink)
        except SessionError as error:
            raise SessionError(str(error) if broken is None else f"{error} ({broken})") from broken
        code, size = self._end(end)
        while len(self._buffer) < size:
            self._fill(end)
        err, self._buffer = self._buffer[:size], self._buffer[size:]
        if code != 0:
            self.close()
        return Result(code, decoded(out), err.decode(errors="replace"))

    def close(self) -> None:
        self.closed = True
        self._pipe.close()

    def _end(self, end: float) -> tuple[int, int]:
        """Return a script's exit code, and the size of its stderr, from the frame behind what it printed."""
        found = head(decoded(self._until(b"\n", end)))
        if found is None or len(found.words) != 1 or not re.fullmatch("[0-9]{1,3}", found.words[0]):
            raise self._ended("the answer has no end that makes sense")
        return int(found.words[0]), found.size

    def _begin(self, first: bytes) -> None:
        """Sends the first script without waiting for the shell, but never to sudo, which may ask for a password."""
        end = time.monotonic() + self._patience
        try:
            if self._password is not None:
                self._answer(self._password, end)
            with suppress(OSError):  # what the shell said before it ended says more than the broken pipe
                self._pipe.send(self._token + b"\n" + first)
            self._until(b"ready\n", end)
        except SessionError as error:
            self.close()
            raise NotReady(str(error)) from error
        self._ready = True

    def _answer(self, password: str, end: float) -> None:
        """Gives sudo the password when it asks, once: to be asked again means that it was wrong."""
        asked = 0
        while b"ready\n" not in self._buffer:
            self._fill(end)
            if self._buffer.count(SUDO_PROMPT.encode()) > asked:
                asked += 1
                if asked > 1:
                    raise SessionError("sudo did not take the password")
                self._pipe.send(password.encode() + b"\n")

    def _until(self, mark: bytes, end: float, sink: Sink | None = None) -> bytes:
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark))
            if sink is not None:
                self._drain(sink, start)
                start = 0
            self._fill(end)
        if sink is not None:
            self._drain(sink, at)
            at = 0
        found, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        return found

    def _drain(self, sink: Sink, size: int) -> None:
        """Write the first `size` bytes of the buffer to the sink. Raises SessionError beyond its limit."""
        if sink.written + size > sink.limit:
            self._buffer = b""  # data, no words
            raise self._ended(f"more than {sink.limit} bytes came")
        sink.written += sink.file.write(self._buffer[:size])
        self._buffer = self._buffer[size:]

    def _fill(self, end: float) -> None:
        """Add what comes next to the buffer. Raises SessionError past `end`, however much comes, and past MAX_SAID."""
        late = "no answer within the deadline"
        if (left := end - time.monotonic()) <= 0:
            raise self._ended(late)
        try:
            data = self._pipe.recv(left)
        except TimeoutError:
            raise self._ended(late) from None
        except OSError as error:
            raise SessionError(self._said(f"the connection broke: {error}")) from error
        if not data:
            raise self._ended("the remote shell ended")
        self._buffer += data
        if len(self._buffer) > MAX_SAID:
            raise self._ended(f"it says more than {MAX_SAID >> 20} MiB")

    def _ended(self, what: str) -> SessionError:
        """Close the session, and return the error that says why."""
        self.close()
        return SessionError(self._said(what))

    def _said(self, what: str) -> str:
        words = self._buffer[-1600:].decode(errors="replace").strip()
        return f"{what}: {words[-400:]}" if words else what
