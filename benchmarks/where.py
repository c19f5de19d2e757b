"""Runs `invoke` and writes down where its wall clock goes: python -m benchmarks.where FILE WORDS…

The main thread's time is booked on the innermost label, so that the parts add up to the whole; what other threads do
meanwhile is in it. What came before `began` (Unix time) is for whoever started this process to book.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = "python, imports, tasks.py"


class Book:
    """Seconds by label, in the order of first use."""

    def __init__(self, label: str) -> None:
        self.seconds: dict[str, float] = {}
        self._stack = [label]
        self._since = self.began = time.time()

    def _turn(self) -> None:
        now = time.time()
        label = self._stack[-1]
        self.seconds[label] = self.seconds.get(label, 0.0) + now - self._since
        self._since = now

    def enter(self, label: str) -> None:
        self._turn()
        self._stack.append(label)

    def leave(self) -> None:
        self._turn()
        self._stack.pop()

    def move(self, seconds: float, source: str, label: str) -> None:
        """Books part of `source` on another label."""
        self.seconds[source] -= seconds
        self.seconds[label] = self.seconds.get(label, 0.0) + seconds

    def wrap(self, owner: Any, name: str, label: str | Callable[..., str]) -> None:
        """Replaces `owner.name` by itself with its time booked. Only for what the main thread calls."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def booked(*args: Any, **more: Any) -> Any:
            self.enter(label if isinstance(label, str) else label(*args))
            try:
                return inner(*args, **more)
            finally:
                self.leave()

        setattr(owner, name, booked)


def watch(book: Book) -> Callable[[], float]:
    """Returns what tells when the last connection was open."""
    from steps.core.checks import preflight
    from steps.core.cli import invocation as command
    from steps.core.pipeline import engine
    from steps.core.transport import pool as hosts

    opened = [0.0]
    opening = hosts.Hosts._open  # noqa: SLF001 - a profile looks inside

    def noted(self: Any, node: Any) -> Any:
        try:
            return opening(self, node)
        finally:
            opened[0] = max(opened[0], time.time())

    hosts.Hosts._open = noted  # type: ignore[method-assign]  # noqa: SLF001 - see above
    book.wrap(command.Command, "__init__", "etcd.toml")
    book.wrap(command.Command, "close", "closing connections")
    book.wrap(engine.Engine, "look", "look")
    book.wrap(preflight, "preflight", "preflight")
    take = engine.Engine.take

    def taken(self: Any, step: Any, position: str = "") -> None:
        book.enter(step.name)
        try:
            if step.name in {"start", "verify"}:
                inside(book)
            take(self, step, position)
        finally:
            book.leave()

    engine.Engine.take = taken  # type: ignore[method-assign]
    return lambda: opened[0]


@functools.cache
def inside(book: Book) -> None:
    """The two steps that wait for etcd; imported no earlier than they import it themselves."""
    from steps.core.health import gate, health
    from steps.core.procedures import rolling_restart as rolling

    book.wrap(gate, "_states", "start: until every member is ready")
    book.wrap(gate, "ask", "start: the gate's etcdctl")
    book.wrap(rolling, "ask", "start: the gate's etcdctl")
    book.wrap(health, "gather", "verify: etcdctl and handshakes, at once")


def main() -> None:
    file = Path(sys.argv[1])
    book = Book(START)
    sys.argv = ["invoke", *sys.argv[2:]]
    from invoke.main import program

    from steps.core.pipeline.engine import Engine

    opened = watch(book)
    look, at = Engine.look, [0.0]

    def looked(self: Any) -> None:
        at[0] = at[0] or time.time()
        look(self)

    Engine.look = looked  # type: ignore[method-assign]
    try:
        program.run()
    finally:
        book.enter("end")
        book.seconds.pop("end", None)
        if opened() and "look" in book.seconds:
            book.move(opened() - at[0], "look", "connect")
        file.write_text(
            json.dumps({"began": book.began, "ended": time.time(), "seconds": book.seconds}), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
