"""stdout and stderr as they are found: closed, full, or with another alphabet than ours."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

_PLAIN = {"…": "...", "→": "->", "·": "-"}


def prepare() -> None:
    """Make the three standard streams usable: one that is closed becomes /dev/null, and no character is an error.

    A descriptor that stays closed would be given to the next file that is opened, and be written to as stdout.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115  os.devnull; open to the end
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  as above
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="etcd-steps")


def flushed(stream: TextIO) -> bool:
    """Whether all that was written to the stream has gone out; where not, it is silenced."""
    try:
        stream.flush()
    except (OSError, ValueError):
        silence(stream)
        return False
    return True


def silence(stream: TextIO) -> None:
    """Have all that is still written to the stream go nowhere, so that the interpreter's end does not fail over it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream writes for characters that it does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(each, each.encode("ascii", "backslashreplace").decode()) for each in text)
    return plain, error.end


codecs.register_error("etcd-steps", _plain)
