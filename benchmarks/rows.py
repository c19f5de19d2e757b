"""What is measured: one function per kind of work. Contenders take turns, so that all see the same noise."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import configs
from deploy import outages

from benchmarks import contenders
from benchmarks.bench import Bench, Row, Target
from benchmarks.contenders import ROOT, Task
from benchmarks.kit import Kit
from benchmarks.where import START

RATE = 20_000_000  # bits a second of a slow link
ROUND_TRIP = 0.05  # seconds
LISTINGS = 10  # runs of what takes a part of a second
FIRST_PORT = 2201


def from_nothing(bench: Bench, count: int, names: tuple[str, ...], floor: float, pyinfra: float) -> Row:
    row = Row(f"from nothing, {count} hosts")
    argv = bench.kit(count).argv() if bench.kit(count) else []
    for run in range(bench.runs):
        first = run % len(names)  # nobody always comes behind the same one
        for name in names[first:] + names[:first]:
            kit = bench.kit_for(name, count)
            kit.clean()
            bench.take(kit, row, name, contenders.DEPLOY[name](kit))
            if kit.argv() != argv and (wrong := f"{name} starts etcd with other flags") not in row.notes:
                row.notes.append(wrong)
            kit.clean()
    row.want("floor", floor)
    row.want("pyinfra", pyinfra)
    row.notes.append(f"the floor itself takes {row.median('floor') / row.median('pyinfra'):.2f} of pyinfra's time")
    return row


def three_hosts(bench: Bench) -> Row:
    return from_nothing(bench, 3, ("floor", "how-to", "pyinfra", "ansible", "ours"), 1.5, 0.45)


def nine_hosts(bench: Bench) -> Row:
    return from_nothing(bench, 9, ("floor", "pyinfra", "ours"), 1.4, 0.4)


def nothing_to_do(bench: Bench) -> Row:
    row = Row("nothing to do, 3 hosts")
    for name in ("pyinfra", "ansible", "ours"):
        _again(bench, row, bench.kit_for(name, 3), name, contenders.DEPLOY[name], what="look")
    row.want("floor", 2.0)
    row.want("pyinfra", 0.5)
    return row


def plan(bench: Bench) -> Row:
    row = Row("plan, nothing to do, 21 hosts")
    kit = bench.kit(21)
    memory = _again(bench, row, kit, "ours", lambda kit: contenders.ours(kit, "plan"), what="glance")
    _again(bench, row, kit, "pyinfra", lambda kit: contenders.pyinfra(kit, "--dry"), what="glance")
    row.want("floor", 1.2)
    row.want("pyinfra", 0.5)
    row.targets.append(Target("peak memory of ours", memory / 1e6, 120, "MB"))
    return row


def _again(bench: Bench, row: Row, kit: Kit, name: str, task: Callable[[Kit], Task], *, what: str) -> int:
    """Samples of a contender on what it has deployed itself, and of the floor there. Returns its peak memory, bytes."""
    bench.deploy(kit, name)
    contenders.timed(kit.lab, task(kit))
    memory = 0
    for _ in range(bench.runs):
        bench.take(kit, row, "floor", contenders.floor(kit, what))
        memory = max(memory, bench.take(kit, row, name, task(kit)).memory)
    kit.clean()  # what runs is a load on whatever comes next
    return memory


def rolling(bench: Bench) -> Row:
    row = Row("one flag changed, rolling, 3 hosts")
    kit = bench.kit(3)
    bench.deploy(kit, "ours")
    spent: dict[str, list[float]] = {"restarts": [], "gates": [], "outside": []}
    taken = []
    for run in range(bench.runs):
        _edit(kit.config, kit.config, {"etcd": {"flags": {"heartbeat-interval": 200 + 10 * run}}})
        began = time.time()
        taken.append(_apart(bench, row, kit))
        parts = taken[-1]
        restarts = sum(back - stopped for stopped, back, _ in outages(kit.hosts) if stopped > began)
        start = sum(seconds for name, seconds in parts.items() if name.startswith("start"))
        spent["restarts"].append(restarts)
        spent["gates"].append(start - restarts)
        spent["outside"].append(sum(parts.values()) - start)
    row.parts = _median(taken)
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    row.notes.append(
        f"medians: etcd's own restarts {medians['restarts']:.2f} s, the gates around them {medians['gates']:.2f} s, "
        f"all else {medians['outside']:.2f} s, verify included"
    )
    row.targets.append(Target("ours outside restarts and gates", medians["outside"], 1.0, "s"))
    return row


def _edit(source: Path, target: Path, over: Mapping[str, object]) -> None:
    document = configs.merge(configs.loads(source.read_text(encoding="utf-8")), over)
    target.write_text(configs.dumps(document), encoding="utf-8")


def listing(bench: Bench) -> Row:
    row = Row("invoke --list")
    lab = bench.lab()
    empty = lab.state / "empty"
    empty.mkdir(exist_ok=True)
    (empty / "tasks.py").touch()
    words = [contenders.INVOKE, "--list"]
    for _ in range(max(bench.runs, LISTINGS)):
        row.add("empty", contenders.timed(lab, Task(words, cwd=empty, codes=(0, 1))).seconds)
        row.add("ours", contenders.timed(lab, Task(words)).seconds)
    row.want("empty", 2.0)
    return row


def slow_link(bench: Bench) -> Row:
    row = Row("from nothing, 3 hosts at 20 Mbit/s each")
    kit = bench.kit(3)
    tbf = f"rate {RATE} burst 32kbit latency 400ms".split()
    for host in kit.hosts:
        host.limit(str(RATE))
        kit.lab.output(["tc", "qdisc", "replace", "dev", host.name, "root", "tbf", *tbf])
    try:
        before = _sent(kit)
        for _ in range(bench.runs):
            kit.clean()
            bench.take(kit, row, "ours", contenders.ours(kit, "all"))
        carried = (_sent(kit) - before) / bench.runs
    finally:
        for host in kit.hosts:
            host.heal()
            kit.lab.output(["tc", "qdisc", "del", "dev", host.name, "root"])
    limit = 1.2 * kit.packed * 8 / RATE + 3
    row.targets.append(Target("ours", row.median("ours"), limit, "s"))
    row.notes.append(f"{kit.packed / 1e6:.1f} MB as a tar.gz; {carried / 1e6:.1f} MB went over the first host's link")
    return row


def _sent(kit: Kit) -> int:
    """Bytes that went to the first host so far."""
    said = kit.lab.output(["ip", "-json", "-statistics", "link", "show", "dev", kit.hosts[0].name])
    return int(json.loads(said)[0]["stats64"]["tx"]["bytes"])


def latency(bench: Bench) -> Row:
    row = Row("nothing to do, 3 hosts, 50 ms away")
    kit = bench.kit(3)
    bench.deploy(kit, "ours")
    ports = {host: FIRST_PORT + number for number, host in enumerate(kit.hosts)}
    delayed = kit.config.with_name("delayed.toml")
    nodes = [
        {"name": host.name, "ip": host.ip, "ssh": {"host": "127.0.0.1", "port": port}} for host, port in ports.items()
    ]
    _edit(kit.config, delayed, {"nodes": nodes})
    pairs = [f"{port}={host.ip}:22" for host, port in ports.items()]
    argv = [sys.executable, "-m", "benchmarks.delay", str(ROUND_TRIP / 2), *pairs]
    with kit.lab.popen(argv, cwd=ROOT) as proxy:
        try:
            if proxy.stdout is None or proxy.stdout.readline() != "ready\n":
                raise RuntimeError("the delaying proxy did not start")
            task = contenders.ours(kit, "all", config=delayed)
            contenders.timed(kit.lab, task)
            for _ in range(bench.runs):
                bench.take(kit, row, "ours", task)
        finally:
            proxy.kill()
    row.targets.append(Target("ours", row.median("ours"), 1 + 12 * ROUND_TRIP, "s"))
    return row


def where_nothing(bench: Bench) -> Row:
    return _where(bench, "where the time goes: nothing to do, 3 hosts", clean=False)


def where_deploy(bench: Bench) -> Row:
    return _where(bench, "where the time goes: from nothing, 3 hosts", clean=True)


def _where(bench: Bench, title: str, *, clean: bool) -> Row:
    """The run with the median duration, taken apart."""
    row = Row(title)
    kit = bench.kit(3)
    bench.deploy(kit, "ours")
    taken = []
    for _ in range(bench.runs):
        if clean:
            kit.clean()
        taken.append(_apart(bench, row, kit))
    row.parts = _median(taken)
    return row


def _apart(bench: Bench, row: Row, kit: Kit) -> Mapping[str, float]:
    """One `invoke all`, and how long each part of it took."""
    file = kit.folder / "where.json"
    argv = [sys.executable, "-m", "benchmarks.where", str(file), "all"]
    taken = bench.take(kit, row, "ours", Task(argv, env={"ETCD_CONFIG": str(kit.config)}))
    told = json.loads(file.read_text(encoding="utf-8"))
    before, after = told["began"] - taken.began, taken.began + taken.seconds - told["ended"]
    return {**told["seconds"], START: told["seconds"][START] + before, "the interpreter's end": after}


def _median(taken: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return dict(sorted(taken, key=lambda parts: sum(parts.values()))[len(taken) // 2])


ROWS: Mapping[str, Callable[[Bench], Row]] = {
    "list": listing,
    "from-nothing": three_hosts,
    "nothing-to-do": nothing_to_do,
    "rolling": rolling,
    "slow-link": slow_link,
    "latency": latency,
    "where-nothing-to-do": where_nothing,
    "where-from-nothing": where_deploy,
    "nine-hosts": nine_hosts,
    "plan": plan,
}
