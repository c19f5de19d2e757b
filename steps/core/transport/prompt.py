"""A question on the terminal while other things go on there: one at a time, without an echo, ended by an interrupt."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from steps.core.base.visible import visible

_TERMINAL = "/dev/tty"
_TICK = 0.2  # seconds between two looks whether the run was interrupted


class Interrupted(Exception):
    """The run ended while a question was open."""


class Prompter:
    """`turn`: held by the one login that may ask. `paused`: stops what else is drawn on the terminal meanwhile."""

    def __init__(
        self,
        *,
        paused: Callable[[], AbstractContextManager[object]] = nullcontext,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self.turn = threading.Lock()
        self._paused = paused
        self._ended = ended
        self._cancelled = threading.Event()
        self._reading = threading.Lock()

    @property
    def available(self) -> bool:
        """Whether a question would be seen: stdin is the terminal of this run."""
        if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
            return False
        try:
            os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
        except OSError:
            return False
        return True

    def say(self, text: str) -> None:
        with self._paused():
            sys.stderr.write(f"{visible(text)}\n")

    def ask(self, prompt: str) -> str:
        """Return what is typed, without the end of the line. Raises Interrupted, and OSError without a terminal."""
        with self._paused(), self._reading:
            descriptor = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY)
            before = termios.tcgetattr(descriptor)
            silent = termios.tcgetattr(descriptor)
            silent[3] &= ~termios.ECHO
            try:
                termios.tcsetattr(descriptor, termios.TCSAFLUSH, silent)
                os.write(descriptor, visible(prompt).encode(errors="replace"))
                return self._line(descriptor)
            finally:
                termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
                os.write(descriptor, b"\n")
                os.close(descriptor)

    def cancel(self) -> None:
        """End a question that goes on, and put the terminal back as it was."""
        self._cancelled.set()
        if self._reading.acquire(timeout=5 * _TICK):
            self._reading.release()

    def _line(self, descriptor: int) -> str:
        line = b""
        while not line.endswith(b"\n"):
            while not select.select([descriptor], [], [], _TICK)[0]:
                if self._cancelled.is_set() or self._ended():
                    raise Interrupted
            part = os.read(descriptor, 1024)
            if not part:  # Ctrl-D on an empty line
                break
            line += part
        return line.decode(errors="replace").rstrip("\r\n")
