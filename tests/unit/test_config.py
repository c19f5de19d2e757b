"""etcd.toml → Cluster: every bad input named in one report, every default decided, the documents true."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from steps.core.base import versions
from steps.core.base.errors import WRONG, ConfigError
from steps.core.config import schema
from steps.core.config.flag_rules import MANAGED_FLAGS
from steps.core.config.load import load, parse
from steps.core.config.messages import allowed
from steps.core.config.model import Cluster
from steps.core.config.toml_positions import key_lines

ROOT = Path(__file__).parents[2]
FILE = Path("/clusters/etcd.toml")


def members(count: int) -> str:
    return "".join(f'[[nodes]]\nname = "etcd-{n}"\nip = "10.0.0.{n}"\n' for n in range(1, count + 1))


NODES = members(3)
LOCAL = '[hosts]\ntransport = "local"\n'


def toml(
    more: str = "", *, cluster: str = 'name = "demo"', etcd: str = 'version = "3.5.16"', nodes: str = NODES
) -> str:
    return f"[cluster]\n{cluster}\n[etcd]\n{etcd}\n{more}\n{nodes}"


def read(text: str, **options: Any) -> Cluster:
    return parse(text.encode(), FILE, **options)


def problems(text: str | bytes, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode() if isinstance(text, str) else text, FILE, **options)
    assert caught.value.exit_code == WRONG
    assert "pydantic" not in caught.value.message
    return [(problem.key, f"{problem.message} ({problem.hint})") for problem in caught.value.problems]


def node(fields: str, more: str = "") -> str:
    base = {"name": '"etcd-1"', "ip": '"10.0.0.1"'}
    given = dict(line.split(" = ", 1) for line in fields.splitlines())
    return toml(more, nodes="[[nodes]]\n" + "".join(f"{k} = {v}\n" for k, v in {**base, **given}.items()))


def flags(text: str, more: str = "") -> str:
    return toml(f"[etcd.flags]\n{text}\n{more}")


def local(ip: str, *ports: tuple[int, int]) -> str:
    return "".join(
        f'[[nodes]]\nname = "n{i}"\nip = "{ip}"\nclient_port = {client}\npeer_port = {peer}\n'
        for i, (client, peer) in enumerate(ports)
    )


GCM = "TLS_ECDHE_%s_WITH_AES_128_GCM_SHA256"
BAD: dict[str, tuple[str, str, str]] = {
    # the file's shape: text, key, words of the message
    "unknown table": (toml("[nodez]"), "nodez", "did you mean nodes?"),
    "unknown key": (toml("[tls]\nleafdays = 3"), "tls.leafdays", "did you mean leaf_days?"),
    "unknown key, nothing near": (toml("[hosts]\nqqq = 3"), "hosts.qqq", "known here: transport, service"),
    "unknown nested key": (toml("[tls.cfssl]\nbinray = 3"), "tls.cfssl.binray", "did you mean binary?"),
    "odd key": (toml('"a\\nb" = 1'), 'etcd."a\\nb"', "unknown key"),
    "table expected": ("tls = 3\n" + toml(), "tls", "found 3, allowed a table"),
    "text for a list": (toml("[release]\nsources = 'x'"), "release.sources", 'found "x", allowed a list'),
    "date for text": (toml(cluster="name = 2024-01-01"), "cluster.name", 'found "2024-01-01", allowed 1 to 63'),
    "huge number": (toml("[ssh]\nport = 0x" + "f" * 5000), "ssh.port", "more than 64 bits"),
    # names
    "no cluster name": (toml(cluster=""), "cluster.name", "missing"),
    "empty cluster name": (toml(cluster='name = ""'), "cluster.name", 'found "", allowed 1 to 63'),
    "cluster name climbs": (toml(cluster='name = ".."'), "cluster.name", "allowed"),
    "empty token": (toml(cluster='name = "a"\ntoken = ""'), "cluster.token", 'found "", allowed 1 to 128'),
    # version
    **{
        f"version {name}": (toml(etcd=f"version = {value}"), "etcd.version", words)
        for name, value, words in (
            ("series", '"3.5"', 'found "3.5", allowed a whole version'),
            ("float", "3.5", "found 3.5, allowed a whole version"),
            ("with v", '"v3.5.30"', 'found "v3.5.30"'),
            ("unsupported", '"3.3.27"', "allowed series 3.4, 3.5, 3.6, 3.7"),
            ("future", '"4.0.0"', "allowed series 3.4, 3.5, 3.6, 3.7"),
            ("a pre-release", '"3.7.0-rc.0"', "allowed a whole version"),
            ("latest", '"latest"', "allowed a whole version"),
            ("shell", '"3.5.30; rm -rf /"', "allowed a whole version"),
            ("path", '"../../x"', "allowed a whole version"),
            ("trailing dot", '"3.5.16."', "allowed a whole version"),
            ("newline", '"3.5.16\\n"', "allowed a whole version"),
            *((bad, f'"{bad}"', "etcd#13766") for bad in ("3.5.0", "3.5.2")),
            *((bad, f'"{bad}"', "etcd#14648) (use 3.4.44 or later)") for bad in ("3.4.20", "3.4.21")),
            ("3.5.5", '"3.5.5"', "etcd#14733); a new member can get wrong auth data"),
            *((bad, f'"{bad}"', "etcd#20271) (use 3.6.14 or later)") for bad in ("3.6.0", "3.6.4")),
        )
    },
    "no version": (toml(etcd=""), "etcd.version", "missing"),
    # nodes
    "no nodes": (toml(nodes=""), "nodes", "missing"),
    "empty nodes": ("nodes = []\n" + toml(nodes=""), "nodes", "found an empty list"),
    "nodes no list": (toml(nodes="[nodes]\nname = 'x'"), "nodes", "found a table"),
    "a node no table": ("nodes = [3]\n" + toml(nodes=""), "nodes[0]", "found 3, allowed a table"),
    "no ip": (toml(nodes='[[nodes]]\nname = "a"'), "nodes[0].ip", "missing"),
    "two members": (toml(nodes=members(2)), "nodes", "found 2 members"),
    "duplicate name": (toml(nodes=NODES.replace("etcd-3", "etcd-1")), "nodes[2].name", "nodes[0] too"),
    "duplicate ip": (toml(nodes=NODES.replace("10.0.0.3", "::ffff:10.0.0.1")), "nodes[2].ip", "nodes[0] too"),
    "duplicate ipv6": (
        toml(nodes=NODES.replace("10.0.0.1", "fd00::1").replace("10.0.0.3", "fd00:0::0001")),
        "nodes[2].ip",
        '"fd00::1" twice',
    ),
    **{
        f"name {json.dumps(name)}": (
            node(f"name = {json.dumps(name)}"),
            "nodes[0].name",
            "allowed 1 to 63 of a-z, 0-9 and -",
        )
        for name in (
            *(
                "a b",
                "a\nb",
                "a\n",
                'a"b',
                "a'b",
                "a$b",
                "a%Hb",
                "a,b",
                "a=b",
                "a/b",
                "-a",
                "a-",
                "A",
                "",
                "a" * 64,
                "é",
            ),
            *("{{ 7*7 }}", "$(id)", "`id`", "..", "a;b"),
        )
    },
    **{
        f"ip {ip}": (node(f'ip = "{ip}"'), "nodes[0].ip", f'found "{ip}", allowed an IPv4 or IPv6 address{words}')
        for ip, words in (
            ("192.168.1.300", " of that host ()"),
            ("10.0.0.01", ""),
            ("0.0.0.0", ""),
            ("::", ""),
            ("224.0.0.1", ""),
            ("ff02::1", ""),
            ("255.255.255.255", ""),
            ("fe80::1", ""),
            ("fe80::1%eth0", ""),
            ("[fd00::1]", " of that host (without the brackets)"),
            ("etcd-1.example.com", " of that host (etcd listens on an address"),
            ("", ""),
        )
    },
    "loopback over ssh": (toml(nodes=NODES.replace("10.0.0.3", "127.0.0.1")), "nodes[2].ip", "loopback"),
    "san": (node('sans = ["ok.example.com", "10.0.0.9", "no good"]'), "nodes[0].sans[2]", "IP addresses and DNS names"),
    "san with number": (node("sans = [3]"), "nodes[0].sans[0]", "found 3, allowed a list of IP addresses"),
    "san like an address": (node('sans = ["1.2.3.300"]'), "nodes[0].sans[0]", "allowed"),
    "ssh host": (node('ssh = { host = "-oProxyCommand=id" }'), "nodes[0].ssh.host", "allowed a host name"),
    # ports
    **{
        f"port {value}": (node(f"client_port = {value}"), "nodes[0].client_port", f"found {value}, allowed 1 to 65535")
        for value in ("0", "65536", "-1", "true", '"2379"', "2379.0")
    },
    "client = peer": (node("client_port = 2380"), "nodes[0].peer_port", "10.0.0.1 port 2380 twice"),
    "metrics = client": (
        toml(etcd='version = "3.5.16"\nmetrics_port = 2379'),
        "etcd.metrics_port",
        "10.0.0.1 port 2379 twice",
    ),
    "local port twice": (
        toml(LOCAL, nodes=local("127.0.0.1", (1001, 1002), (1003, 1001), (1005, 1006))),
        "nodes[1].peer_port",
        "127.0.0.1 port 1001 twice: peer_port of nodes[1] and client_port of nodes[0]",
    ),
    "local metrics port shared": (
        toml(LOCAL, etcd='version = "3.5.16"\nmetrics_port = 9', nodes=local("127.0.0.1", (1, 2), (3, 4), (5, 6))),
        "etcd.metrics_port",
        "metrics_port of nodes[1] and metrics_port of nodes[0]",
    ),
    # paths
    **{
        f"path {name} = {path}": (toml(f'[paths]\n{name} = "{path}"'), f"paths.{name}", words)
        for name, path, words in (
            ("data", "etcd/data", "allowed an absolute path"),
            ("data", "/data/../etc", "no .."),
            ("data", "/", "a directory of the system"),
            ("cert", "/etc", "a directory of the system"),
            ("cert", "/etc/", "a directory of the system"),
            ("bin", "/usr", "a directory of the system"),
            ("data", "/home", "a directory of the system"),
            ("data", "/proc/x", "a directory of the system"),
            ("data", "/home/etcd/data", "hardened unit cannot see"),
            ("wal", "/data/etcd/data", "which is data too"),
            ("wal", "/data/etcd/data/", "which is data too"),
            ("wal", "/data/etcd/data/member/wal", "member directory"),
            ("data", "/data/etcd/wal/data", "inside wal"),
            ("cert", "/data/etcd/data/cert", "inside data or wal"),
            ("bin", "/data/etcd/bin", "next to the WAL, in a directory that is etcd's"),
            ("data", "/data/my etcd", "allowed a path"),
            ("data", "/data/a\\tb", "allowed a path"),
            ("data", "/data/%H", "allowed a path"),
            ("data", "/data/$HOME", "allowed a path"),
            ("data", "/data/{nod}", "allowed a path"),
            ("data", "", "allowed a path"),
            ("work", "a\\u0000b", "allowed a directory on the controller"),
        )
    },
    "process path without node": (
        toml(LOCAL + '[paths]\ndata = "data"', nodes=local("127.0.0.1", (1, 2), (3, 4), (5, 6))),
        "paths.data",
        'it needs "{node}"',
    ),
    # tls
    "tls off with keys": (toml("[tls]\nenabled = false\nca_days = 9"), "tls.ca_days", "enabled = false"),
    "tls off with ciphers": (
        flags(f'cipher-suites = "{GCM % "ECDSA"}"', "[tls]\nenabled = false"),
        "etcd.flags.cipher-suites",
        "enabled = false",
    ),
    **{
        f"tls {text}": (toml(f"[tls]\n{text}"), f"tls.{text.split(' ')[0]}", words)
        for text, words in (
            ("ca_days = 0", "found 0, allowed 1 to 36500 days"),
            ("leaf_days = -1", "found -1, allowed 1 to 36500 days"),
            ('key = "rsa:1024"', 'found "rsa:1024", allowed "ecdsa:p256" or'),
            ('layout = "both"', '"per-node" or "shared"'),
            ('backend = ""', "allowed"),
            ("enabled = 1", "found 1, allowed true or false"),
            ('cn = "' + "x" * 65 + '"', "1 to 64 characters"),
            ('ca_cn = "a\\nb"', "one line"),
            ('subject.X = "y"', 'found "X", allowed 1 to 64 characters on one line each for C, ST, L, O, OU'),
            ('subject.C = "china"', "two capital letters"),
            ("subject.O = 3", "found 3, allowed"),
            ('backend = "csr"\ndistribute_ca_key = false', ""),
        )
        if words
    },
    "csr without ca_file": (toml('[tls]\nbackend = "csr"'), "tls.ca_file", "needs the CA's certificate"),
    "exec without argv": (toml('[tls]\nbackend = "exec"\nca_file = "ca.pem"'), "tls.exec.argv", "needs a program"),
    "exec placeholder": (toml('[tls.exec]\nargv = ["sign", "{nam}"]'), "tls.exec.argv", "unknown placeholder {nam}"),
    "cfssl url without digest": (toml('[tls.cfssl]\nsource = "https://h/x"'), "tls.cfssl.sha256", "needs its digest"),
    "timeout 0": (toml("[tls.cfssl]\ntimeout = 0"), "tls.cfssl.timeout", "found 0, allowed 1 to 3600"),
    # flags
    **{
        f"flag {text}": (flags(text), f"etcd.flags.{text.split(' ')[0]}", words)
        for text, words in (
            ("election-timeout = 1249", "found election-timeout 1249 and heartbeat-interval 250"),
            ("heartbeat-interval = 401", "found election-timeout 2000 and heartbeat-interval 401"),
            ("election-timeout = 50001", 'found "50001", allowed 5 to 50000'),
            ("election-timeout = 2000.0", 'found "2000.0", allowed'),
            ("election-timeout = true", 'found "true", allowed'),
            ("quota-backend-bytes = -1", 'found "-1", allowed 0 to'),
            ("auto-compaction-retention = -1", 'found "-1", allowed hours'),
            ('auto-compaction-retention = "1 day"', "allowed hours"),
            ('auto-compaction-mode = "daily"', 'allowed "periodic" or "revision"'),
            ('auto-compaction-mode = "revision"', "must say how many revisions"),
            ("force-new-cluster = true", "refused"),
            ("unsafe-no-fsync = true", "refused"),
            ("version = true", "refused"),
            ("strict-reconfig-check = false", "refused"),
            ('strict-reconfig-check = "F"', "refused"),
            ('initial-cluster-state = "existing"', "written by this program"),
            ('tls-min-version = "TLS1.1"', 'found "TLS1.1", allowed "TLS1.2" or "TLS1.3"'),
            (f'cipher-suites = "{GCM % "RSA"}"', "no suite for the key ecdsa:p256"),
            ('cipher-suites = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"', "no AES_128_GCM suite"),
            (f'cipher-suites = "{GCM % "ECDSA"}"\ntls-min-version = "TLS1.3"', "TLS1.3 alone"),
            ('log-level = "a\\nb"', "on one line"),
            ('log-level = "a\\u0000b"', "on one line"),
            ("log-level = []", "on one line"),
            ("log-level = inf", "on one line"),
            ("log-level = 0xffffffffffffffffff", "on one line"),
        )
    },
    "flag's name": (flags('"Log Level" = "x"'), 'etcd.flags."Log Level"', 'found "Log Level", allowed etcd\'s flags'),
    "tls max under min": (
        flags('tls-max-version = "TLS1.2"\ntls-min-version = "TLS1.3"'),
        "etcd.flags.tls-max-version",
        "under tls-min-version",
    ),
    "a node's flag": (node("flags = { data-dir = '/x' }"), "nodes[0].flags.data-dir", "set [paths] data"),
    "a node's flag against the cluster's": (
        node("flags = { heartbeat-interval = 1000 }", "[etcd.flags]\nelection-timeout = 4000"),
        "nodes[0].flags.heartbeat-interval",
        "found election-timeout 4000 and heartbeat-interval 1000",
    ),
    # hosts, ssh, release
    "ssh with process": (toml('[hosts]\nservice = "process"'), "hosts.service", 'allowed "systemd"'),
    "process as another": (
        toml(LOCAL + 'run_as = "somebody-else"', nodes=local("127.0.0.1", (1, 2))),
        "hosts.run_as",
        "a process runs as whoever starts it",
    ),
    "systemd for many here": (
        toml(LOCAL + 'service = "systemd"', nodes=local("127.0.0.1", (1, 2), (3, 4), (5, 6))),
        "hosts.service",
        'allowed "process"',
    ),
    "transport": (toml('[hosts]\ntransport = "telnet"'), "hosts.transport", 'found "telnet", allowed "ssh" or "local"'),
    "run_as": (toml('[hosts]\nrun_as = "etcd;id"'), "hosts.run_as", "allowed a system user's name"),
    "password": (toml('[ssh]\npassword = "hunter2"'), "ssh.password", "a secret has no place in this file"),
    "key missing": (toml('[ssh]\nkey = "/nowhere/id"'), "ssh.key", "No such file"),
    "jump": (toml('[ssh]\njump = "-oProxyCommand=id"'), "ssh.jump", "[user@]host[:port]"),
    "connect_timeout": (toml("[ssh]\nconnect_timeout = 0"), "ssh.connect_timeout", "found 0, allowed 1 to 3600"),
    "parallel": (toml("[ssh]\nparallel = 0"), "ssh.parallel", "found 0, allowed 1 to 256"),
    **{
        f"mirror {url}": (toml(f'[release]\nmirror = "{url}"'), "release.mirror", words)
        for url, words in (
            ("http://mirror.example.com/etcd", "use https"),
            ("http://127.0.0.1.example.com/", "use https"),
            ("https://me:secret@h/x", "https://***@h/x"),
            ("ftp://h/x", "allowed an https:// URL"),
            ("https://h:99999/x", "allowed an https:// URL"),
            ("https://h/x?y", "allowed an https:// URL"),
            ("https://[::1/x", "allowed an https:// URL"),
            ("https:///x", "allowed an https:// URL"),
            ("", "allowed an https:// URL"),
        )
    },
    "sha256": (toml('[release]\nsha256 = { amd64 = "abc" }'), "release.sha256.amd64", "64 hexadecimal digits"),
    "sources": (toml("[release]\nsources = []"), "release.sources", "allowed a list of release sources"),
    # plugins
    "unknown plugin": (toml("[plugins.syscfg]"), "plugins.syscfg", "no plugin of that name takes options"),
    "disable": (toml("[plugins]\ndisable = 'x'"), "plugins.disable", "allowed a list"),
    "plugins no table": ("plugins = 3\n" + toml(), "plugins", "found 3"),
}


NAMES = {
    "an old name on 3.6": ("3.6.14", "experimental-compaction-batch-limit = 5", "calls it compaction-batch-limit"),
    "an old name on 3.7": ("3.7.1", "experimental-memory-mlock = true", "(set memory-mlock)"),
    "an old name on 3.8": ("3.8.0", "experimental-memory-mlock = true", "(set memory-mlock)"),
    "a gate's old name": (
        "3.6.14",
        "experimental-initial-corrupt-check = true",
        'has a feature gate for it (set feature-gates = "InitialCorruptCheck=true")',
    ),
    "a gate's old name, off": (
        "3.7.1",
        "experimental-compact-hash-check-enabled = false",
        '(set feature-gates = "CompactHashCheck=false")',
    ),
    "an experiment that ended": ("3.6.14", "experimental-x = 1", "does not have it any more (remove it)"),
    "a new name on 3.5": ("3.5.33", "compaction-batch-limit = 5", "(set experimental-compaction-batch-limit)"),
    "max-learners on 3.5": ("3.5.33", "max-learners = 2", "it came with 3.6 (remove it)"),
    "gates on 3.5": (
        "3.5.33",
        'feature-gates = "LeaseCheckpoint=true"',
        "it came with 3.6 (set experimental-enable-lease-checkpoint)",
    ),
    "debug on 3.5": ("3.5.33", "debug = true", 'does not have it any more (set log-level = "debug")'),
    "v2 on 3.6": ("3.6.14", "enable-v2 = true", "etcd 3.6 does not have it any more (remove it)"),
    "proxy on 3.6": ("3.6.14", 'proxy = "off"', "etcd 3.6 does not have it any more"),
    "proxy-dial-timeout on 3.6": ("3.6.14", "proxy-dial-timeout = 5", "etcd 3.6 does not have it any more"),
    "discovery-proxy on 3.7": ("3.7.1", 'discovery-proxy = "x"', "etcd 3.7 does not have it any more"),
    "logs for people": ("3.6.14", 'log-format = "console"', 'found "console", allowed "json"'),
}


@pytest.mark.parametrize(("version", "flag", "words"), NAMES.values(), ids=NAMES.keys())
def test_flag_versions_name_of_another_release_is_refused_with_the_one_to_use(
    version: str, flag: str, words: str
) -> None:
    for more, key in ((f"[etcd.flags]\n{flag}", "etcd.flags"), ("", "nodes[0].flags")):
        nodes = NODES if more else NODES.replace('"10.0.0.1"', f'"10.0.0.1"\nflags = {{ {flag} }}', 1)
        found = problems(toml(more, etcd=f'version = "{version}"', nodes=nodes))
        assert [name.rpartition(".")[0] for name, _ in found] == [key], found
        assert words in found[0][1]


FIT = [
    ("3.4.45", "debug = true"),
    ("3.5.33", "experimental-compaction-batch-limit = 5"),
    ("3.5.33", "enable-v2 = true"),
    ("3.6.14", 'feature-gates = "LeaseCheckpoint=true"'),
    ("3.6.14", 'log-format = "json"'),
    ("3.6.14", 'discovery-proxy = "x"'),
    ("3.7.1", "compaction-batch-limit = 5"),
    ("3.7.1", "max-snapshots = 5"),
]


@pytest.mark.parametrize(("version", "flag"), FIT)
def test_flag_versions_name_of_the_release_is_accepted(version: str, flag: str) -> None:
    name, _, value = flag.partition(" = ")
    found = read(toml(f"[etcd.flags]\n{flag}", etcd=f'version = "{version}"'))
    assert found.flags[name] == value.strip('"')


@pytest.mark.parametrize(("text", "key", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_value_is_named_once(text: str, key: str, words: str) -> None:
    found = problems(text)
    assert [k for k, _ in found if k == key] == [key], found
    assert words in dict(found)[key]
    extra = {k for k, _ in found} - {key}
    assert not extra, found
    assert "hunter2" not in str(found)
    assert "secret@" not in str(found)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n\n", "the file is empty"),
        (b"\xef\xbb\xbf" + toml().encode(), "byte order mark"),
        (toml().encode("utf-16"), "UTF-16"),
        (toml().encode("utf-16-le"), "UTF-16"),
        (b'[cluster]\nname = "\xff"', "line 2: found a byte that is no UTF-8"),
        (b"[cluster]\nname = demo", "line 2: not TOML, column 8"),
        (b"[cluster]\nname = ", "line 2: not TOML"),
        (b"[cluster]\nname = 'a'\nname = 'b'\n", "the same key or table twice"),
        (b"[cluster]\n[etcd]\n[cluster]\n", "the same key or table twice"),
        (b"a = " + b"[" * 5000, "nested too deep"),
        (b"a = " + b"9" * 5000, "not TOML"),
        (b"#" * ((1 << 20) + 1), "more than 1 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_toml_is_explained(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        parse(data, FILE)
    assert caught.value.exit_code == WRONG
    assert str(FILE) in caught.value.message


def test_a_file_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    for file, words in (
        (tmp_path / "none.toml", "there is no such file"),
        (tmp_path, "cannot be read"),
        (Path("a\0b"), "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(file)


def test_all_problems_come_at_once_with_their_lines() -> None:
    text = """[cluster]
