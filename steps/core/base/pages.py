"""The sections of docs/ that messages name. A file and a heading that do not exist fail tests/unit/test_docs.py."""

from __future__ import annotations

REPLACE_A_MEMBER = 'docs/how-to/repair.md, "A member\'s data is gone"'
FOREIGN_CLUSTER = 'docs/how-to/repair.md, "A cluster that something else made"'
CHANGE_THE_SCHEME = 'docs/how-to/move-to-https.md, "From http to https"'
