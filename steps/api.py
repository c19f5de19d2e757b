"""All that a plugin imports. What is heavy (cryptography, downloads, apt) is loaded when it is first named.

Import the capitalised types and `hookimpl` at a plugin's top; import `pki`, `download`, `unpacked` and other helpers
inside the functions that use them, so that `invoke --list` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from steps.core.base.errors import (
    CertificateError,
    Pending,
    PluginError,
    Refused,
    SourceUnavailable,
    StepFailed,
    StepsError,
    Unhealthy,
)
from steps.core.base.files import private_directory, replace
from steps.core.base.hints import invoke
from steps.core.base.option import Option
from steps.core.config.model import Cluster, Node
from steps.core.context.context import Check
from steps.core.extensions.hookspecs import hookimpl
from steps.core.node.resources import Block, Command, Directory, File, Promise, Resource, Service, Symlink, User
from steps.core.pipeline.step import Step
from steps.core.release.contracts import Release, ReleaseSource
from steps.core.tls.contracts import NO_HOST, CARequest, CertBackend, LeafProfile

if TYPE_CHECKING:
    from steps.builtin.debian import unpacked
    from steps.core.context.context import Context
    from steps.core.node.facts import Look
    from steps.core.release import tarball
    from steps.core.release.binaries import own_arch, run
    from steps.core.release.releases import TarballRelease
    from steps.core.release.web import download
    from steps.core.tls import cfssl_policy, pki
    from steps.core.tls.authority import configured_ca, shared_ca
    from steps.core.tls.store import Store
    from steps.core.transport.shell_session import Result

_LATER = {
    "Context": "steps.core.context.context",
    "Look": "steps.core.node.facts",
    "configured_ca": "steps.core.tls.authority",
    "Result": "steps.core.transport.shell_session",
    "Store": "steps.core.tls.store",
    "TarballRelease": "steps.core.release.releases",
    "download": "steps.core.release.web",
    "own_arch": "steps.core.release.binaries",
    "run": "steps.core.release.binaries",
    "shared_ca": "steps.core.tls.authority",
    "unpacked": "steps.builtin.debian",
}
_MODULES = {
    "cfssl_policy": "steps.core.tls.cfssl_policy",
    "pki": "steps.core.tls.pki",
    "tarball": "steps.core.release.tarball",
}

__all__ = [
    "NO_HOST",
    "Block",
    "CARequest",
    "CertBackend",
    "CertificateError",
    "Check",
    "Cluster",
    "Command",
    "Context",
    "Directory",
    "File",
    "LeafProfile",
    "Look",
    "Node",
    "Option",
    "Pending",
    "PluginError",
    "Promise",
    "Refused",
    "Release",
    "ReleaseSource",
    "Resource",
    "Result",
    "Service",
    "SourceUnavailable",
    "Step",
    "StepFailed",
    "StepsError",
    "Store",
    "Symlink",
    "TarballRelease",
    "Unhealthy",
    "User",
    "cfssl_policy",
    "configured_ca",
    "download",
    "hookimpl",
    "invoke",
    "own_arch",
    "pki",
    "private_directory",
    "replace",
    "run",
    "shared_ca",
    "tarball",
    "unpacked",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"steps.api has no {name!r}")
