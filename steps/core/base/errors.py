"""Every error that a user can cause. All are shown without a traceback (`invoke --debug` shows it)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DONE, FAILED, WRONG, REFUSED, DIFFERS, UNHEALTHY, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


class StepsError(Exception):
    """Base of all errors with a message for the user. `hint` is the next command, or what else to do next."""

    exit_code = FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        message = masked(message)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def complete(self, shown: Callable[[str], str]) -> None:
        """Complete the commands in message and hint (see hints.py), before they are shown."""
        self.message, self.hint = shown(self.message), shown(self.hint)
        self.args = (self.message,)

    def within(self, where: str) -> None:
        """Says before the message where that happened: a plugin's name, say."""
        self.message = masked(f"{where}: {self.message}")
        self.args = (self.message,)

    def add(self, lines: str) -> None:
        """Says `lines` below the message."""
        self.message = f"{self.message}\n{lines}"
        self.args = (self.message,)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in etcd.toml. `key` is a dotted path (`nodes[1].ip`), `line` is 1-based, 0 where unknown."""

    key: str
    message: str
    line: int = 0
    hint: str = ""


class ConfigError(StepsError):
    """etcd.toml is wrong; nothing was touched. Carries every problem at once."""

    exit_code = WRONG

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        lines = [f"{file}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
        for problem in problems:
            where = f"line {problem.line}: " if problem.line else ""
            key = f"{problem.key}: " if problem.key else ""
            hint = f" ({problem.hint})" if problem.hint else ""
            lines.append(f"  {where}{key}{problem.message}{hint}")
        super().__init__("\n".join(lines))


class UsageError(StepsError):
    """The command line asks for something that does not exist; nothing was touched."""

    exit_code = WRONG


class PluginError(StepsError):
    """A plugin cannot be used as it is; nothing was touched."""

    exit_code = WRONG


class Refused(StepsError):
    """A preflight, a safety gate or a held lock says no; nothing was changed."""

    exit_code = REFUSED


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
        super().__init__(f"{node}: {cause}{tail}", hint=hint)
        self.node = node
        self.cause = cause
        self.stderr = stderr


class CertificateError(StepsError):
    """A certificate is not what was asked for; `problems` name each field. Nothing was distributed."""

    def __init__(self, subject: str, problems: Sequence[str], *, hint: str = "") -> None:
        super().__init__(f"{subject}: " + "; ".join(problems), hint=hint)
        self.problems = tuple(problems)


class SourceUnavailable(StepsError):
    """This release source cannot serve that version; the next one is asked. The message is one line."""


def masked(text: str) -> str:
    """Return the same words with the login of every URL in them masked.

    A password in a URL may have @ : / in it that should have been percent-encoded: what is masked reaches to the last @
    of the word. Where a / comes before any :, the first / ends the host, and an @ behind it belongs to the path.
    """
    return re.sub(r"//[^ \t\r\n]+", _without_login, text)


def masked_url(url: str) -> str:
    """Return one URL with its login masked, whatever the login is made of (blanks, too).

    It needs no scheme: a proxy may be given as user:password@host:port.
    """
    return re.sub(r"(?s)^[^/@]*:(?!//).*@", "***@", re.sub(r"(?s)//.+", _without_login, url))


def _without_login(after_scheme: re.Match[str]) -> str:
    login, at, rest = after_scheme[0].removeprefix("//").rpartition("@")
    return f"//***@{rest}" if at and (":" in login or "/" not in login) else after_scheme[0]