nam = "demo"
[etcd]
version = "3.5.2"
metrics_port = 70000
flags.heartbeat-interval = 1000
[tls]
key = "rsa:1024"
subject = { C = "CN",
X = "y" }
[[nodes]]
name = "a"
ip = "10.0.0.1"
client_port = true
[[nodes]]
name = "B"
ip = "10.0.0.2"
sans = [
  "ok",
  "b@d",
]
[[nodes]]
name = "a"
ip = "10.0.0.1"
[nodes.ssh]
prot = 22
""".replace('C = "CN",\nX', 'C = "CN", X')
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (1, "cluster.name"),
        (2, "cluster.nam"),
        (4, "etcd.version"),
        (5, "etcd.metrics_port"),
        (6, "etcd.flags.heartbeat-interval"),
        (8, "tls.key"),
        (9, "tls.subject.X"),
        (13, "nodes[0].client_port"),
        (15, "nodes[1].name"),
        (19, "nodes[1].sans[1]"),
        (22, "nodes[2].name"),
        (23, "nodes[2].ip"),
        (25, "nodes[2].ssh.prot"),
    ]
    assert caught.value.message.startswith(f"{FILE}: 13 problems\n")


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.touch(0o600)
    file = tmp_path / "etcd.toml"
    file.write_text(toml('[ssh]\nkey = "id"'))
    assert load(file).ssh.key == key
    key.chmod(0o644)
    public = key.with_suffix(".pub")  # of a key that ssh-agent holds: it is no secret
    public.write_text("ssh-ed25519 AAAA")
    public.chmod(0o644)
    file.write_text(toml('[ssh]\nkey = "id.pub"'))
    assert load(file).ssh.key == public
    file.write_text(toml('[ssh]\nkey = "id"'))
    with pytest.raises(ConfigError, match="with mode 0644, allowed 0600"):
        load(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (flags("quota-backend-bytes = 8589934593"), ["8 GiB at most"]),
        (toml("[tls]\nca_days = 100"), ["shortened to the CA's 100"]),
        (toml(nodes=members(4)), ["4 members survive no more failures than 3"]),
        (
            toml(cluster='name = "a"\nallow_two_members = true', nodes=members(2)),
            ["2 members survive no more failures than 1"],
        ),
        (
            toml(nodes=members(8)),
            ["8 members survive no more failures than 7", "over 7"],
        ),
        (toml(), []),
    ],
)
def test_warnings_stop_nothing(text: str, words: list[str]) -> None:
    found = read(text).warnings
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


def test_defaults_of_systemd() -> None:
    cluster = read(toml())
    assert (cluster.hosts.transport, cluster.hosts.service, cluster.systemd) == ("ssh", "systemd", True)
    assert (cluster.hosts.manage_etc_hosts, cluster.hosts.run_as, cluster.hosts.hardening) == (True, "etcd", True)
    assert cluster.release.sources == ("github",)
    assert cluster.flags == schema.FLAGS
    assert cluster.flags["quota-backend-bytes"] == "6442450944"
    assert cluster.work == Path("/clusters/.etcd/demo")
    assert vars(cluster.nodes[0].paths) == {
        "bin": "/usr/local/bin",
        "cert": "/etc/etcd/cert",
        "data": "/data/etcd/data",
        "wal": "/data/etcd/wal",
        "unit": "/etc/systemd/system",
    }
    assert cluster.tls.cn is None


def test_defaults_of_process() -> None:
    cluster = read(toml(LOCAL + "[paths]\nwork = 'w'", nodes=local("127.0.0.1", (1, 2), (3, 4), (5, 6))))
    assert (cluster.hosts.service, cluster.systemd) == ("process", False)
    assert (cluster.hosts.manage_etc_hosts, cluster.hosts.hardening) == (False, False)
    assert cluster.hosts.run_as == pwd.getpwuid(os.geteuid()).pw_name
    assert cluster.release.sources == ("path", "github", "debian")
    assert cluster.flags["quota-backend-bytes"] == str(2 << 30)
    base = "/clusters/w/demo/nodes/n1"
    paths = {name: f"{base}/{name}" for name in ("bin", "cert", "data", "wal")}
    assert vars(cluster.nodes[1].paths) == {**paths, "unit": base}


def test_what_is_said_wins_over_what_the_service_would_have() -> None:
    cluster = read(
        flags(
            "quota-backend-bytes = 1073741824",
            LOCAL
            + 'manage_etc_hosts = true\n[release]\nsources = ["debian"]\n[paths]\ndata = "d/{node}"\nwal = "/w/{node}"',
        ).replace(NODES, local("127.0.0.1", (1, 2), (3, 4), (5, 6)))
    )
    assert cluster.flags["quota-backend-bytes"] == "1073741824"
    assert cluster.hosts.manage_etc_hosts
    assert cluster.release.sources == ("debian",)
    paths = cluster.nodes[2].paths
    assert (paths.data, paths.wal) == ("/clusters/d/n2", "/w/n2")
    assert paths.cert == "/clusters/.etcd/demo/nodes/n2/cert"


def test_systemd_on_this_machine_is_for_one_member() -> None:
    cluster = read(toml(LOCAL + 'service = "systemd"', nodes=local("10.0.0.1", (2379, 2380))))
    assert cluster.systemd
    assert cluster.nodes[0].paths.data == "/data/etcd/data"


def test_values_are_normalised() -> None:
    cluster = read(
        toml(
            '[tls]\nlayout = "shared"\nca_file = "ca/../ca.pem"\ncfssl.binary = "bin/cfssl"\n'
            'exec.argv = ["./sign", "./x"]\n'
            "[etcd.flags]\nauto-compaction-retention = 2\nenable-pprof = true\nx = 0.5\n"
            '[release]\nmirror = "http://127.0.0.1:8080/"\nsha256.amd64 = "' + "AB" * 32 + '"\npath = "dist"',
            nodes=NODES.replace("10.0.0.1", "FD00:0:0::1"),
        )
    )
    assert cluster.nodes[0].ip == "fd00::1"
    assert cluster.client_url(cluster.nodes[0]) == "https://[fd00::1]:2379"
    assert cluster.tls.cn == "etcd"
    assert cluster.tls.ca_file == Path("/clusters/ca.pem")
    assert cluster.tls.cfssl.binary == "/clusters/bin/cfssl"
    assert cluster.tls.exec.argv == ("/clusters/sign", "./x")
    assert [cluster.flags[name] for name in ("auto-compaction-retention", "enable-pprof", "x")] == ["2", "true", "0.5"]
    assert cluster.release.mirror == "http://127.0.0.1:8080"
    assert cluster.release.sha256 == {"amd64": "ab" * 32}
    assert cluster.release.path == Path("/clusters/dist")


def test_a_directory_name_with_control_characters_is_refused() -> None:
    with pytest.raises(ConfigError, match="control characters"):
        parse(toml().encode(), Path("/a\nb/etcd.toml"))


class Sysctl(BaseModel):
    """A plugin's options, written by somebody who knows pydantic but not our habits."""

    swappiness: int
    files: tuple[Path, ...] = ()
    mode: Literal["soft", "hard"] = "soft"


