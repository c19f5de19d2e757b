"""What the user reads: `==> phase`, `node: message`, tables, and a closing tip. Plain lines unless on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from json import dumps
from threading import Lock
from typing import TYPE_CHECKING, TextIO

from steps.core.base import tables
from steps.core.base.hints import Hints
from steps.core.base.urls import masked
from steps.core.base.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class OutputLost(Exception):
    """What is said cannot be written. `closed`: whoever read it has gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror or error}")
        self.closed = isinstance(error, BrokenPipeError)


class Report:
    """Safe for threads. `json`: one JSON document on stdout, warnings on stderr, and nothing else."""

    def __init__(self, stream: TextIO | None = None, *, json: bool = False, hints: Hints | None = None) -> None:
        """`hints`: how the commands in messages are completed."""
        self._stream = stream or sys.stdout
        self._hints = hints or Hints()
        self.json = json
        self.heard: Callable[[str, str, str], None] = _nobody  # of each change and warning: kind, node, message
        self._lock = Lock()
        self._phase = ""
        self._progress: Progress | None = None
        self._rows = 0  # of the live display
        self._closed = False
        self._console: Console | None = None
        if self._stream.isatty() and not json:
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False, emoji=False)  # :1234: in an address is none

    def phase(self, name: str, position: str) -> None:
        self._phase = name
        self.line(f"==> {position + ' ' if position else ''}{name}", "bold")

    def say(self, message: str, node: str = "") -> None:
        self.line(_indented(message, node))

    def change(self, message: str, node: str = "", diff: str = "") -> None:
        self.heard("change", node, self._plain(message))
        self.line(_indented(message, node), "yellow")
        for line in diff.removesuffix("\n").split("\n") if diff else ():
            self.line("      " + line, {"+": "green", "-": "red"}.get(line[:1], "dim"))

    def warn(self, message: str, node: str = "", *, in_document: bool = False) -> None:
        """Show a warning; as JSON on stderr, but for one that the document on stdout has already."""
        self.heard("warning", node, self._plain(message))
        text = _indented(f"warning: {message}", node)
        if self.json and in_document:
            return
        if self.json:
            with self._lock, suppress(OSError):  # it is no part of the document
                sys.stderr.write(visible(self._plain(text)) + "\n")
        else:
            self.line(text, "magenta")

    def tip(self, message: str) -> None:
        self.line(f"\n{message}", "cyan")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.json:
            return
        shown = [[visible(self._hints.shown(cell)) for cell in row] for row in rows]
        first, *rest = tables.lines(head, shown, self._console.width if self._console is not None else None)
        self.line(first, "bold")
        for line in rest:
            self.line(line)

    def data(self, document: object) -> None:
        """The JSON document, where one was asked for."""
        if self.json:
            text = dumps(self._hints.data(document), indent=2, default=str)
            with self._lock:
                self._write(text)

    def close(self) -> None:
        """The run is over: nothing is live any more, and nothing becomes live again."""
        with self._lock, suppress(OSError):  # the terminal may be what has gone
            self._closed = True
            self._end()

    def _end(self) -> None:
        """Take the live display away, if there is one; the lock is held."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    @contextmanager
    def busy(self, label: str) -> Iterator[None]:
        """A live line that says that something goes on at `label` (a node, mostly) while the block runs."""
        with self._row(label):
            yield

    @contextmanager
    def transfer(self, label: str, size: int = 0) -> Iterator[Callable[[int, int | None], None]]:
        """A progress bar while the block runs; yields what hears of the bytes done and, if known, the bytes in all."""
        with self._row(label) as update:
            yield lambda done, total: update(completed=done, total=total or size or None, size=f"{done >> 20} MB")

    @contextmanager
    def _row(self, label: str) -> Iterator[Callable[..., None]]:
        """A row of the live display; one that the label has already is used."""
        progress = self._live()
        if progress is None:
            yield lambda **_: None
            return
        known = next((task.id for task in progress.tasks if task.description == label), None)
        row = progress.add_task(label, total=None, phase=self._phase, size="") if known is None else known
        try:
            yield lambda **values: progress.update(row, **values)
        finally:
            if known is None:
                progress.remove_task(row)
            else:
                progress.update(row, total=None, size="")
            self._leave()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn or written while the block runs, which asks something on the terminal."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            try:
                yield
            finally:
                if self._progress is not None:
                    self._progress.start()

    def _leave(self) -> None:
        """A row has ended. With the last one the display goes: what follows may be a question on the terminal."""
        with self._lock:
            self._rows -= 1
            if not self._rows:
                self._end()

    def _live(self) -> Progress | None:
        """The live display, with a row more to come; None where there is no terminal, or it is given back already."""
        with self._lock:
            if self._console is None or self._closed:
                return None
            self._rows += 1
            if self._progress is None:
                from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

                columns = (
                    TextColumn("  {task.description}  {task.fields[phase]}"),
                    BarColumn(),
                    TimeElapsedColumn(),
                    TextColumn("{task.fields[size]}"),
                )
                self._progress = Progress(*columns, console=self._console, transient=True)
                self._progress.start()
            return self._progress

    def line(self, text: str, style: str = "") -> None:
        """One line as it is, but for the login of a URL in it, and control characters (see `visible`)."""
        if self.json:
            return
        text = visible(self._plain(text))
        with self._lock:
            if self._console is not None:
                with _written():
                    self._console.print(text, style=style or None, markup=False, soft_wrap=True)
            else:
                self._write(text)

    def _plain(self, text: str) -> str:
        """The text with its hints as they are typed, and without the login of a URL in it."""
        return masked(self._hints.shown(text))

    def _write(self, text: str) -> None:
        with _written():
            self._stream.write(text + "\n")
            self._stream.flush()


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputLost(error) from error


def _nobody(kind: str, node: str, message: str) -> None:
    """Where nothing is kept of what was said."""


def _indented(message: str, node: str) -> str:
    return f"  {node}: {message}" if node else f"  {message}"
