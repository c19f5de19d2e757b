"""Starting, stopping and judging one member's process: under systemd, or as a plain process. Scripts as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote

from steps.core.base.errors import Refused
from steps.core.config.model import Cluster, Node
from steps.core.node.inspect_script import pid_lines
from steps.core.node.paths import PROCESS_UNIT, unit_file
from steps.core.transport.node_lock import not_root

START = "--- etcd is started ---"  # what our own start writes into the log of a plain process
UP = 2  # seconds, in which most members serve: to wait for it costs a node less than to ask again and again
_LOG_FIELDS = ("MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "_TRANSPORT")
_STATE = re.compile(r"state ([a-z/-]+) ([0-9]{1,9})")
STOP_SECONDS = 90  # systemd's own patience before it kills


@dataclass(frozen=True)
class State:
    """`active`: systemd's ActiveState/SubState, or running/dead for a plain process. `pid` 0: nothing runs."""

    active: str
    pid: int

    @property
    def failed(self) -> bool:
        # auto-restart: it exited and systemd waits before it tries the same again.
        return self.active in ("dead", "activating/auto-restart") or self.active.startswith("failed")

    @property
    def ready(self) -> bool:
        """It is worth asking: the process runs, and under systemd it has said that it serves."""
        return self.pid != 0 and self.active in ("active/running", "running")


def root_script(cluster: Cluster) -> str:
    """Return what ends a script, with the line `uid N`, where we are not root and etcd's files are closed to us."""
    return 'u=$(id -u); [ "$u" = 0 ] || { echo "uid $u"; exit 0; }\n' if cluster.systemd else ""


def without_root(node: Node, output: str) -> Refused | None:
    """Return the refusal where a script with `root_script` in front, which said `output`, did not run as root."""
    word, _, uid = output.partition("\n")[0].partition(" ")
    return not_root(node, uid) if word == "uid" else None


def reload_script(unit: str) -> str:
    """Has systemd read its units anew, unless it has read the file `unit` as it is.

    A unit that is new to it is read when it is asked for, and a reload takes a tenth of a second. That a package's unit
    of the same name, which it knew before, has a successor in /etc, it does not notice by itself.
    """
    known = quote(f"FragmentPath={unit}\nNeedDaemonReload=no")
    return (
        f'[ "$(systemctl show etcd.service --property=FragmentPath,NeedDaemonReload)" = {known} ] || '
        "systemctl daemon-reload"
    )


def enable_script(cluster: Cluster) -> str:
    return "systemctl --quiet enable etcd.service </dev/null\n" if cluster.systemd else ""


def disable_script(cluster: Cluster) -> str:
    return "systemctl --quiet disable etcd.service 2>/dev/null </dev/null\n" if cluster.systemd else ""


def start_script(cluster: Cluster, node: Node) -> str:
    """Starts, or starts anew, and waits for its end no longer than UP: a member blocks until it has a quorum.

    Fails only where there is nothing to wait for: --quiet systemctl says why it cannot, and nothing of a failed start.
    """
    if cluster.systemd:
        # The start limit may have been hit before the cause was mended.
        return (
            f"{reload_script(unit_file(cluster, node))} || exit 1\n"  # a run may have ended between the two
            "systemctl reset-failed etcd.service 2>/dev/null\n"
            f'o=$(timeout {UP} systemctl --quiet restart etcd.service 2>&1 </dev/null) || [ -z "$o" ] ||\n'
            "  { printf '%s\\n' \"$o\" >&2; exit 1; }\n"
        )
    unit = quote(node.paths.unit)
    # The descriptors of the shell that this runs in (3: its stdout, 9: the node's lock) must not live on in etcd.
    return f"""{stop_script(cluster, node)}
cd {unit} || exit 1
printf '%s\n' {quote(START)} >>etcd.log || exit 1
setsid sh -c 'echo $$ >etcd.pid; exec ./{PROCESS_UNIT}' </dev/null >>etcd.log 2>&1 3>&- 9>&- &
t=0; while [ $t -lt 100 ]; do
{pid_lines(node)}[ "$p" = 0 ] || break; sleep 0.02; t=$((t + 1)); done
"""


def stop_script(cluster: Cluster, node: Node) -> str:
    """Stops and waits; prints nothing. A plain process that does not end is killed after STOP_SECONDS."""
    if cluster.systemd:
        return "systemctl stop etcd.service </dev/null\n"
    return (
        pid_lines(node)
        # Where pid 1 buries nobody (a container's), what ended stays as a zombie.
        + f"""
lives() {{ read -r _ _ s _ 2>/dev/null <"/proc/$p/stat" && [ "$s" != Z ]; }}
if [ "$p" != 0 ]; then
  kill "$p"; t=0
  while lives && [ $t -lt {STOP_SECONDS * 20} ]; do sleep 0.05; t=$((t + 1)); done
  if lives; then kill -9 "$p"; fi
fi
rm -f -- {quote(node.paths.unit + "/etcd.pid")}
"""
    )


def state_script(cluster: Cluster, node: Node) -> str:
    """Prints `state <active> <pid>`."""
    if cluster.systemd:
        return (
            "u=$(systemctl show etcd.service --property=ActiveState,SubState,MainPID)\n"
            "a=${u#*ActiveState=}; s=${u#*SubState=}; p=${u#*MainPID=}\n"
            'echo "state ${a%%[!a-z]*}/${s%%[!a-z-]*} ${p%%[!0-9]*}"\n'
        )
    return pid_lines(node) + 'if [ "$p" = 0 ]; then echo "state dead 0"; else echo "state running $p"; fi\n'


def settled_script(cluster: Cluster, node: Node, old: int) -> str:
    """As state_script, once the member has failed or serves as another process than `old`, or after a second."""
    return rf"""t=0; while s=$({state_script(cluster, node)}); [ $t -lt 5 ]; do
case $s in *running\ {old}) ;; *running\ *|*\ failed*|*\ dead*|*/auto-restart*) break;; esac
sleep 0.2; t=$((t + 1)); done
echo "$s"
"""


def parse_state(output: str) -> State:
    """Return what `state_script` printed; "unknown" where that cannot be read."""
    line = next((line for line in output.splitlines() if line.startswith("state ")), "")
    found = _STATE.fullmatch(line)
    return State(found[1], int(found[2])) if found else State("unknown", 0)


def log_script(cluster: Cluster, node: Node, lines: int) -> str:
    """Prints the last lines of the member's log, as etcd.logs.read reads them: who says what must be known."""
    if cluster.systemd:
        ask = f"journalctl --unit=etcd.service --lines={lines} --no-pager --output=json"
        fields = ",".join(_LOG_FIELDS)  # which journalctl knows since 236
        return f"{ask} --output-fields={fields} 2>/dev/null || {ask} 2>/dev/null || true\n"
    return f"tail -n {lines} {quote(node.paths.unit + '/etcd.log')} 2>/dev/null || true\n"
