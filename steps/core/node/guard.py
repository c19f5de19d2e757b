"""Shell functions with which root works next to a user who may plant links, fifos and programs: etcd's own."""

from __future__ import annotations

from steps.core.base.shell import text

ENTER = text(__file__, "enter.sh")
SAFE = text(__file__, "safe.sh")  # needs ENTER
PLAIN = text(__file__, "plain.sh")
AS_OURSELVES = text(__file__, "ourselves.sh")  # instead of ENTER and SAFE, where the member runs as whoever logs in