OPTIONS = {"sysctl": Sysctl}


def test_a_plugins_table_becomes_its_own_model() -> None:
    cluster = read(
        toml('[plugins]\ndisable = ["x"]\n[plugins.sysctl]\nswappiness = 1\nfiles = ["/a"]'), options=OPTIONS
    )
    assert cluster.options == {"sysctl": Sysctl(swappiness=1, files=(Path("/a"),))}
    assert cluster.disabled == ("x",)


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ("[plugins.sysctl]\nswappiness = true", "plugins.sysctl.swappiness", "found true, allowed a whole number"),
        ('[plugins.sysctl]\nswappiness = "1"', "plugins.sysctl.swappiness", 'found "1", allowed a whole number'),
        ("[plugins.sysctl]\nswappiness = 1\nfile = []", "plugins.sysctl.file", "did you mean files?"),
        ('[plugins.sysctl]\nswappiness = 1\nmode = "x"', "plugins.sysctl.mode", 'allowed "soft" or "hard"'),
        ("[plugins]\nsysctl = 3", "plugins.sysctl", "found 3, allowed a table"),
        ("", "plugins.sysctl.swappiness", "missing"),
        ("[plugins.sysclt]\n[plugins.sysctl]\nswappiness = 1", "plugins.sysclt", "did you mean sysctl?"),
    ],
)
def test_a_plugins_table_is_reported_like_our_own(table: str, key: str, words: str) -> None:
    ((found, message),) = problems(toml(table), options=OPTIONS)
    assert found == key
    assert words in message


