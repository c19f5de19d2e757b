"""An option of a task, declared once, by the step or the operation that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Option(Generic[T]):
    """`--NAME`, with dashes for underscores. One selection covers the whole command line.

    `default` is what a step gets where it is not given, and says the option's kind: False for a flag, a text or a
    number for one that takes a value, () for one that may be repeated. `in_all`: `invoke all` has it too.
    """

    name: str
    help: str
    default: T
    in_all: bool = False


NODE: Option[tuple[str, ...]] = Option(
    "node", "only this node; repeat it, or separate with commas. One selection covers the whole command line", ()
)
JSON = Option("json", "one JSON document on stdout", default=False)
RESERVED = ("config", NODE.name, JSON.name)  # what they mean is the same everywhere
