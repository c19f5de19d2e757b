"""Real hosts at hand: `lab up 3`, `lab shell etcd-2`, `lab config`, `lab run .venv/bin/invoke all`, `lab down`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from lab import KEPT, Lab
from processes import LabError
from releases import serve

CONFIG = KEPT / "etcd.toml"


def up(count: int) -> None:
    try:
        lab = Lab.load(KEPT)
    except LabError:
        lab = Lab.up(0, state=KEPT, keep=True)
    lab.ensure(count)
    describe(lab)
    for host in lab.hosts:
        sys.stdout.write(f"{host.name}  {host.ip}  {host.ip6}\n")
    sys.stdout.write(f"{CONFIG} describes them; only `lab run COMMAND` reaches them: lab run .venv/bin/invoke all\n")


def describe(lab: Lab) -> Path:
    """The hosts' etcd.toml. Written once, with the hosts of then: people edit it."""
    if not CONFIG.exists():
        lab.defaults = serve(lab).settings
        lab.config(into=KEPT)
    return CONFIG


def enter(argv: list[str], environment: dict[str, str]) -> None:
    os.execvpe(argv[0], argv, environment)


def main() -> None:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start hosts, or more of them").add_argument("count", type=int, nargs="?", default=3)
    commands.add_parser("shell", help="log in on a host as root").add_argument("name")
    commands.add_parser("config", help="print the etcd.toml that reaches the first of them")
    run = commands.add_parser("run", help="run a command where the hosts are reachable, with that etcd.toml")
    run.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("down", help="remove the hosts")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("real hosts need root")
    if args.command == "up":
        up(args.count)
        return
    lab = Lab.load(KEPT)
    if args.command == "shell":
        host = next((host for host in lab.hosts if host.name == args.name), None)
        if host is None:
            parser.error(f"there is no {args.name}; there are {', '.join(host.name for host in lab.hosts)}")
        enter([*host.enter(), "bash", "--login"], dict(os.environ))
    elif args.command == "config":
        sys.stdout.write(describe(lab).read_text(encoding="utf-8"))
    elif args.command == "run":
        chosen = os.environ.get("ETCD_CONFIG") or str(describe(lab))
        enter([*lab.net, *args.words], {**lab.environment, "ETCD_CONFIG": chosen})
    else:
        lab.down()
        shutil.rmtree(KEPT)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"lab: {error}")