def test_a_disabled_plugin_needs_no_options() -> None:
    assert read(toml('[plugins]\ndisable = ["sysctl"]'), options=OPTIONS).options == {}


def test_managed_flags_are_the_ones_that_we_write() -> None:
    assert {
        "name",
        "data-dir",
        "listen-client-urls",
        "initial-cluster-state",
        "peer-auto-tls",
        "config-file",
    } <= MANAGED_FLAGS
    for flag in MANAGED_FLAGS:
        ((key, message),) = problems(flags(f'{flag} = "x"'))
        assert (key, "written by this program" in message) == (f"etcd.flags.{flag}", True)


def test_lines_are_found_in_every_form_of_toml() -> None:
    text = '''a = 1
b."c d".'e' = """
x = 1
[no]
""" # [no]
[t] # x
k = { y = [
  1,
  { z = "]" },
], w = 2 }
[[n]]
[[n.m]]
q = 'a = "'
[[n]]
[n.m]
"\\u0071" = 1979-05-27 07:32:00
'''
    assert key_lines(text) == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c d"): 2,
        ("b", "c d", "e"): 2,
        ("t",): 6,
        ("t", "k"): 7,
        ("t", "k", "y"): 7,
        ("t", "k", "y", 0): 8,
        ("t", "k", "y", 1): 9,
        ("t", "k", "y", 1, "z"): 9,
        ("t", "k", "w"): 10,
        ("n",): 11,
        ("n", 0): 11,
        ("n", 0, "m"): 12,
        ("n", 0, "m", 0): 12,
        ("n", 0, "m", 0, "q"): 13,
        ("n", 1): 14,
        ("n", 1, "m"): 15,
        ("n", 1, "m", "q"): 16,
    }


