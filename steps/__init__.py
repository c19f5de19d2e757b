"""etcd-steps: one file, etcd.toml, becomes a healthy etcd cluster. Here, and only here, stands the phases' order."""

from __future__ import annotations

from steps.ca import CA
from steps.certs import Certs
from steps.core.pipeline.step import Step
from steps.distribute import Distribute
from steps.download import Download
from steps.env import Env
from steps.start import Start
from steps.units import Units
from steps.verify import Verify

PIPELINE: tuple[type[Step], ...] = (Env, Download, Distribute, CA, Certs, Units, Start, Verify)
