"""Turns a whole command line into one run. Invoke finds the class through invoke.yaml."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.tasks import Call

from steps.core.base import streams
from steps.core.base.errors import DIFFERS, FAILED, INTERRUPTED, StepsError, UsageError
from steps.core.base.hints import Hints
from steps.core.base.report import OutputLost
from steps.core.base.visible import visible
from steps.core.cli.options import path, selection, typed
from steps.core.cli.project import House, HouseTask

if TYPE_CHECKING:
    from steps.core.cli.invocation import Invocation

REPEATED = ("search-root", "collection", "config", "prompt-for-sudo-password")  # Invoke's options that a hint needs too
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StepsExecutor(Executor):
    """One configuration, one selection, one connection per node for all tasks of a command line."""

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        """Raises invoke's Exit with the command's exit code, where it is not 0."""
        streams.prepare()
        house = next(task.house for task in self.collection.tasks.values() if isinstance(task, HouseTask))
        calls = self.expand_calls(self.normalize(tasks))
        debug = bool(self.core and self.core[0].args.debug.value)
        with _signals() as told:
            code = self._run(house, calls, told, debug=debug)
        gc.freeze()  # the interpreter's last collections would take a tenth of a second, and free what ends anyway
        if code:
            raise Exit(code=code)
        return {}

    def _run(self, house: House, calls: Sequence[Call], told: Event, *, debug: bool) -> int:
        with ExitStack() as opened:
            code = self._outcome(opened, house, calls, told, debug=debug)
        return code if streams.flushed(sys.stdout) else code or FAILED

    def _outcome(self, opened: ExitStack, house: House, calls: Sequence[Call], told: Event, *, debug: bool) -> int:
        """Run the tasks; say what went wrong. Return the exit code. What is opened is closed with `opened`."""
        command: Invocation | None = None
        code, said = FAILED, "ended by a bug"  # what is raised and no StepsError
        hints = self._hints(calls, lambda: command.task if command else "")
        self.config.load_shell_env()  # INVOKE_SUDO_PASSWORD; Invoke's own executor does the same, task by task
        os.environ.pop("INVOKE_SUDO_PASSWORD", None)  # what we start has no use for it
        try:
            command = opened.enter_context(self._invocation(house, calls, told, hints))
            with _quiet_after(command):
                self._tasks(command, calls)
            code, said = DIFFERS if command.differs else 0, ""
        except KeyboardInterrupt:
            code, said = INTERRUPTED, "interrupted"
            _tell(command)
            _complain("interrupted: what had begun on a node was finished, nothing else was started", _state(command))
        except (OutputLost, BrokenPipeError) as error:
            # Nothing more is begun. Where the reader has gone (`| head`), nothing more can be said, either.
            gone = isinstance(error, BrokenPipeError) or error.closed
            code, said = (INTERRUPTED, "the output was closed") if gone else (FAILED, str(error))
            streams.silence(sys.stdout)
            _complain("" if gone else f"error: {error}", _state(command))
        except StepsError as error:
            error.complete(hints.shown)
            code, said = error.exit_code, error.message
            if debug:
                raise
            _tell(command)
            _complain(f"error: {error.message}", f"next: {error.hint}" if error.hint else "", _state(command))
        except OSError as error:  # this machine's: a disk that is full or read-only, a directory that is not there
            code, said = FAILED, str(error)
            if debug:
                raise
            _tell(command)
            _complain(f"error: on this machine: {error}", _state(command))
        finally:
            if command is not None:
                command.ended(code, said)
        return code

    def _invocation(self, house: House, calls: Sequence[Call], told: Event, hints: Hints) -> Invocation:
        from steps.core.cli.invocation import Invocation

        return Invocation(
            house,
            self._helps(),
            calls,
            dry=bool(self.config.run.dry),
            sudo_password=self.config.sudo.password,
            told=told,
            hints=hints,
        )

    def _tasks(self, command: Invocation, calls: Sequence[Call]) -> None:
        for call in calls:
            self.config.load_collection(self.collection.configuration(call.called_as))
            context = call.make_context(self.config)
            context._set(command=command)  # noqa: SLF001  Invoke's own way to set what is no configuration
            command.task = path(call.task)
            kwargs = call.task.own(call.kwargs) if isinstance(call.task, HouseTask) else call.kwargs
            call.task(context, *call.args, **kwargs)

    def _hints(self, calls: Sequence[Call], current: Callable[[], str]) -> Hints:
        """How this run was started; `current`: the name of the task that runs."""
        with suppress(UsageError):  # two different ones: that is said, and the hint is as good without
            config = selection(calls, "config")
            given = self.core[0].args if self.core else {}
            front = []
            for option in REPEATED:
                value = given[option].value if option in given else None
                front += [f"--{option}", *([value] if isinstance(value, str) else [])] if value else []
            dry = ["--dry"] if self.config.run.dry else []
            return Hints(
                front,
                config or os.environ.get("ETCD_CONFIG", ""),
                lambda more: [*dry, *typed(calls, current=current(), more=shlex.split(more))],
            )
        return Hints()

    def _helps(self) -> dict[str, str]:
        tasks = {name: self.collection[name] for name in self.collection.task_names}
        return {name: (task.__doc__ or "").strip().partition("\n")[0] for name, task in tasks.items()}


def _state(command: Invocation | None) -> str:
    return command.progress() if command is not None else ""


def _tell(command: Invocation | None) -> None:
    if command is not None:
        with suppress(OutputLost):  # the error itself goes to stderr
            command.tell()


def _complain(*lines: str) -> None:
    streams.flushed(sys.stdout)
    with suppress(OSError):  # then nothing can be said, and the exit code says it alone
        sys.stderr.writelines(f"{visible(line)}\n" for line in lines if line)
    streams.flushed(sys.stderr)


@contextmanager
def _quiet_after(command: Invocation) -> Iterator[None]:
    """However the block ends, nothing on the terminal is live any more, also where a second Ctrl-C comes meanwhile."""
    try:
        yield
    finally:
        late: list[int] = []
        before = {number: signal.signal(number, lambda number, _: late.append(number)) for number in ENDING}
        try:
            command.report.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if late:
            raise KeyboardInterrupt


@contextmanager
def _signals() -> Iterator[Event]:
    """SIGTERM and a lost terminal end a run as Ctrl-C does.

    Yields what is set by the first of them, for those who begin something: what a handler raises may come while another
    one is handled, or while a pool of threads is closed, and Python drops it while a C library calls back.
    """
    told, before_hook = Event(), sys.unraisablehook

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        told.set()
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            before_hook(unraisable)

    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, interrupt) for number in heeded}
    sys.unraisablehook = dropped
    try:
        yield told
    finally:
        sys.unraisablehook = before_hook
        for number, handler in before.items():
            signal.signal(number, handler)
