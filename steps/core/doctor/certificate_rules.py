"""What is wrong with the certificate and the CA that lie on a node. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from steps.core.base.digest import digest
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.checks import node_checks
from steps.core.doctor.clue import Clue, deployed
from steps.core.doctor.cluster_rules import ca
from steps.core.doctor.evidence import Evidence, NodeEvidence


def certificate(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """The certificate that lies on the node, judged as every new one is; its key by the digest alone."""
    if not evidence.cluster.tls.enabled or evidence.ca is None or case.look is None or not deployed(evidence, case):
        return
    if any(ca(evidence)):
        return  # no certificate is better than its CA, and none can be issued
    from steps.core.base.errors import CertificateError
    from steps.core.tls import pki, profiles, validate

    home = case.node.paths.cert
    entry, key = (case.look.entries.get(f"{home}/{name}") for name in ("etcd.pem", "etcd-key.pem"))
    if entry is None or entry.content is None or case.issued is None:
        none = next(iter(case.tls), "this controller has issued none for it")  # or what it has is damaged
        missing = f"{home}/etcd.pem is not there" if case.issued else none
        yield Clue("wrong-certificate", missing)
        return
    pem, (cert, issued_key) = entry.content.encode("utf-8", "surrogateescape"), case.issued
    try:
        # Is the key on the node the issued one, the certificate must be its other half; else nobody can tell from here.
        same = key is not None and key.digest == digest(issued_key)
        mine = issued_key if same else pem
        problems = validate.leaf_problems(
            pem, ca_pem=evidence.ca, key=mine, profile=profiles.member(evidence.cluster, case.node), now=evidence.now
        )
        if not same and pki.read(pem)[0] == pki.read(cert)[0]:
            said = "public key: the key on the node is not the one that was issued with it"
            problems.append(Problem("certificate.other-key", said))
    except CertificateError as error:
        problems = [error.problem("certificate.unreadable", "")]
    for problem in problems:
        failure = _FAILURES.get(problem.code, "wrong-certificate")
        say = _own_ca(case) if failure == "ca-mismatch" else ""
        yield Clue(failure, f"{home}/etcd.pem: {problem.message}", say=say)


_FAILURES = {
    "certificate.expired": "expired-certificate",
    "certificate.not-yet-valid": "expired-certificate",
    "certificate.other-key": "key-mismatch",
    "certificate.other-issuer": "ca-mismatch",
}


def _own_ca(case: NodeEvidence) -> str:
    return invoke(f"ca certs start --node {case.node.name}")


def trusted(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Where the other nodes trust this controller's CA, the node's file is wrong; else the controller is."""
    if case.look is None or evidence.ca is None:
        return
    if said := node_checks.trusts_another(evidence.cluster, case.node, case.look, evidence.ca):
        others = [each for each in evidence.nodes if each is not case and each.look is not None]
        wrong_here = any(
            f"{each.node.paths.cert}/ca.pem" in each.look.entries
            and not node_checks.trusts_another(evidence.cluster, each.node, each.look, evidence.ca)
            for each in others
            if each.look is not None
        )
        home = case.node.paths.cert
        aside = f"on {case.node.name}: mv {home}/ca.pem {home}/ca.pem.foreign, then: {_own_ca(case)}"
        copy = f"copy {evidence.cluster.work / 'ca'} and certs from the controller that made the cluster"
        yield Clue("ca-mismatch", said, say=aside if wrong_here else copy)