# --- the files that come with it

COMMENTED = re.compile(r"#(\[[a-z.]+\].*|[a-z_0-9-]+ = .*)")


def shipped() -> list[str]:
    return (ROOT / "etcd.toml").read_text().splitlines()


def uncommented(wanted: set[int]) -> Cluster:
    """etcd.toml with those lines, by number, made real, and with the headers that they stand under."""
    lines, header = shipped(), None
    for number, line in enumerate(lines):
        if COMMENTED.fullmatch(line) and line.startswith("#["):
            header = number
        elif line.startswith("["):
            header = None
        if number in wanted:
            lines[number] = line[1:]
            if header is not None:
                lines[header] = lines[header].removeprefix("#")
    return parse("\n".join(lines).encode(), ROOT / "etcd.toml")


KEYS = [n for n, line in enumerate(shipped()) if COMMENTED.fullmatch(line) and not line.startswith("#[")]


@pytest.mark.parametrize("number", KEYS, ids=lambda n: f"{n + 1}: {shipped()[n].split(' = ')[0]}")
def test_each_commented_key_is_valid_and_the_default_that_it_claims_to_be(number: int) -> None:
    same = uncommented({number}) == load(ROOT / "etcd.toml")
    assert same == ("example:" not in shipped()[number])


def test_all_commented_defaults_together_change_nothing() -> None:
    defaults = {number for number in KEYS if "example:" not in shipped()[number]}
    assert uncommented(defaults) == load(ROOT / "etcd.toml")
    assert load(ROOT / "etcd.toml").warnings == ()


