"""docs/reference/tasks.md, made from the tasks, and the table in hooks.md, made from the hooks' docstrings.

`.venv/bin/python tests/reference.py` writes both; tests/unit/test_docs.py fails where they differ from what is there.
"""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

from invoke import Argument, Collection

from steps.core.extensions import hookspecs

ROOT = Path(__file__).parents[1]
TASKS, HOOKS = (ROOT / "docs" / "reference" / name for name in ("tasks.md", "hooks.md"))
COLUMNS = ("Called when", "Thread", "May raise")
HEAD = """\
# Tasks

Made by `tests/reference.py` from the tasks themselves. `invoke --help TASK` prints the same. The phases come first, in
the order in which `all` runs them.

`invoke --dry TASK` only says what a task would change; exit 4 where there is something. `invoke --debug TASK` prints
the traceback of an error. `invoke certs units --node etcd-2` runs two phases and touches etcd-2 alone: one selection
holds for the whole command line. [Exit codes](exit-codes.md) are the same for all tasks.

## Options of every task

"""


def namespace() -> Collection:
    """Return all tasks: the phases, `all` and the operations. Invoke's get_arguments() empties a task's helps."""
    found: Collection = runpy.run_path(str(ROOT / "tasks.py"))["ns"]
    return found


def _helps(tasks: Collection) -> dict[str, str]:
    """Return each task with its help: the phases in their order, then the others by name."""
    found = {name: (tasks[name].__doc__ or "").strip().partition("\n")[0] for name in tasks.task_names}
    return dict(sorted(found.items(), key=_order))


def _order(item: tuple[str, str]) -> tuple[bool, str, str]:
    name, says = item
    phase = says.startswith("[")
    return (not phase, says if phase else "", name)


def tasks_page() -> str:
    """Return the text of docs/reference/tasks.md."""
    tasks = namespace()
    helps = _helps(tasks)
    given = {name: {each.names[0]: each for each in tasks[name].get_arguments()} for name in helps}
    common = {option for option in given["all"] if all(option in options for options in given.values())}
    lines = [HEAD + _table([given["all"][option] for option in sorted(common)])]
    for name, says in helps.items():
        own = [option for key, option in sorted(given[name].items()) if key not in common]
        lines.append(f"## {name}\n\n{says}\n" + (f"\n{_table(own)}" if own else ""))
    return "\n".join(lines)


def _table(options: list[Argument]) -> str:
    rows = [f"| `{_shown(option)}` | {option.help or ''} |\n" for option in options]
    return "| Option | |\n|---|---|\n" + "".join(rows)


def _shown(option: Argument) -> str:
    """Return an option as it is typed, the word for its value behind it."""
    word = option.names[0].replace("_", "-")
    if option.positional:
        return f"{word.upper()}` or `--{word} {word.upper()}"
    value = {bool: "", list: " NAME", int: " NUMBER"}.get(option.kind, " TEXT")
    return f"--{word}{value}"


def hooks_page() -> str:
    """Return the text of docs/reference/hooks.md: what is there, with the table made anew."""
    front, begin, rest = HOOKS.read_text(encoding="utf-8").partition("hookspecs.py -->\n")
    _, end, behind = rest.partition("<!-- end -->")
    rows = "".join(map(_hook, hookspecs.NAMES))
    head = "| hook | returns | called when | in which thread | may raise |\n|---|---|---|---|---|\n"
    return front + begin + "\n" + head + rows + "\n" + end + behind


def _hook(name: str) -> str:
    """Return a hook's row. Its docstring has a line for each column."""
    hook = getattr(hookspecs, name)
    returns, _, *columns = inspect.getdoc(hook).splitlines()
    cells = [column.removeprefix(f"{title}: ") for title, column in zip(COLUMNS, columns, strict=True)]
    returns = returns.removeprefix("Return ").removesuffix(".")
    return f"| `{name}({', '.join(inspect.signature(hook).parameters)})` | {' | '.join([returns, *cells])} |\n"


if __name__ == "__main__":
    TASKS.write_text(tasks_page(), encoding="utf-8")
    HOOKS.write_text(hooks_page(), encoding="utf-8")
