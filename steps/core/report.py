"""What the user reads: `==> phase`, `node: message`, tables, and a closing tip. Plain lines unless on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from threading import Lock
from typing import TYPE_CHECKING, TextIO

from steps.core.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Report:
    """Safe for threads. `json`: one JSON document on stdout, warnings on stderr, and nothing else."""

    def __init__(self, stream: TextIO | None = None, *, json: bool = False) -> None:
        self._stream = stream or sys.stdout
        self.json = json
        self.heard: Callable[[str, str, str], None] = _nobody  # of each change and warning: kind, node, message
        self._lock = Lock()
        self._phase = ""
        self._progress: Progress | None = None
        self._console: Console | None = None
        if self._stream.isatty() and not json:
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False)

    def phase(self, name: str, position: str) -> None:
        self._phase = name
        self.line(f"==> {position + ' ' if position else ''}{name}", "bold")

    def say(self, message: str, node: str = "") -> None:
        self.line(_indented(message, node))

    def change(self, message: str, node: str = "", diff: str = "") -> None:
        self.heard("change", node, message)
        self.line(_indented(message, node), "yellow")
        for line in diff.removesuffix("\n").split("\n") if diff else ():
            self.line("      " + line, {"+": "green", "-": "red"}.get(line[:1], "dim"))

    def warn(self, message: str, node: str = "") -> None:
        self.heard("warning", node, message)
        text = _indented(f"warning: {message}", node)
        if self.json:
            with self._lock:
                sys.stderr.write(visible(text) + "\n")
        else:
            self.line(text, "magenta")

    def tip(self, message: str) -> None:
        self.line(f"\n{message}", "cyan")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.json:
            return
        rows = [[visible(cell) for cell in row] for row in rows]
        if self._console is not None:
            from rich.table import Table
            from rich.text import Text

            table = Table(*head, box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
            for row in rows:
                table.add_row(*map(Text, row))
            self._console.print(table)
            return
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        for row in [head, *rows]:
            self.line("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def data(self, document: object) -> None:
        """The JSON document, where one was asked for."""
        if self.json:
            self._stream.write(dumps(document, indent=2, default=str) + "\n")

    def end(self) -> None:
        """The phase is over: its live lines go."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

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
        if self._console is None:
            yield lambda **_: None
            return
        progress = self._live()
        known = next((task.id for task in progress.tasks if task.description == label), None)
        row = progress.add_task(label, total=None, phase=self._phase, size="") if known is None else known
        try:
            yield lambda **values: progress.update(row, **values)
        finally:
            if known is None:
                progress.remove_task(row)
            else:
                progress.update(row, total=None, size="")

    def _live(self) -> Progress:
        with self._lock:
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
        """One line as it is, but for control characters (see `visible`)."""
        if self.json:
            return
        text = visible(text)
        with self._lock:
            if self._console is not None:
                self._console.print(text, style=style or None, markup=False, soft_wrap=True)
            else:
                self._stream.write(text + "\n")
                self._stream.flush()


def _nobody(kind: str, node: str, message: str) -> None:
    """Where nothing is kept of what was said."""


def _indented(message: str, node: str) -> str:
    return f"  {node}: {message}" if node else f"  {message}"
