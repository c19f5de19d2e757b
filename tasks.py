"""All tasks of `invoke`: the phases, what operates a cluster, and what plugins add."""

from pathlib import Path

from steps import PIPELINE
from steps.core.namespace import namespace
from steps.ops import OPERATIONS

ns = namespace(Path(__file__).resolve().parent, PIPELINE, OPERATIONS)
