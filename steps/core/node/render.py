"""Templates, and the quoting of what goes into a unit. Nothing from etcd.toml is ever itself a template."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from steps.core.base.errors import PluginError

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"
_COMMAND = "exec env -i "  # what etcd.sh becomes


def render(template: str, directories: Sequence[Path], **values: object) -> str:
    """The first `template` in `directories`, then in templates/. Raises PluginError where it is no template for that.

    A value that is missing is an error, never an empty text.
    """
    found = compiled(template, directories)
    with _blamed(found.filename or template):
        return found.render(**values)


def compiled(template: str, directories: Sequence[Path]) -> jinja2.Template:
    """See render; kept, for to compile it takes longer than to render it for twenty nodes."""
    with _blamed(template):
        return _environment(tuple(directories)).get_template(template)


@contextmanager
def _blamed(template: str) -> Iterator[None]:
    import jinja2

    try:
        yield
    except jinja2.TemplateError as error:
        where = f"{getattr(error, 'filename', None) or template}, line {getattr(error, 'lineno', '?')}"
        raise PluginError(
            f"{where}: {error.message}", hint="a template of one's own extends the shipped one"
        ) from error


@functools.cache
def _environment(directories: tuple[Path, ...]) -> jinja2.Environment:
    """Where templates are compiled, once each."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader([*directories, TEMPLATES]),
                # what a template of the same name extends
                jinja2.PrefixLoader({"shipped": jinja2.FileSystemLoader(TEMPLATES)}),
            ]
        ),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  units and shell, no HTML: quoted by the filters below
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(unit=unit_word, path=unit_path, shell=shlex.quote)
    return environment


def unit_word(text: str) -> str:
    """One word of ExecStart=, read back by systemd as exactly `text` (systemd.service, "Command lines")."""
    _plain(text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if not re.fullmatch(r"[A-Za-z0-9_@%+=:,./\[\]-]+", text) else escaped


def unit_path(text: str) -> str:
    """A path as a unit's value outside ExecStart: only % is special."""
    _plain(text)
    return text.replace("%", "%%")


def _plain(text: str) -> None:
    if any(ord(character) < ord(" ") or ord(character) == 0x7F for character in text):  # noqa: PLR2004  DEL
        raise ValueError(f"a control character cannot stand in a unit: {text!r}")


def exec_start(argv: Sequence[str]) -> str:
    """The line that starts `argv`, as the shipped unit has it: one word a line."""
    return "ExecStart=" + " \\\n  ".join(map(unit_word, argv))


def exec_argv(unit: str) -> tuple[str, ...]:
    """Return the words of the last ExecStart= in a unit's text: unit_word's inverse; () where there is none.

    Raises ValueError where a quote is not closed.
    """
    lines = unit.replace("\\\n", " ").split("\n")
    starts = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    words = shlex.split(starts[-1]) if starts else []
    return tuple(word.replace("%%", "%").replace("$$", "$") for word in words)


def script_argv(script: str) -> tuple[str, ...]:
    """Return the words that etcd.sh hands to etcd. Raises ValueError where a quote is not closed."""
    return tuple(shlex.split(script.replace("\\\n", " ").partition(_COMMAND)[2]))


def script_command(argv: Sequence[str]) -> str:
    """The command with which etcd.sh ends: script_argv's inverse."""
    return _COMMAND + " \\\n  ".join(map(shlex.quote, argv))
