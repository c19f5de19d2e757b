"""The files that `invoke plugin.new` writes."""

from __future__ import annotations

import re
from pathlib import Path

from steps.core.base.errors import Refused, UsageError

STEP = '''"""A step of our own: `invoke @NAME@`, and part of `invoke all`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.api import File, Node, Resource, Step, hookimpl

if TYPE_CHECKING:
    from steps.api import Context


class @CLASS@(Step):
    """Say here what it does: this line stands in `invoke --list`"""

    name = "@NAME@"
    after = "env"

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        yield File(f"{node.paths.unit}/@NAME@.txt", f"{node.name} of {ctx.cluster.name}\\n")


@hookimpl
def etcd_steps() -> list[Step]:
    return [@CLASS@()]
'''

STEP_TEST = """from __future__ import annotations

from pathlib import Path

from steps.api import Cluster
from steps.testing import cluster, load_plugin, resources

__all__ = ["cluster"]
plugin = load_plugin(Path(__file__).parents[1] / "@NAME@.py")


def test_every_node_gets_its_file(cluster: Cluster) -> None:
    (step,) = plugin.etcd_steps()
    wanted = resources(step, cluster)
    assert [file.content for file in wanted["etcd-2"]] == ["etcd-2 of test\\n"]
"""

BACKEND = '''"""A certificate backend of our own: [tls] backend = "@NAME@"."""

from __future__ import annotations

import subprocess

from steps.api import CARequest, CertBackend, CertificateError, Cluster, LeafProfile, StepFailed, hookimpl

DEADLINE = 30  # seconds


@hookimpl
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    return @CLASS@() if name == "@NAME@" else None


class @CLASS@:
    """Works with openssl(1) and a CA in its own directory: put your signer in its place."""

    def ca(self, request: CARequest) -> bytes:
        self._dir = request.dir
        if not (self._dir / "ca.pem").exists():
            subject = "".join(f"/{key}={value}" for key, value in {**request.subject, "CN": request.cn}.items())
            extensions = ["basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign"]
            options = [word for extension in extensions for word in ("-addext", extension)]
            new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            files = ["-keyout", self._dir / "ca-key.pem", "-out", self._dir / "ca.pem"]
            self._openssl("req", "-x509", *new, *files, "-subj", subject, "-days", request.days, *options)
        return (self._dir / "ca.pem").read_bytes()

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        from steps.api import pki

        pki.read_csr(csr, f"{profile.name}: request")  # raises CertificateError
        ca = ["-CA", self._dir / "ca.pem", "-CAkey", self._dir / "ca-key.pem"]
        pem = self._openssl("x509", "-req", *ca, "-copy_extensions", "copy", "-days", profile.days, stdin=csr)
        if "BEGIN CERTIFICATE" not in pem:
            raise CertificateError(profile.name, ["openssl printed no certificate"])
        return pem.encode()

    def _openssl(self, *words: object, stdin: bytes = b"") -> str:
        from steps.api import run

        try:
            done = run(["openssl", *map(str, words)], deadline=DEADLINE, stdin=stdin.decode())
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StepFailed(f"openssl {words[0]}: {error}") from error
        if done.returncode:
            raise StepFailed(f"openssl {words[0]} failed: {done.stderr[-300:]}")
        return done.stdout
'''

BACKEND_TEST = """from __future__ import annotations

from pathlib import Path

from steps.api import CARequest, Cluster
from steps.testing import ca_request, check_backend, cluster, load_plugin

__all__ = ["ca_request", "cluster"]
plugin = load_plugin(Path(__file__).parents[1] / "@NAME@.py")


def test_it_keeps_the_contract(cluster: Cluster, ca_request: CARequest) -> None:
    check_backend(plugin.etcd_cert_backend("@NAME@", cluster), ca_request)


def test_other_names_are_others(cluster: Cluster) -> None:
    assert plugin.etcd_cert_backend("builtin", cluster) is None
"""

KINDS = {"step": (STEP, STEP_TEST), "backend": (BACKEND, BACKEND_TEST)}


def written(folder: Path, name: str, kind: str, *, dry: bool = False) -> tuple[Path, Path]:
    """Writes `folder`/NAME.py and `folder`/tests/test_NAME.py. Raises UsageError, and Refused where one is there.

    `dry`: writes nothing.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        raise UsageError(f"{name!r} cannot name a plugin: a-z and 0-9, a letter first")
    files = (folder / f"{name}.py", folder / "tests" / f"test_{name}.py")
    for file in files:
        if file.exists():
            raise Refused(f"{file} exists and is not written over", hint="take another name")
    for file, text in zip(files, KINDS[kind], strict=True) if not dry else ():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("@NAME@", name).replace("@CLASS@", name.capitalize()), encoding="utf-8")
    return files
