"""Every error that a user can cause. All are shown without a traceback (`invoke --debug` shows it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from steps.core.base.problem import Problem, joined
from steps.core.base.urls import masked

DONE, FAILED, WRONG, REFUSED, DIFFERS, UNHEALTHY, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


class StepsError(Exception):
    """Base of all errors with a message for the user. `hint` is the next command, or what else to do next.

    `node`: the one node that it is about; its name stands in front of the message, with `joint` between them.
    `problems`: what it is about, as data, where it names several.
    """

    exit_code = FAILED

    def __init__(
        self, message: str, *, hint: str = "", node: str = "", joint: str = ": ", problems: Sequence[Problem] = ()
    ) -> None:
        self.said = masked(message)
        self.where = f"{node}{joint}" if node else ""
        super().__init__(self.message)
        self.hint = hint
        self.node = node
        self.problems = tuple(problems)

    @property
    def message(self) -> str:
        """All that is said of it, the hint apart."""
        return self.where + self.said

    def complete(self, shown: Callable[[str], str]) -> None:
        """Complete the commands in message and hint (see hints.py), before they are shown."""
        self.hint = shown(self.hint)
        self._say(shown(self.message))

    def within(self, where: str) -> None:
        """Says before the message where that happened: a plugin's name, say."""
        self._say(masked(f"{where}: {self.message}"))

    def add(self, lines: str) -> None:
        """Says `lines` below the message."""
        self._say(f"{self.message}\n{lines}")

    def problem(self, code: str, node: str) -> Problem:
        """Return the same as a problem of that node, which its message may have named already."""
        if self.where and self.node == node:
            joint = self.where.removeprefix(node)
            return Problem(code, self.said, hint=self.hint, node=node, joint=joint)
        return Problem(code, self.message, hint=self.hint, node=node)

    def _say(self, message: str) -> None:
        self.where, self.said = "", message
        self.args = (message,)


class ConfigError(StepsError):
    """etcd.toml is wrong; nothing was touched. Carries every problem at once."""

    exit_code = WRONG

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        lines = [f"{file}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
        for problem in problems:
            where = f"line {problem.line}: " if problem.line else ""
            key = f"{problem.key}: " if problem.key else ""
            hint = f" ({problem.hint})" if problem.hint else ""
            lines.append(f"  {where}{key}{problem.message}{hint}")
        super().__init__("\n".join(lines), problems=problems)


class UsageError(StepsError):
    """The command line asks for something that does not exist; nothing was touched."""

    exit_code = WRONG


class PluginError(StepsError):
    """A plugin cannot be used as it is; nothing was touched."""

    exit_code = WRONG


class Refused(StepsError):
    """A preflight, a safety gate or a held lock says no; nothing was changed."""

    exit_code = REFUSED

    @classmethod
    def because(cls, error: StepsError) -> Refused:
        """Return the same as a refusal: what failed, failed before any change."""
        refused = cls(error.said, hint=error.hint, problems=error.problems)
        refused.where, refused.node = error.where, error.node
        refused.args = (refused.message,)
        return refused


class Pending(Refused):
    """Somebody else must act first: `files` say on what, `instructions` say how. Collected over all nodes."""

    def __init__(self, files: Sequence[str], instructions: str) -> None:
        super().__init__("\n".join([instructions, *(f"  {file}" for file in files)]))
        self.files = tuple(files)
        self.instructions = instructions


class Unhealthy(StepsError):
    """The cluster does not keep what verify promises."""

    exit_code = UNHEALTHY


class Unknown(StepsError):
    """The cluster or a part of it could not be asked, and what could be asked is healthy. Only for what reads."""

    exit_code = UNKNOWN


class StepFailed(StepsError):
    """A step failed on the controller, or on the nodes named in the message; a re-run is safe."""


class NodeFailed(StepsError):
    """One node's share of a step failed. `stderr` is the remote side's own words."""

    def __init__(self, node: str, cause: str, *, stderr: str = "", hint: str = "") -> None:
        tail = "".join(f"\n    {line}" for line in stderr.strip().splitlines()[-8:])
        super().__init__(f"{cause}{tail}", hint=hint, node=node)
        self.cause = cause
        self.stderr = stderr


class CertificateError(StepsError):
    """A certificate is not what was asked for; `problems` name each field. Nothing was distributed.

    A plain string in `problems`, as plugins give it, becomes a problem without a code of its own.
    """

    def __init__(self, subject: str, problems: Sequence[Problem | str], *, hint: str = "") -> None:
        found = [Problem("certificate.unusable", each) if isinstance(each, str) else each for each in problems]
        super().__init__(f"{subject}: {joined(found)}", hint=hint, problems=found)


class SourceUnavailable(StepsError):
    """This release source cannot serve that version; the next one is asked. The message is one line."""
