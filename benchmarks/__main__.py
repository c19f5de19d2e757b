"""`benchmarks/run`: all rows, or those that are named."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import results
from benchmarks.bench import Bench, Row
from benchmarks.contenders import HERE
from benchmarks.rows import ROWS

RUNS = 5


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measures this project beside others on the test hosts. Prints and never asserts.",
        epilog="All rows with at least five runs are written to benchmarks/RESULTS.md; fewer only with --out.",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(ROWS)}")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"samples of each contender (default: {RUNS})")
    parser.add_argument("--out", type=Path, help="write the results there")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    out = args.out or (None if args.rows or args.runs < RUNS else HERE / "RESULTS.md")
    busy = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="etcd-benchmarks-"))
    done = []
    try:
        with ExitStack() as stack:
            bench = Bench(folder, args.runs, say, stack)
            for name in args.rows or ROWS:
                say(f"==> {name}")
                try:
                    row = ROWS[name](bench)
                except RuntimeError as error:  # the other rows' hour is not lost
                    say(str(error))
                    row = Row(name, notes=[f"failed: {str(error).splitlines()[0]}"])
                done.append(row)
                say("\n".join(["", *results.told(row), ""]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("\n".join(results.targets(done)))
    if out:
        out.write_text(results.document(done, busy), encoding="utf-8")
        say(f"written: {out}")


if __name__ == "__main__":
    main()
