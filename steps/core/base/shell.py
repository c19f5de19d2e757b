"""Words for a shell, quoted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