def test_etcd_toml_names_every_key() -> None:
    text = "\n".join(shipped())
    for key in described():
        assert re.search(rf"\b{key.rpartition('.')[2]} = ", text), key


@pytest.mark.parametrize("name", ["three-hosts", "how-to", "single"])
def test_examples_are_valid(name: str) -> None:
    cluster = load(ROOT / "examples" / f"{name}.toml")
    assert (cluster.name, cluster.warnings) == (name, ())
    assert versions.warning(cluster.version) == ""


def test_the_three_hosts_are_safe() -> None:
    cluster = load(ROOT / "examples" / "three-hosts.toml")
    assert (cluster.tls, cluster.hosts) == (schema.Tls(), schema.Hosts())


def test_the_how_to_is_the_how_to() -> None:
    cluster = load(ROOT / "examples" / "how-to.toml")
    tls, hosts = cluster.tls, cluster.hosts
    assert (tls.layout, tls.key, tls.ca_cn, tls.cn) == ("shared", "rsa:2048", "kubernetes-ca", "etcd")
    assert (tls.ca_days * 24, tls.leaf_days * 24) == (876000, 876000)
    assert (tls.distribute_ca_key, tls.plain_loopback) == (True, True)
    assert (hosts.run_as, hosts.hardening, cluster.ssh.user) == ("root", False, "root")
    assert {node.name: node.ip for node in cluster.nodes} == {f"etcd-{n}": f"192.168.1.{219 + n}" for n in (1, 2, 3)}
    assert cluster.flags == {
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1",
        "max-request-bytes": "33554432",
        "quota-backend-bytes": "6442450944",
        "heartbeat-interval": "250",
        "election-timeout": "2000",
    }


