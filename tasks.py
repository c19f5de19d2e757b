"""All tasks of `invoke`: the phases, what operates a cluster, and what plugins add."""

import gc
import sys
from pathlib import Path

# Invoke turns it off for all that it loads, and what is not kept is compiled anew at every start.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
# What is loaded stays to the end: to search it for garbage after every 700 objects takes 40 ms, and once 20.
# A run on three hosts makes some 80,000.
gc.set_threshold(100_000)

from steps.program import tasks  # noqa: E402  see above

ns = tasks(Path(__file__).resolve().parent)
