"""The order in which steps run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from steps.core.base.errors import PluginError

if TYPE_CHECKING:
    pass
from steps.core.pipeline.step import Step


class Misplaced(PluginError):
    """Custom steps that cannot take their place."""

    def __init__(self, steps: Sequence[Step], message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.steps = tuple(steps)


def ordered(pipeline: Sequence[Step], custom: Iterable[Step], taken: Collection[str] = ()) -> list[Step]:
    """The pipeline with each custom step beside its anchor; several at one anchor keep the order in which they came.

    Raises Misplaced: a name that is taken (by a step, or in `taken` by another task) or no name, an unknown anchor
    (with the nearest name), both anchors or none, a cycle.
    """
    steps = {step.name: step for step in pipeline}
    waiting: list[Step] = []
    for step in custom:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", step.name):
            raise Misplaced([step], f"{step.name!r} is no name for a step: a-z, 0-9 and -, a letter first")
        if step.name in steps or step.name in taken:
            what = "step" if step.name in steps else "task"
            raise Misplaced([step], f"there is a {what} {step.name!r} already", hint="give it another name")
        steps[step.name] = step
        waiting.append(step)
    for step in waiting:
        _check_anchor(step, steps)
    try:
        tuple(TopologicalSorter({step.name: [step.after or step.before] for step in waiting}).static_order())
    except CycleError as error:
        circle = [step for step in waiting if step.name in error.args[1]]
        raise Misplaced(circle, f"the steps {' -> '.join(error.args[1])} wait for each other") from None
    line = list(pipeline)
    while waiting:
        for step in tuple(waiting):
            names = [known.name for known in line]
            if step.before in names:
                line.insert(names.index(step.before), step)
            elif step.after in names:
                line.insert(_behind(line, names.index(step.after), step.after), step)
            else:
                continue
            waiting.remove(step)
    return line


def _behind(line: Sequence[Step], at: int, anchor: str) -> int:
    """Behind the anchor and behind the steps that already came after it."""
    at += 1
    while at < len(line) and line[at].after == anchor:
        at += 1
    return at


def _check_anchor(step: Step, known: Iterable[str]) -> None:
    if bool(step.after) == bool(step.before):
        raise Misplaced([step], f"the step {step.name!r} needs either `after` or `before`")
    anchor = step.after or step.before
    names = [name for name in known if name != step.name]
    if anchor not in names:
        near = difflib.get_close_matches(anchor, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise Misplaced([step], f"the step {step.name!r} runs beside {anchor!r}, which does not exist", hint=hint)
