"""What was distributed to a cluster, kept in its work directory: plan compares where the cache is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from steps.core.release.binaries import REQUIRED
from steps.core.release.contracts import ReleaseSource
from steps.core.release.releases import Staged, foreign

FILE = "releases.json"


def with_release(text: str, staged: Staged) -> str:
    """The record with a release that is about to be distributed. What was distributed before stays: it may run yet.

    `text`: the record as it is, empty where there is none.
    """
    kept = _read(text)
    document = {**kept, staged.version: {**kept.get(staged.version, {}), staged.arch: _entry(staged)}}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def digests(
    text: str, version: str, arch: str, *, sources: Mapping[str, ReleaseSource], pin: str | None
) -> Mapping[str, str]:
    """Binary's name → its digest (steps.core.base.digest), where `sources` and `pin` would give the same release again.

    Empty where that is not known: another version, source or pin, or no record at all.
    """
    try:
        entry = _read(text)[version][arch]
        found = dict(entry["digests"])
        return {} if foreign(entry, sources, pin) or not {*REQUIRED} <= {*found} else found
    except (KeyError, TypeError, ValueError):
        return {}


def version_of(text: str, digest: str) -> str:
    """Return the version of the etcd that has this digest (steps.core.base.digest), or ""."""
    for version, entries in _read(text).items():
        for entry in entries.values():
            if isinstance(entry, dict) and (entry.get("digests") or {}).get("etcd") == digest:
                return version
    return ""


def _entry(staged: Staged) -> Mapping[str, Any]:
    return {
        "source": staged.source,
        "origin": staged.origin,
        "tarball": staged.tarball,
        "digests": {name: blob.digest for name, blob in staged.binaries.items()},
    }


def _read(text: str) -> dict[str, Any]:
    """Versions → architectures → entries; empty where it is no record of ours."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    whole = isinstance(document, dict) and all(isinstance(entries, dict) for entries in document.values())
    return document if whole else {}
