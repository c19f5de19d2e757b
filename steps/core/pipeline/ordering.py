"""The order in which steps run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from steps.core.base.errors import PluginError
from steps.core.base.option import RESERVED
from steps.core.pipeline.step import Step


class Misplaced(PluginError):
    """Custom steps that cannot take their place."""

    def __init__(self, steps: Sequence[Step], message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.steps = tuple(steps)


def ordered(pipeline: Sequence[Step], custom: Iterable[Step], taken: Collection[str] = ()) -> list[Step]:
    """Return the pipeline with each custom step next to its anchor; several at one anchor keep their order.

    Raises Misplaced: a name that is taken (by a step, or in `taken` by another task) or no name, an unknown anchor
    (with the nearest name), both anchors or none, a circle, an option that another step has otherwise.
    """
    steps = {step.name: step for step in pipeline}
    waiting: list[Step] = []
    for step in custom:
        _check_name(step, steps, taken)
        _check_options(step, steps.values())
        steps[step.name] = step
        waiting.append(step)
    for step in waiting:
        _check_anchor(step, steps)
    line = list(pipeline)
    while waiting:
        left = []
        for step in waiting:
            at = _place(step, line)
            if at is None:
                left.append(step)
            else:
                line.insert(at, step)
        if left == waiting:
            raise _circle(waiting)
        waiting = left
    return line


def _place(step: Step, line: Sequence[Step]) -> int | None:
    """Return the index at which the step takes its place, None while its anchor has none.

    That is right before the anchor, or behind it and behind the steps that already came after it.
    """
    names = [known.name for known in line]
    if step.before in names:
        return names.index(step.before)
    if step.after not in names:
        return None
    at = names.index(step.after) + 1
    while at < len(line) and line[at].after == step.after:
        at += 1
    return at


def _circle(waiting: Sequence[Step]) -> Misplaced:
    """Return the error of steps that wait for each other: from each of them the way leads into a circle."""
    anchors = {step.name: step.after or step.before for step in waiting}
    way = [waiting[0].name]
    while way[-1] not in way[:-1]:
        way.append(anchors[way[-1]])
    names = way[way.index(way[-1]) :]
    steps = [step for step in waiting if step.name in names]
    return Misplaced(steps, f"the steps {' -> '.join(names)} wait for each other")


def _check_name(step: Step, steps: Collection[str], taken: Collection[str]) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", step.name):
        raise Misplaced([step], f"{step.name!r} is no name for a step: a-z, 0-9 and -, a letter first")
    if step.name in steps or step.name in taken:
        what = "step" if step.name in steps else "task"
        raise Misplaced([step], f"there is a {what} {step.name!r} already", hint="give it another name")


def _check_options(step: Step, steps: Iterable[Step]) -> None:
    known = {option.name: option for other in steps for option in other.options}
    for option in step.options:
        if not option.name.isidentifier() or option.name in RESERVED:
            raise Misplaced([step], f"the step {step.name!r} cannot have an option {option.name!r}")
        if known.setdefault(option.name, option) != option:
            message = f"the step {step.name!r} has an option {option.name!r} that another step has already"
            raise Misplaced([step], message, hint="give it another name")


def _check_anchor(step: Step, known: Iterable[str]) -> None:
    if bool(step.after) == bool(step.before):
        raise Misplaced([step], f"the step {step.name!r} needs either `after` or `before`")
    anchor = step.after or step.before
    names = [name for name in known if name != step.name]
    if anchor not in names:
        near = difflib.get_close_matches(anchor, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise Misplaced([step], f"the step {step.name!r} runs beside {anchor!r}, which does not exist", hint=hint)
