"""One script per node that reads everything a run may want to know. What it prints, `look.parse` reads.

The script is inspect.sh, with the paths of one node. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from steps.core.base.digest import COMMAND
from steps.core.base.shell import assigned, call, text
from steps.core.config.model import Cluster, Node
from steps.core.node import ca_key, wal_header
from steps.core.node.guard import AS_OURSELVES, ENTER, PLAIN, SAFE
from steps.core.node.paths import HOSTS, unit_file, wal_parent
from steps.core.node.resources import PATHLESS, Blob, Block, Command, Directory, File, Resource, Service, Symlink, User

UNIT_PROPERTIES = (
    "LoadState,ActiveState,SubState,Result,MainPID,UnitFileState,FragmentPath,DropInPaths,EnvironmentFiles,"
    "Environment,NeedDaemonReload,NRestarts,ExecStart,InvocationID"
)

_FUNCTIONS = text(__file__, "inspect.sh")
_LIVING_PID = text(__file__, "pid.sh")


def look_script(cluster: Cluster, node: Node, resources: Sequence[Resource]) -> str:
    """The script; `parse` with the same resources reads what it prints."""
    guards = [ENTER, SAFE] if cluster.systemd else [AS_OURSELVES]
    seen = [*_resources(cluster, node, resources), *_member(cluster, node), *_ground(cluster, node)]
    calls = [call("machine"), *seen, call("spaces", *written_paths(cluster, node)), call("listening")]
    files = dict.fromkeys([f"{node.paths.bin}/etcd", *(r.path for r in resources if isinstance(r, File))])
    return "".join(
        [
            *guards,
            PLAIN,
            _variables(cluster, node),
            _FUNCTIONS,
            "{\n",
            *calls,
            "echo end facts\n",
            f"}} | {call('with_digests', *files)}",
        ]
    )


def _variables(cluster: Cluster, node: Node) -> str:
    """Return what inspect.sh wants to be set."""
    return assigned(
        DIGEST=COMMAND,
        WAL_HEAD=str(wal_header.HEAD),
        UNIT_PROPERTIES=UNIT_PROPERTIES,
        ETCD=f"{node.paths.bin}/etcd",
        DATA=node.paths.data,
        WAL=node.paths.wal,
        OURS="".join(f"\n{path}" for path in sorted(_ours(cluster, node))) + "\n",
    )


def _resources(cluster: Cluster, node: Node, resources: Sequence[Resource]) -> list[str]:
    """Return the calls that see what stands for resources now."""
    way = [*ancestors(node), *_above(unit_file(cluster, node))] if cluster.systemd else ()
    paths = dict.fromkeys([*(each.path for each in resources if not isinstance(each, PATHLESS)), *way])
    directories = dict.fromkeys(each.path for each in resources if isinstance(each, Directory))
    texts = dict.fromkeys(each.path for each in resources if isinstance(each, File | Block) and _readable(each))
    links = dict.fromkeys(each.path for each in resources if isinstance(each, Symlink))
    calls = [
        call("entries", *paths) if paths else "",
        call("those", "-L", "behind_links", *directories),
        call("those", "-f", "texts", *texts),
        call("those", "-L", "targets", *links),
    ]
    for number, resource in enumerate(resources):
        if isinstance(resource, User):
            calls.append(call("user_exists", resource.name))
        elif isinstance(resource, Service):
            calls.append(call("service_state", str(number), resource.name))
        elif isinstance(resource, Command):
            calls.append(call("command_done", str(number), resource.unless))
    return calls


def _readable(resource: File | Block) -> bool:
    return isinstance(resource, Block) or not (resource.secret or isinstance(resource.content, Blob))


def _member(cluster: Cluster, node: Node) -> list[str]:
    """Return the calls that see what there is of etcd itself: binary, unit, process, data."""
    ours = sorted({wal_parent(node), node.paths.data, node.paths.wal, node.paths.cert})
    return [
        call("binary"),
        call("unit") if cluster.systemd else pid_lines(node),
        'process "$p"\n',
        call("ca_key", ca_key.key_path(node), ca_key.FACT),
        call("member"),
        call("wals"),
        call("strangers", *ours),
    ]


def _ground(cluster: Cluster, node: Node) -> list[str]:
    """Return the calls that see what cannot be replaced, written to or run."""
    return [
        call("wal_mount"),
        call("hosts_file", HOSTS) if cluster.hosts.manage_etc_hosts else "",
        call("accounts") if cluster.systemd else "",
        call("noexec", node.paths.bin),
    ]


def ancestors(node: Node) -> list[str]:
    """The directories that etcd goes through to reach what is its own, and the binary's; the root first."""
    paths = node.paths
    return sorted({each for path in (paths.cert, paths.data, paths.wal, f"{paths.bin}/etcd") for each in _above(path)})


def _above(path: str) -> list[str]:
    return [str(each) for each in PurePosixPath(path).parents]


def _ours(cluster: Cluster, node: Node) -> set[str]:
    """What may lie in a directory of ours before there is a member: our other directories, and what leads to them."""
    paths = [PurePosixPath(path) for path in (*written_paths(cluster, node), f"{node.paths.data}/member")]
    return {str(each) for path in paths for each in (path, *path.parents)}


def written_paths(cluster: Cluster, node: Node) -> list[str]:
    """Below these everything is written."""
    paths = node.paths
    etc = ["/etc"] if cluster.hosts.manage_etc_hosts else []
    return list(dict.fromkeys([paths.bin, paths.cert, paths.data, paths.wal, paths.unit, *etc]))


def pid_lines(node: Node) -> str:
    """Sets p to the pid of a member that is a plain process, 0 where none lives: the pid file must name our binary."""
    return _LIVING_PID + call("living_pid", f"{node.paths.unit}/etcd.pid", f"{node.paths.bin}/etcd")
