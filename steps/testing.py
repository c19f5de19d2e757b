# ruff: noqa: S101, PT017  assertions are what this module is for
"""For a plugin's tests: a cluster to give to it, a step's resources, a conformance suite for certificate backends.

pytest_plugins = ["steps.testing"]          # in conftest.py, for the fixtures `cluster`, `ca_request` and `hanging`

def test_mine(cluster, ca_request):
    check_backend(my_plugin.etcd_cert_backend("mine", cluster), ca_request)
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest

from steps.core.base.errors import CertificateError, ConfigError, StepsError
from steps.core.base.files import private_directory
from steps.core.base.problem import joined
from steps.core.base.report import Report
from steps.core.config import load as config
from steps.core.config.model import Cluster
from steps.core.context.context import Context
from steps.core.extensions.loader import load_file as load_plugin
from steps.core.extensions.manager import Plugins
from steps.core.node.facts import Look
from steps.core.node.resources import Resource
from steps.core.pipeline import former
from steps.core.pipeline.step import Step
from steps.core.tls import pki, validate
from steps.core.tls.contracts import NO_HOST, CARequest, CertBackend, LeafProfile
from steps.core.transport.pool import Hosts

T = TypeVar("T")
KEY = "ecdsa:p256"
SUBJECT = {"C": "CN", "O": "etcd"}
MEMBER = LeafProfile("etcd-1", "member", "etcd-1", SUBJECT, ("10.0.0.1", "etcd-1", "localhost", "::1"), 90)
CLIENT = LeafProfile("operator", "client", "root", SUBJECT, (NO_HOST,), 30)
CONCURRENT = 6
NODES = """
[cluster]
name = "test"
[etcd]
version = "3.5.16"
[[nodes]]
name = "etcd-1"
ip = "10.0.0.1"
[[nodes]]
name = "etcd-2"
ip = "10.0.0.2"
[[nodes]]
name = "etcd-3"
ip = "10.0.0.3"
"""


def make_cluster(directory: Path, more: str = "", plugin: Any = None, name: str = "plugin") -> Cluster:
    """Three nodes behind SSH, as an etcd.toml in `directory` with the lines `more` (TOML) would describe them.

    `plugin`: the module or object under test; its options, `[plugins.NAME]`, and its `etcd_validate` are heeded.
    Raises ConfigError.
    """
    plugins = Plugins()
    if plugin is not None:
        plugins.register(name, str(getattr(plugin, "__file__", name)), plugin)
        plugins.raise_problems()
    cluster = config.parse((NODES + more).encode(), directory / "etcd.toml", options=plugins.options())
    problems = [problem for problem in plugins.validate(cluster) if problem.code.startswith("plugin.")]
    if problems:
        raise ConfigError(str(cluster.file), problems)
    return cluster


def make_context(cluster: Cluster, looks: Mapping[str, Look] | None = None) -> Context:
    """Return a context as in a dry run, without plugins; no node can be reached. `looks`: by the node's name."""
    ctx = Context(cluster, Hosts(cluster, locked=False), Report(), Plugins(), dry=True)
    ctx.looks.update(looks or {})
    return ctx


def resources(step: Step, cluster: Cluster, ctx: Context | None = None) -> dict[str, list[Resource]]:
    """Node → what the step wants there; `ctx`: else that of make_context. Raises what the step raises."""
    asked = ctx or make_context(cluster)
    return {node.name: list(former.desired(step, asked, node)) for node in cluster.nodes}


def check_backend(backend: CertBackend, request: CARequest | None = None, *, deadline: float = 30) -> None:
    """Raises AssertionError where a backend does not keep the contract; `deadline`: seconds that any call may take.

    `request` is for a CA that it may make (or has); without one, a directory that is removed afterwards. Asserts:
    the same CA on the second call; subject, SANs, usages, key, issuer and lifetime of a member's and a client's leaf;
    an empty and a garbage request refused; signing in several threads at once; no private key on stdout, stderr or in
    an error.
    """
    with tempfile.TemporaryDirectory() as folder, _overheard() as heard:
        if request is None:
            request = CARequest("test-ca", SUBJECT, KEY, 3650, Path(folder, "ca", "backend"))
            private_directory(request.dir)
        ca = _timed(lambda: backend.ca(request), deadline, "ca()")
        assert not (wrong := validate.ca_problems(ca, now=_now())), f"ca(): {joined(wrong)}"
        again = _timed(lambda: backend.ca(request), deadline, "ca(), the second time,")
        assert _fingerprints(again) == _fingerprints(ca), "ca() made another CA on the second call"
        for profile in (MEMBER, CLIENT):
            _check_leaf(backend, ca, profile, deadline)
        for what, csr in (("an empty request", b""), ("garbage", b"garbage"), ("a certificate as request", ca)):
            _check_refusal(backend, csr, what, deadline)
        names = [f"etcd-{number}" for number in range(1, CONCURRENT + 1)]
        profiles = [replace(MEMBER, name=name, cn=name, sans=(name, "10.0.0.9")) for name in names]
        with ThreadPoolExecutor(CONCURRENT) as pool:
            serials = list(pool.map(lambda profile: _check_leaf(backend, ca, profile, deadline), profiles))
        assert len(set(serials)) == CONCURRENT, f"serial numbers were used twice: {serials}"
    assert b"PRIVATE KEY" not in heard(), "a private key was printed"