# --- docs/reference/etcd-toml.md


def fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", field


def kind_of(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if type(None) in get_args(annotation):
        return kind_of(get_args(annotation)[0])
    origin = get_origin(annotation) or annotation
    words = {bool: "boolean", int: "number", str: "text", Path: "text", Literal: "text", tuple: "list", dict: "table"}
    return words[origin]


def value_of(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return "`{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }`" if value else "`{}`"
    return f"`{json.dumps(str(value) if isinstance(value, PurePath) else value)}`"


def default_of(key: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    section, _, name = key.partition(".")
    default = value_of(field.default)
    if name in schema.PROCESS.get(section, {}):
        default += f"; process: {value_of(schema.PROCESS[section][name])}"
    if key == "hosts.run_as":
        default += "; process: whoever runs it"
    if key == "hosts.service":
        default += '; transport "local": `"process"`'
    if section == "paths" and name != "work":
        default += "; process: `<work>/<cluster>/nodes/{node}" + ("`" if name == "unit" else f"/{name}`")
    return default


def described() -> dict[str, tuple[str, str, str]]:
    models = {**schema.SECTIONS, "nodes": schema.NodeTable}
    return {
        key: (kind_of(field.annotation), default_of(key, field), allowed(field))
        for section, model in models.items()
        for key, field in fields(model, section)
    }


def test_every_field_says_what_it_allows() -> None:
    assert [key for key, (_, _, words) in described().items() if not words] == []


def test_the_documentation_is_the_schema() -> None:
    rows = {}
    for line in (ROOT / "docs/reference/etcd-toml.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            rows[cells[0].strip("`")] = (cells[1], *cells[2:])
    assert {key: row[1:] for key, row in rows.items()} == described()
    assert [key for key, row in rows.items() if not row[0]] == []


def test_the_documentation_lists_the_flags() -> None:
    text = (ROOT / "docs/reference/etcd-toml.md").read_text()
    for name, value in schema.FLAGS.items():
        assert f"| `{name}` | `{value}`" in text
    assert f"`{schema.PROCESS['flags']['quota-backend-bytes']}`" in text
    assert [flag for flag in MANAGED_FLAGS if f"`{flag}`" not in text] == []
