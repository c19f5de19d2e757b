"""Whatever etcd.toml holds: a valid cluster or a ConfigError, never anything else.

Small and the same each time by default; FUZZ_EXAMPLES=20000 makes it long and random.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from steps.core.base.errors import ConfigError
from steps.core.config import schema
from steps.core.config.load import parse
from steps.core.config.toml_positions import key_lines

ROOT = Path(__file__).parents[2]
FILE = Path("/clusters/etcd.toml")
VALID = [(ROOT / name).read_bytes() for name in ("etcd.toml", "examples/how-to.toml", "examples/single.toml")]
SEEDS = [*VALID, VALID[0].replace(b"\n#", b"\n")]
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
quick = settings(
    max_examples=int(EXAMPLES or 120),
    derandomize=EXAMPLES is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

KEYS = [
    f"{section}.{key}"
    for section, model in schema.SECTIONS.items()
    for key in [*model.model_fields, *schema.Cfssl.model_fields, *schema.FLAGS, "password", "C", ""]
]
SHELL = ("$(id)", "`id`", "%H", "{{ 7*7 }}", "{node}", "a\nb", "\0", "'", '"', "\\", "-x")
ODD = ("..", "/", "[::1]", "\u2028", "", "é", "127.0.0.1", "etcd-9", "3.5.16", "csr")
texts = st.one_of(st.sampled_from(SHELL), st.sampled_from(ODD), st.text(max_size=12))
numbers = st.one_of(st.integers(-(1 << 70), 1 << 70), st.floats(), st.sampled_from([0, 1, 2379, 2380]))
values = st.recursive(
    st.one_of(texts, numbers, st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
NODES = st.lists(st.dictionaries(texts, values, max_size=4), max_size=3)
TOKENS = [b"", b"x", b"1", b'"', b"[", b"]", b"\n", b"=", b".", b"#", b"\n\n[tls]\n", b"-", b"\x00"]


def dump(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        quoted = "".join(c if c.isalnum() or c in " -._/" else f"\\U{ord(c):08X}" for c in value)
        return f'"{quoted}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dump(key)} = {dump(item)}" for key, item in value.items()) + "}"
    return repr(value)


def judge(data: bytes) -> None:
    try:
        cluster, problems = parse(data, FILE), None
    except ConfigError as error:
        cluster, problems = None, error.problems
    if cluster is None:
        assert problems
        assert all(problem.message and "\n" not in problem.message for problem in problems)
        return
    assert cluster.nodes
    for text in (*cluster.flags.values(), *(path for node in cluster.nodes for path in vars(node.paths).values())):
        assert not schema.control(text)
    assert all(path.startswith("/") for node in cluster.nodes for path in vars(node.paths).values())


@quick
@given(st.binary(max_size=200))
@example(b"[[[[")
@example(b"a.b = 1\n[a]\nb.c = 2")
@example(b"\xff\xfe")
def test_any_bytes(data: bytes) -> None:
    judge(data)


@quick
@given(st.sampled_from(SEEDS), st.data())
def test_a_mutated_file(seed: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(seed)))
        cut = data.draw(st.sampled_from([0, 0, 1, 2, 9, 40]))
        new = data.draw(st.sampled_from(TOKENS))
        seed = seed[:at] + new + seed[at + cut :]
    judge(seed)


@quick
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=6), NODES)
def test_any_value_under_any_key(keys: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    base: dict[str, dict[str, Any]] = {"cluster": {"name": "demo"}, "etcd": {"version": "3.5.16"}}
    for key, value in keys.items():
        section, _, name = key.partition(".")
        base.setdefault(section, {})[name] = value
    node = {"name": "n", "ip": "10.0.0.1"}
    listed = [node, *({**node, "name": f"m{i}", "ip": f"10.0.1.{i}", **extra} for i, extra in enumerate(nodes))]
    text = "".join(f"{section} = {dump(table)}\n" for section, table in base.items()) + f"nodes = {dump(listed)}\n"
    judge(text.encode())


@quick
@given(st.sampled_from(list(schema.NodeTable.model_fields)), texts)
def test_what_a_node_accepts_is_inert(field: str, value: str) -> None:
    text = f'[cluster]\nname = "a"\n[etcd]\nversion = "3.5.16"\n[[nodes]]\n{field} = {dump(value)}\n'
    for name, filler in (("name", '"n"'), ("ip", '"10.0.0.1"')):
        text += "" if name == field else f"{name} = {filler}\n"
    judge(text.encode())


@quick
@given(values)
def test_lines_never_fail_and_find_what_stands_there(value: Any) -> None:
    lines = key_lines(f"[a]\nb = {dump(value)}\nc = 1\n")
    assert lines[("a", "b")] == 2
    assert lines[("a", "c")] == 3


@quick
@given(st.text(max_size=80))
def test_lines_of_no_toml_at_all(text: str) -> None:
    assert all(line > 0 for line in key_lines(text).values())
