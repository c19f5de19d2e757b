"""Turns a whole command line into one run. Invoke finds the class through invoke.yaml."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any

from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.tasks import Call

from steps.core.errors import DIFFERS, FAILED, INTERRUPTED, StepsError
from steps.core.house import House, HouseTask
from steps.core.visible import visible

if TYPE_CHECKING:
    from steps.core.command import Command


class StepsExecutor(Executor):
    """One configuration, one selection, one connection per node for all tasks of a command line."""

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        """Raises invoke's Exit with the command's exit code, where it is not 0."""
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
        from steps.core.command import Command

        command = None
        code, said = FAILED, "ended by a bug"  # what is raised and no StepsError
        self.config.load_shell_env()  # INVOKE_SUDO_PASSWORD; Invoke's own executor does the same, task by task
        os.environ.pop("INVOKE_SUDO_PASSWORD", None)  # what we start has no use for it
        try:
            command = Command(
                house,
                self._helps(),
                calls,
                dry=bool(self.config.run.dry),
                sudo_password=self.config.sudo.password,
                told=told,
            )
            for call in calls:
                self.config.load_collection(self.collection.configuration(call.called_as))
                context = call.make_context(self.config)
                context._set(command=command)  # noqa: SLF001  Invoke's own way to set what is no configuration
                command.task = call.task.name
                call.task(context, *call.args, **call.kwargs)
            code, said = DIFFERS if command.differs else 0, ""
        except KeyboardInterrupt:
            code, said = INTERRUPTED, "interrupted"
            _tell(command)
            _complain("interrupted: what had begun on a node was finished, nothing else was started", _state(command))
        except BrokenPipeError:
            # Whoever read our words has gone (`| head`): nothing more is begun, and nothing more can be said.
            code, said = INTERRUPTED, "the output was closed"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except StepsError as error:
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
                command.close(code, said)
        return code

    def _helps(self) -> dict[str, str]:
        tasks = {name: self.collection[name] for name in self.collection.task_names}
        return {name: (task.__doc__ or "").strip().partition("\n")[0] for name, task in tasks.items()}


def _state(command: Command | None) -> str:
    return command.progress() if command is not None else ""


def _tell(command: Command | None) -> None:
    if command is not None:
        command.tell()


def _complain(*lines: str) -> None:
    sys.stdout.flush()
    sys.stderr.writelines(f"{visible(line)}\n" for line in lines if line)


@contextmanager
def _signals() -> Iterator[Event]:
    """SIGTERM and a lost terminal end a run as Ctrl-C does.

    Python drops what is raised while a C library calls back: yields what is set then, for those who begin something.
    """
    told, before_hook = Event(), sys.unraisablehook

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            told.set()
        else:
            before_hook(unraisable)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    sys.unraisablehook = dropped
    try:
        yield told
    finally:
        sys.unraisablehook = before_hook
        for number, handler in before.items():
            signal.signal(number, handler)
