"""The failures that are known by name: what each is, which command mends it, and what the logs say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steps.core.base.errors import DONE, UNHEALTHY, UNKNOWN
from steps.core.base.hints import invoke
from steps.core.base.pages import FOREIGN_CLUSTER, REPLACE_A_MEMBER


@dataclass(frozen=True)
class Failure:
    """A known failure. `mend` may use {node}, {ctl} (etcdctl, its environment sourced), {cert}, {ca}, {id}, {say} …

    `aside`: it does not explain why a member does not serve. `code`: what `invoke doctor` exits with because of it.
    """

    what: str
    mend: str
    aside: bool = False
    code: int = UNHEALTHY


_START, _UNITS = invoke("start --node {node}"), invoke("units start --node {node}")
_LEAVE = (
    "nothing is to be done by this tool, which does not manage it and changes nothing of it; to have its keys in a "
    f"cluster of this tool: {FOREIGN_CLUSTER}"
)

FAILURES: Mapping[str, Failure] = {
    "host-unreachable": Failure("the host could not be asked", "{say}", code=UNKNOWN),
    "no-answer": Failure("the member does not answer the others, and its host could not be asked", "{say}"),
    "no-ca": Failure(
        "this controller has no CA: no certificate was checked",
        "copy {ca} and certs from the controller that made the cluster",
        aside=True,
        code=UNKNOWN,
    ),
    "not-deployed": Failure("it is not deployed, or it was reset", invoke("all")),
    "foreign-cluster": Failure("a healthy etcd serves here that this tool has not deployed", _LEAVE, code=DONE),
    "foreign-unhealthy": Failure(
        "an etcd serves here that this tool has not deployed, and it is not healthy",
        "see its own log on {node}; " + _LEAVE,
    ),
    "foreign-unknown": Failure(
        "an etcd serves here that this tool has not deployed; its health could not be asked", _LEAVE, code=UNKNOWN
    ),
    "no-root-role": Failure(
        "auth is on, and a member's certificate may not ask its own member", "{say}", aside=True, code=UNKNOWN
    ),
    "port-taken": Failure("another process has etcd's port", "end that process, then: " + _START),
    "second-etcd": Failure(
        "a second etcd has this member's data directory open",
        "{say}",
    ),
    "overridden": Failure(
        "drop-ins, environment files or variables override the unit",
        "{say}",
        aside=True,
    ),
    "unreadable-unit": Failure(
        "the command line of the unit cannot be read",
        "correct the quotes in that file on {node}, then: " + _UNITS,
        aside=True,
    ),
    "unknown-flag": Failure(
        "the unit has a flag that this etcd does not know",
        "take it out of etcd.toml, if it stands there, then: " + _UNITS,
    ),
    "bad-flag": Failure(
        "etcd does not take the value of a flag",
        "correct it in etcd.toml, if it stands there, then: " + _UNITS,
    ),
    "start-limit": Failure(
        "systemd has given up: etcd failed too often in a short time",
        "mend the cause, then: " + _START + " (it resets the limit)",
        aside=True,
    ),
    "wal-mountpoint": Failure(
        "the WAL's directory is a mount point, which etcd cannot rename to",
        "{say}",
    ),
    "not-writable": Failure(
        "etcd may not write where its data is",
        "{say}",
    ),
    "closed-directory": Failure(
        "systemd cannot enter etcd's working directory as etcd's user (200/CHDIR)",
        "on {node}: namei -l {data} shows which directory above it is closed to {run_as}: chmod o+x it, then: "
        + _START,
    ),
    "not-executable": Failure(
        "systemd cannot run etcd (203/EXEC)",
        invoke("distribute start --node {node}")
        + "; if it stays, on {node}: findmnt -T {bin} (noexec?) and namei -l {bin}/etcd (closed to {run_as}?)",
    ),
    "no-namespace": Failure(
        "systemd cannot set up etcd's sandbox (226/NAMESPACE): a directory that the unit names is missing",
        "if a disk is not mounted on {node}, mount it, then: " + _START + "; else: " + _UNITS,
    ),
    "planted": Failure(
        "a link or a file has taken the place of a directory of etcd's, or of a segment of its WAL",
        "on {node}: ls -la {parent} {data} {wal}; move away what etcd did not make, put back what it made, then: "
        + invoke("doctor"),
        aside=True,
    ),
    "changeable": Failure(
        "another user than root may change what root runs or writes",
        "on {node}: look what changed there, run that command, then: " + invoke("plan"),
        aside=True,
    ),
    "disk-full": Failure("the disk is full", "make room on {node} (df -h {data} {wal}), then: " + _START),
    "clock-skew": Failure(
        "the clocks differ", "set the clock of {node}, by NTP (timedatectl set-ntp true)", aside=True
    ),
    "wiped-member": Failure("the member's data is not there", "{say}"),
    "two-wals": Failure(
        "a second WAL lies inside the member's data, and etcd uses nothing of it",
        "if a snapshot was restored there, it had no effect: restore it again with --wal-dir={wal}, for all members "
        "of the stopped cluster; else nothing needs {data}/member/wal",
        aside=True,
    ),
    "no-unit": Failure("the member's data is there, and its unit is missing", _UNITS),
    "foreign-data": Failure(
        "there is a member's data that is not this cluster's",
        "on {node}: find out which cluster it belongs to, and which unit runs it (systemctl list-unit-files 'etcd*'); "
        "leave it there as long as any cluster may need it",
    ),
    "cluster-id-mismatch": Failure(
        "the member belongs to another cluster: its data is foreign, or its address is another cluster's",
        "{say}",
    ),
    "corrupt": Failure("the member's data is corrupt", "{say}"),
    "newer-data": Failure(
        "a newer etcd has written the member's data, which this one cannot read",
        f"put the newer version back into etcd.toml, then: {invoke('all')}",
    ),
    "v2-content": Failure(
        "the member's data has content of etcd's v2 API, which 3.6 does not take",
        f"put the former version back into etcd.toml, then: {invoke('all')}; then remove that content "
        '(etcd\'s documentation, "Upgrade etcd from v3.5 to v3.6")',
    ),
    "v2-entries": Failure(
        "the WAL has entries of etcd 3.5, on which 3.7 panics",
        "put the former version back into etcd.toml, with [etcd.flags] snapshot-count = 10, then: "
        f"{invoke('all')}; then take that out, and upgrade",
    ),
    "hashes-differ": Failure(
        "the members hold different data at one revision, and no majority says which is right",
        "replace no member; first save a snapshot at each of them: {ctl} --endpoints=URL snapshot save FILE",
    ),
    "no-space-alarm": Failure(
        "the database has reached its quota: etcd takes no more writes (NOSPACE)",
        "{ctl} snapshot save; compact; defrag each member; {ctl} alarm disarm (in this order), "
        "or raise quota-backend-bytes in etcd.toml",
        aside=True,
    ),
    "expired-certificate": Failure(
        "its certificate is not valid now", invoke("certs --node {node}") + " (--renew, if that finds nothing to do)"
    ),
    "wrong-certificate": Failure("its certificate is not the one that it needs", invoke("certs --node {node}")),
    "key-mismatch": Failure("its certificate and its key are not a pair", invoke("certs --node {node}")),
    "ca-mismatch": Failure("it trusts, or is certified by, another CA than this controller's", "{say}"),
    "unreadable-certificate": Failure(
        "etcd may not read its certificates or its key", invoke("ca certs start --node {node}")
    ),
    "ca-expired": Failure(
        "the CA has expired",
        "{say}",
    ),
    "ca-unfit": Failure("the CA cannot be trusted by etcd", "put the right CA back, from a backup of {ca}"),
    "tls-refused": Failure("TLS handshakes fail", invoke("certs units start --node {node}")),
    "removed-member": Failure(
        "the node is not in the member list",
        f"if it was removed for good, take it out of etcd.toml; to make it a member again: {REPLACE_A_MEMBER}",
    ),
    "moved-member": Failure(
        "etcd.toml gives the member another address than the member list has", "put {id} back into etcd.toml"
    ),
    "never-started": Failure(
        "a member was added and has never started", "start it; if it shall be none: {ctl} member remove {id}"
    ),
    "learner": Failure(
        "a learner was never promoted to a voting member", "{ctl} member promote {id}, or: {ctl} member remove {id}"
    ),
    "foreign-member": Failure(
        "the cluster has a member that etcd.toml does not know",
        "is this an old etcd.toml? Then add it there; only if nothing needs that member: {ctl} member remove {id}",
        aside=True,
    ),
    "not-enabled": Failure("etcd is not enabled: it will not start at the next boot", invoke("start"), aside=True),
    "stopped": Failure("etcd is stopped", _START),
    "not-running": Failure("etcd does not stay up", "mend what its log says, then: " + invoke("all --node {node}")),
    "not-serving": Failure(
        "etcd runs and does not serve", "mend what its log says, then: " + invoke("stop all --node {node}")
    ),
    "no-quorum": Failure(
        "the cluster has no quorum: nothing can be read or written",
        "{say}",
        aside=True,
    ),
}

# What says it in the log of a start that went wrong: etcd in an error or worse, Go of a flag, or systemd. An error of a
# file names its path: that alone tells it from what etcd answers to a client. TLS is not among them: those lines tell
# of others, too.
LOG_LINES: tuple[tuple[str, str], ...] = (
    ("port-taken", r"bind: address already in use"),
    ("unknown-flag", r"^flag provided but not defined"),
    (
        "bad-flag",
        r"^invalid value .* for flag|verifying flags|should be at least as|is too long|^unexpected boolean",
    ),
    ("overridden", r"conflicting environment variable"),
    ("wal-mountpoint", r"device or resource busy"),
    ("unreadable-certificate", r"/\S+\.pem: permission denied"),
    ("not-writable", r"/\S+(?<!\.pem): (?:permission denied|read-only file system)"),
    ("disk-full", r"/\S+: no space left on device"),
    ("second-etcd", r"file already locked"),
    ("wiped-member", r"has already been bootstrapped|tocommit\(\d+\) is out of range"),
    ("cluster-id-mismatch", r"cluster ID mismatch|mismatch cluster ID"),
    ("removed-member", r"permanently removed from the cluster"),
    ("corrupt", r"checkInitialHashKV failed|found data inconsistency|data corruption detected"),
    (
        "newer-data",
        r"^invalid downgrade; server version|^Failed to validate schema|version \"[\d.]+\" is not supported",
    ),
    ("v2-content", r"illegal v2store content|detected disallowed v2 WAL"),
    ("v2-entries", r"unmarshal should never fail \(proto:\scannot parse invalid wire-format data"),
    ("closed-directory", r"Failed at step CHDIR|status=200/CHDIR"),
    ("not-executable", r"Failed at step EXEC|status=203/EXEC"),
    ("no-namespace", r"Failed to set up mount namespacing|status=226/NAMESPACE"),
)

# The same in what is less than an error, where a client's words may stand: these messages are etcd's from their start.
NOTICES: tuple[tuple[str, str], ...] = (
    ("bad-flag", r"failed to verify flags"),
    ("second-etcd", r"(?:db )?file is flocked by another process|another etcd process is using"),
    ("cluster-id-mismatch", r"request (?:sent was ignored by remote peer due to )?cluster ID mismatch"),
    ("removed-member", r"(?:server has stopped; )?the member has been permanently removed from the cluster"),
)
