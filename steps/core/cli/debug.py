"""Passwords stay out of what --debug prints: Invoke logs its whole configuration, sudo's password with it."""

from __future__ import annotations

import logging
import re

# As a dict is printed: 'password': 'correct horse', with whatever stands before or behind the word.
_SECRET = re.compile(r"""(?i)('[^']*(?:password|passphrase|secret)[^']*': )('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
LOGGERS = ("invoke", "fabric")


class HidePasswords(logging.Filter):
    """Masks the values of passwords in a message, and lets everything through."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _SECRET.sub(r"\1'***'", record.getMessage()), ()
        return True


def hide_passwords() -> None:
    """Mask passwords in all that Invoke and Fabric log from now on."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, HidePasswords) for known in logger.filters):
            logger.addFilter(HidePasswords())