def _check_leaf(backend: CertBackend, ca: bytes, profile: LeafProfile, deadline: float) -> int:
    """Signs a new request and asserts what came back. Returns the serial number."""
    key = pki.new_key(KEY)
    csr = pki.new_csr(key, profile)
    pem = _timed(lambda: backend.sign(csr, profile), deadline, f"sign({profile.name})")
    wrong = validate.leaf_problems(pem, ca_pem=ca, key=key, profile=profile, now=_now())
    assert not wrong, f"sign({profile.name}): {joined(wrong)}"
    leaf = pki.read(pem)[0]
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert abs(lifetime - timedelta(days=profile.days)) <= timedelta(days=1), (
        f"sign({profile.name}): lives {lifetime}, not the {profile.days} days that were asked for"
    )
    return leaf.serial_number


def _check_refusal(backend: CertBackend, csr: bytes, what: str, deadline: float) -> None:
    try:
        pem = _timed(lambda: backend.sign(csr, MEMBER), deadline, f"sign() of {what}")
    except StepsError as error:
        assert "PRIVATE KEY" not in f"{error} {error.hint}", f"sign() of {what}: its error shows a private key"
        return
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"sign() of {what} raised {type(error).__name__}; raise CertificateError or StepFailed from steps.api"
        ) from error
    try:
        pki.read(pem)
    except CertificateError:
        raise AssertionError(f"sign() of {what} returned {pem[:40]!r}; it should raise CertificateError") from None
    raise AssertionError(f"sign() of {what} returned a certificate")


def _timed(call: Callable[[], T], deadline: float, what: str) -> T:
    """The call's result. A call that does not come back fails the test; its thread ends with the process."""
    import threading

    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  handed over to the caller
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return future.result(deadline)
    except NotDone as error:
        if future.done():
            raise
        raise AssertionError(f"{what} was not done within {deadline} s") from error


@contextmanager
def _overheard() -> Iterator[Callable[[], bytes]]:
    """What is written to stdout and stderr inside, by this process or its children; it is passed on afterwards."""
    said = b""
    with tempfile.TemporaryFile() as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        before = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield lambda: said
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, kept in zip((1, 2), before, strict=True):
                os.dup2(kept, number)
                os.close(kept)
            file.seek(0)
            said = file.read()
            os.write(1, said)


def _fingerprints(pem: bytes) -> list[str]:
    return sorted(pki.fingerprint(certificate) for certificate in pki.read(pem))


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Hanging:
    """A program that never ends, with a child that never ends either; see the fixture `hanging`."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._pids = program.with_suffix(".pids")
        program.write_text(f'#!/bin/sh\nsleep 600 &\necho $$ $! >"{self._pids}"\nwait\n')
        program.chmod(0o700)

    def assert_killed(self, within: float = 5) -> None:
        """Asserts that the program ran, and that it and its child are gone within so many seconds."""
        assert self._pids.exists(), "the program was never started"
        pids = self._pids.read_text().split()
        ends = time.monotonic() + within
        while left := [pid for pid in pids if _alive(pid)]:
            assert time.monotonic() < ends, f"still running: {', '.join(left)}; kill the whole process group"
            time.sleep(0.02)


def _alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """Three nodes behind SSH; `make_cluster` makes others."""
    return make_cluster(tmp_path)


@pytest.fixture
def ca_request(tmp_path: Path) -> CARequest:
    """For a CA in a private directory of the test."""
    request = CARequest("test-ca", SUBJECT, KEY, 3650, tmp_path / "work" / "ca" / "backend")
    private_directory(request.dir)
    return request


@pytest.fixture
def hanging(tmp_path: Path) -> Hanging:
    """A signer that hangs: give `hanging.program` to a backend, expect its error, then `hanging.assert_killed()`."""
    return Hanging(tmp_path / "hanging")


__all__ = [
    "Hanging",
    "ca_request",
    "check_backend",
    "cluster",
    "hanging",
    "load_plugin",
    "make_cluster",
    "make_context",
    "resources",
]
