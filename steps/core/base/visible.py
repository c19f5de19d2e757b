"""What comes from a host or a program, made fit for a terminal: a control character is shown, never sent."""

from __future__ import annotations

_KEPT = "\n\t"


def visible(text: str) -> str:
    r"""Return `text` with each character that is not printable as its escape (`\x1b`, `\u202e`); lines and tabs stay.

    An escape sequence could hide what precedes it or move the cursor, a carriage return overwrite its line, and a
    character that turns the writing direction show other words than it stands for.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in _KEPT or character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
