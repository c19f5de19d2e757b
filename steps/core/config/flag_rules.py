"""The rules for etcd's flags: which are ours, which are refused, and what etcd would refuse to start with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from steps.core.base.versions import series
from steps.core.config.findings import Finding, Nodes, flag_tables
from steps.core.config.schema import FLAGS, GIB, Etcd, Tls

# Flags that the program writes itself, and what to set instead.
MANAGED: Mapping[str, str] = {
    "name": "[[nodes]] name",
    "data-dir": "[paths] data",
    "wal-dir": "[paths] wal",
    "listen-client-urls": "[[nodes]] ip and client_port",
    "listen-peer-urls": "[[nodes]] ip and peer_port",
    "listen-metrics-urls": "[etcd] metrics_port",
    "listen-client-http-urls": "[etcd] metrics_port, for a port that wants no certificate",
    "advertise-client-urls": "[[nodes]] ip and client_port",
    "initial-advertise-peer-urls": "[[nodes]] ip and peer_port",
    "initial-cluster": "[[nodes]]",
    "initial-cluster-token": "[cluster] token",
    "initial-cluster-state": "nothing: what the members hold decides it",
    **dict.fromkeys(("cert-file", "key-file", "trusted-ca-file", "client-cert-auth", "auto-tls", "ca-file"), "[tls]"),
    **dict.fromkeys(("peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-ca-file"), "[tls]"),
    **dict.fromkeys(("peer-client-cert-auth", "peer-auto-tls", "client-cert-file", "client-key-file"), "[tls]"),
    **dict.fromkeys(("peer-client-cert-file", "peer-client-key-file"), "[tls]"),
    **dict.fromkeys(("discovery", "discovery-srv", "discovery-srv-name", "discovery-endpoints"), "[[nodes]]"),
    "config-file": "[etcd.flags]",
    # With them a client's certificate could pass for a member's.
    **dict.fromkeys(("peer-skip-client-san-verification", "experimental-peer-skip-client-san-verification"), "[tls]"),
    **dict.fromkeys(("peer-cert-allowed-cn", "peer-cert-allowed-hostname"), "[tls]"),
}
MANAGED_FLAGS = frozenset(MANAGED)
REFUSED: Mapping[str, str] = {
    "force-new-cluster": "it discards the other members",
    "unsafe-no-fsync": "it loses acknowledged writes",
    "version": "etcd would print it and exit",
    "help": "etcd would print it and exit",
}
NUMBERS: Mapping[str, tuple[int, int]] = {
    "heartbeat-interval": (1, 10000),
    "election-timeout": (5, 50000),
    "quota-backend-bytes": (0, (1 << 63) - 1),
    "max-request-bytes": (1, (1 << 31) - 1),
    "max-txn-ops": (1, (1 << 31) - 1),
    "max-snapshots": (0, (1 << 31) - 1),
    "max-wals": (0, (1 << 31) - 1),
    "snapshot-count": (1, (1 << 63) - 1),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "auto-compaction-mode": ("periodic", "revision"),
    "tls-min-version": ("TLS1.2", "TLS1.3"),
    "tls-max-version": ("TLS1.2", "TLS1.3"),
}
TLS_FLAGS = ("cipher-suites", "tls-min-version", "tls-max-version", "client-crl-file")
# etcd renamed these in 3.6 (its CHANGELOG; server/embed/config.go). 3.6 dies of an old name next to its new one, which
# `etcd --version` does not notice; 3.7 knows only the new ones.
_EXPERIMENTAL = "experimental-"
RENAMED: Mapping[str, str] = {
    _EXPERIMENTAL + name: name
    for name in (
        "bootstrap-defrag-threshold-megabytes",
        "compact-hash-check-time",
        "compaction-batch-limit",
        "compaction-sleep-interval",
        "corrupt-check-time",
        "distributed-tracing-address",
        "distributed-tracing-instance-id",
        "distributed-tracing-sampling-rate",
        "distributed-tracing-service-name",
        "downgrade-check-time",
        "enable-distributed-tracing",
        "memory-mlock",
        "snapshot-catchup-entries",
        "warning-apply-duration",
        "warning-unary-request-duration",
        "watch-progress-notify-interval",
    )
}
TO_GATES: Mapping[str, str] = {
    "experimental-initial-corrupt-check": "InitialCorruptCheck",
    "experimental-compact-hash-check-enabled": "CompactHashCheck",
    "experimental-enable-lease-checkpoint": "LeaseCheckpoint",
    "experimental-enable-lease-checkpoint-persist": "LeaseCheckpointPersist",
    "experimental-stop-grpc-service-on-defrag": "StopGRPCServiceOnDefrag",
    "experimental-txn-mode-write-with-shared-buffer": "TxnModeWriteWithSharedBuffer",
}
OWN_NAMES = (3, 6)  # from here on
SINCE_3_6 = frozenset(("feature-gates", "log-format", "max-learners", *RENAMED.values()))
_PROXY = ("dial-timeout", "failure-wait", "read-timeout", "refresh-interval", "write-timeout")
GONE: Mapping[str, tuple[tuple[int, int], str]] = {
    "debug": ((3, 5), 'log-level = "debug"'),
    "log-package-levels": ((3, 5), "log-level"),
    "experimental-backend-bbolt-freelist-type": ((3, 5), "backend-bbolt-freelist-type"),
    **dict.fromkeys(("enable-v2", "experimental-enable-v2v3"), ((3, 6), "")),
    **dict.fromkeys(("proxy", *(f"proxy-{name}" for name in _PROXY)), ((3, 6), "")),
    "discovery-proxy": ((3, 7), ""),
}
GO_FALSE = {"0", "f", "F", "false", "False", "FALSE"}
DURATION = r"([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+"


def flag_names(etcd: Etcd, nodes: Nodes) -> Iterator[Finding]:
    for where, flags in flag_tables(etcd, nodes):
        for name, value in flags.items():
            if name in MANAGED:
                yield Finding(
                    "config.flag-refused",
                    (*where, name),
                    "written by this program, not by hand",
                    f"set {MANAGED[name]}",
                )
            if name in REFUSED and value not in GO_FALSE:
                yield Finding("config.flag-refused", (*where, name), f"refused: {REFUSED[name]}", "remove it")
            if name == "strict-reconfig-check" and value in GO_FALSE:
                yield Finding(
                    "config.flag-refused",
                    (*where, name),
                    f'found "{value}", refused: it lets a change lose the quorum',
                    "remove it",
                )


def flag_versions(etcd: Etcd, nodes: Nodes) -> Iterator[Finding]:
    for where, flags in flag_tables(etcd, nodes):
        for name, value in flags.items():
            message, hint = misfit(name, value, etcd.version)
            if message:
                yield Finding("config.flag-version", (*where, name), message, hint)


def misfit(name: str, value: str, version: str) -> tuple[str, str]:
    """Why etcd `version` does not take a flag, and what to set instead; two empty strings where it does."""
    own = series(version)
    here = f"etcd {own}"
    if name == "log-format" and value != "json":
        return f'found "{value}", allowed "json": what etcd logs is read as JSON', "remove it"
    if name in GONE and own >= GONE[name][0]:
        return f"{here} does not have it any more", f"set {GONE[name][1]}" if GONE[name][1] else "remove it"
    return (_of_new_names if own >= OWN_NAMES else _of_old_names)(name, value, here)


def _of_new_names(name: str, value: str, here: str) -> tuple[str, str]:
    if name in TO_GATES:
        gate = f"{TO_GATES[name]}={'false' if value in GO_FALSE else 'true'}"
        return f"{here} has a feature gate for it", f'set feature-gates = "{gate}"'
    if name.startswith(_EXPERIMENTAL):
        new = RENAMED.get(name)
        return (f"{here} calls it {new}", f"set {new}") if new else (f"{here} does not have it any more", "remove it")
    return "", ""


def _of_old_names(name: str, value: str, here: str) -> tuple[str, str]:
    if name not in SINCE_3_6:
        return "", ""
    if name == "feature-gates":
        old = [flag for flag, gate in TO_GATES.items() if re.search(rf"\b{gate}=", value)]
    else:
        old = [old for old, new in RENAMED.items() if new == name]
    return f"{here} does not have it: it came with 3.6", f"set {', '.join(old)}" if old else "remove it"


def flag_values(etcd: Etcd, nodes: Nodes) -> Iterator[Finding]:
    for where, flags in flag_tables(etcd, nodes):
        for name, value in flags.items():
            low, high = NUMBERS.get(name, (0, 0))
            if high and not (re.fullmatch("-?[0-9]{1,19}", value) and low <= int(value) <= high):
                yield Finding("config.flag-value", (*where, name), f'found "{value}", allowed {low} to {high}')
            elif name == "quota-backend-bytes" and int(value) > 8 * GIB:
                yield Finding(
                    "config.flag-value", (*where, name), f"{value} bytes: etcd advises 8 GiB at most", warning=True
                )
            if name in CHOICES and value not in CHOICES[name]:
                choices = " or ".join(f'"{choice}"' for choice in CHOICES[name])
                yield Finding("config.flag-value", (*where, name), f'found "{value}", allowed {choices}')


def flag_pairs(etcd: Etcd, nodes: Nodes, tls: Tls) -> Iterator[Finding]:
    """What etcd refuses to start with: server/embed/config.go, Validate; docs/v3.6/tuning."""
    for where, own in flag_tables(etcd, nodes):
        flags = {**etcd.flags, **own}
        for pair, judge in (
            (("election-timeout", "heartbeat-interval"), _timing),
            (("auto-compaction-retention", "auto-compaction-mode"), _retention),
            (("tls-max-version", "tls-min-version"), _tls_versions),
            (("cipher-suites", "tls-min-version"), lambda flags: _ciphers(flags, tls)),
        ):
            key = next((name for name in pair if name in own), None)
            problem = judge(flags) if key else ""
            if key and problem:
                yield Finding("config.flag-pair", (*where, key), problem)


def _timing(flags: Mapping[str, str]) -> str:
    election, heartbeat = (flags.get(name, FLAGS[name]) for name in ("election-timeout", "heartbeat-interval"))
    whole = all(re.fullmatch("[0-9]{1,18}", value) for value in (election, heartbeat))
    if whole and int(election) < 5 * int(heartbeat):
        return f"found election-timeout {election} and heartbeat-interval {heartbeat}, allowed five times it or more"
    return ""


def _retention(flags: Mapping[str, str]) -> str:
    kept = flags.get("auto-compaction-retention")
    if flags.get("auto-compaction-mode") == "revision":
        if kept is None:
            return 'with mode "revision", auto-compaction-retention must say how many revisions are kept'
        return "" if re.fullmatch("[0-9]{1,18}", kept) else f'found "{kept}", allowed a number of revisions'
    if kept is not None and not re.fullmatch(rf"[0-9]{{1,9}}|{DURATION}", kept):
        return f'found "{kept}", allowed hours, or a duration such as "30m"'
    return ""


def _tls_versions(flags: Mapping[str, str]) -> str:
    low, high = flags.get("tls-min-version", ""), flags.get("tls-max-version", "")
    return f'found tls-max-version "{high}" under tls-min-version "{low}"' if high and high < low else ""


def _ciphers(flags: Mapping[str, str], tls: Tls) -> str:
    """Go's net/http2 demands an AES_128_GCM suite; the certificate's key decides which family can be used."""
    if not flags.get("cipher-suites"):
        return ""
    if flags.get("tls-min-version") == "TLS1.3":
        return "found cipher-suites with TLS1.3 alone, whose suites cannot be chosen"
    suites = [suite.strip() for suite in flags["cipher-suites"].split(",")]
    family = "ECDSA" if tls.key.startswith("ecdsa") else "RSA"
    needed = f"TLS_ECDHE_{family}_WITH_AES_128_GCM_SHA256"
    if not any(re.fullmatch("TLS_ECDHE_(RSA|ECDSA)_WITH_AES_128_GCM_SHA256", suite) for suite in suites):
        return f"found no AES_128_GCM suite, which HTTP/2 demands: allowed with {needed}"
    if not any(re.fullmatch(rf"TLS_(ECDHE_)?{family}_WITH_\w+", suite) for suite in suites):
        return f"found no suite for the key {tls.key}: allowed with {needed}"
    return ""
