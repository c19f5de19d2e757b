"""etcd.toml's tables, strictly: the types, the defaults and the words for what is allowed, each in one place.

A field's own rule stands here, a rule between fields in `rules`. Defaults are systemd's; `PROCESS` holds those that
differ under service "process", and `config` puts them in. None means "not set"; its comment says what that leads to.
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from steps.core.base.urls import loopback, masked_url

GIB = 1 << 30
DNS_NAME = 253  # characters, RFC 1035
SUBJECT_KEYS = ("C", "ST", "L", "O", "OU")
PLACEHOLDERS = ("name", "kind", "days", "sans")
HEX = r"^[0-9a-fA-F]{64}$"
NUMBER = "(0|[1-9][0-9]{0,3})"
LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST = rf"({LABEL}(\.{LABEL})*|[0-9A-Fa-f:.]+)"
USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"
HOP = rf"({USER}@)?({LABEL}(\.{LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?"

# etcd's flags where etcd.toml says nothing: the values of the how-to that this project grew from.
FLAGS = {
    "heartbeat-interval": "250",
    "election-timeout": "2000",
    "auto-compaction-mode": "periodic",
    "auto-compaction-retention": "1",
    "max-request-bytes": "33554432",
    "quota-backend-bytes": str(6 * GIB),
}
# The defaults that follow service "process"; run_as is whoever runs it, node paths are in the work directory.
PROCESS: dict[str, dict[str, Any]] = {
    "hosts": {"manage_etc_hosts": False, "hardening": False},
    "release": {"sources": ("path", "github", "debian")},
    "flags": {"quota-backend-bytes": str(2 * GIB)},
}


def rule(allowed: str, **constraints: Any) -> Any:
    """A field's constraints, and in plain words what they allow: for the error message and for the documentation."""
    return Field(json_schema_extra={"allowed": allowed}, **constraints)


def control(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" for character in text)


def _plain(text: str) -> str:
    if not text.strip() or control(text):
        raise ValueError
    return text


def _address(text: str) -> str:
    """The normal form, so that one address written twice is one: `::ffff:10.0.0.1` is `10.0.0.1`."""
    if text.startswith("["):
        raise ValueError("without the brackets")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        named = re.fullmatch(HOST, text) and not re.fullmatch(r"[0-9.:]+", text)
        raise ValueError("etcd listens on an address; a name can go into sans" if named else "") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise ValueError("without a zone")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast or address.is_reserved or (":" in text and address.is_link_local):
        raise ValueError("an address of that host which the other members can reach")
    return str(address)


def _san(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if (
            len(text) > DNS_NAME
            or not re.fullmatch(rf"(\*\.)?{LABEL}(\.{LABEL})*", text)
            or re.fullmatch(r"[0-9.]+", text)
        ):
            raise ValueError from None
        return text


def _url(text: str) -> str:
    """RFC 3986; http only to this machine itself, where nobody listens in."""
    if masked_url(text) != text:
        raise ValueError("credentials do not belong into a file")
    parts = urlsplit(text)
    bare = re.fullmatch(r"https?://[A-Za-z0-9:/._~%+,=\[\]-]+", text)
    if not bare or not parts.hostname or parts.port == 0:  # reading .port raises ValueError where it is none
        raise ValueError
    if parts.scheme == "http" and not loopback(parts.hostname):
        raise ValueError("use https")
    return text.rstrip("/")


def _cfssl_source(text: str) -> str:
    return text if text == "debian" else _url(text)


def _node_path(text: str) -> str:
    r"""Letters, digits and . _ + @ - only: what the shell, systemd, PATH and etcd read alike."""
    if not re.fullmatch(r"[\w.+@/-]+", text.replace("{node}", "")) or ".." in text.split("/"):
        raise ValueError
    return text.rstrip("/") or "/"


def _flag(value: object) -> str:
    """As etcd reads it: Go's flag package."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not control(value):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    raise ValueError


def _argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    unknown = {name for word in argv for name in re.findall(r"\{([a-z_]+)\}", word)} - set(PLACEHOLDERS)
    if unknown:
        raise ValueError("unknown placeholder " + ", ".join(f"{{{name}}}" for name in sorted(unknown)))
    return argv


Plain = Annotated[str, AfterValidator(_plain), rule("text on one line, not empty")]
CommonName = Annotated[str, AfterValidator(_plain), rule("1 to 64 characters on one line", max_length=64)]
NodePath = Annotated[str, AfterValidator(_node_path), rule("a path of letters, digits and . _ + @ - /, no .., {node}")]
LocalPath = Annotated[Path, BeforeValidator(lambda value: Path(_plain(value)) if isinstance(value, str) else value)]
Url = Annotated[str, AfterValidator(_url), rule("an https:// URL, or http:// to a loopback address; no credentials")]
Sha256 = Annotated[str, AfterValidator(str.lower), rule("64 hexadecimal digits", pattern=HEX)]
Port = Annotated[int, rule("1 to 65535", ge=1, le=65535)]
Days = Annotated[int, rule("1 to 36500 days", ge=1, le=36500)]
Seconds = Annotated[int, rule("1 to 3600 seconds", ge=1, le=3600)]
Login = Annotated[str, rule("a login name", pattern=rf"^{USER}$")]
Identifier = Annotated[
    str, rule("a letter or digit, then letters, digits, . _ -", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
Flags = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")], Annotated[str, BeforeValidator(_flag)]],
    rule("etcd's flags without --; text on one line, numbers, true or false"),
]
ListField = Field(strict=False)  # TOML has lists, the cluster keeps tuples


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ClusterTable(Section):
    name: Annotated[Identifier, rule("1 to 63 letters, digits, . _ -, the first a letter or digit", max_length=63)]
    token: Annotated[
        Identifier, rule("1 to 128 letters, digits, . _ -, the first a letter or digit", max_length=128)
    ] = "etcd-cluster-0"  # noqa: S105 - a name, no secret
    allow_two_members: bool = False


class Etcd(Section):
    version: Annotated[
        str,
        rule('a whole version, such as "3.5.16"', pattern=rf"^{NUMBER}\.{NUMBER}\.{NUMBER}$"),
    ]
    metrics_port: Annotated[int, rule("0 (no listener of its own) to 65535", ge=0, le=65535)] = 0
    flags: Flags = {}


class Release(Section):
    sources: Annotated[
        tuple[Identifier, ...], ListField, rule("a list of release sources, tried in order", min_length=1)
    ] = ("github",)
    mirror: Url = "https://github.com/etcd-io/etcd/releases/download"
    sha256: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9]+$")], Sha256],
        rule("64 hexadecimal digits by architecture, such as { amd64 = … }"),
    ] = {}
    path: Annotated[LocalPath | None, rule("a tarball or a directory of binaries on the controller")] = None
    suite: Annotated[str, rule("a suite's name of Debian or Ubuntu", pattern=r"^[a-z][a-z0-9-]*$")] = "trixie"


class Paths(Section):
    bin: NodePath = "/usr/local/bin"
    cert: NodePath = "/etc/etcd/cert"
    data: NodePath = "/data/etcd/data"
    wal: NodePath = "/data/etcd/wal"
    unit: NodePath = "/etc/systemd/system"
    work: Annotated[LocalPath, rule("a directory on the controller")] = Path(".etcd")


class Hosts(Section):
    transport: Literal["ssh", "local"] = "ssh"
    service: Literal["systemd", "process"] = "systemd"
    manage_etc_hosts: bool = True
    run_as: Annotated[str, rule("a system user's name", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "etcd"
    hardening: bool = True


class NodeSsh(Section):
    """One node's own connection. None: [ssh]'s, then ~/.ssh/config's, then the node's ip, root and 22."""

    host: Annotated[str | None, rule("a host name or IP address", pattern=rf"^{HOST}$")] = None
    user: Login | None = None
    port: Port | None = None


class Ssh(Section):
    """None: what ~/.ssh/config says, else root, 22, ssh's own keys, no jump host and the usual known_hosts."""

    user: Login | None = None
    port: Port | None = None
    key: Annotated[LocalPath | None, rule("a private key's file, mode 0600, or the .pub of an agent's key")] = None
    jump: Annotated[str | None, rule("[user@]host[:port], several with commas", pattern=rf"^{HOP}(,{HOP})*$")] = None
    sudo: bool = False
    host_keys: Literal["accept-new", "strict"] = "accept-new"
    known_hosts: Annotated[LocalPath | None, rule("a known_hosts file")] = None
    connect_timeout: Seconds = 10
    parallel: Annotated[int, rule("1 to 256 hosts at a time", ge=1, le=256)] = 32


class Cfssl(Section):
    """`source` None: the binary is not fetched. `sha256` is of what `source` points to."""

    binary: Plain = "cfssl"
    profile: Identifier = "etcd-cluster"
    timeout: Seconds = 30
    source: Annotated[
        str | None, AfterValidator(lambda text: text and _cfssl_source(text)), rule('"debian" or a URL')
    ] = None
    sha256: Sha256 | None = None
    environment: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")],
            Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")],
        ],
        rule("variables' names and one-line values"),
    ] = {}


class Exec(Section):
    """A signer that reads a request on stdin and prints PEM. An empty argv means that there is none."""

    argv: Annotated[
        tuple[Plain, ...],
        ListField,
        AfterValidator(_argv),
        rule("a list: a program and its arguments; {name} {kind} {days} {sans} are filled in"),
    ] = ()
    timeout: Seconds = 30


class Tls(Section):
    """`cn` None: each leaf's is its node's name. `ca_file` None: the backend makes and keeps the CA."""

    enabled: bool = True
    backend: Identifier = "builtin"
    layout: Literal["per-node", "shared"] = "per-node"
    key: Literal["ecdsa:p256", "ecdsa:p384", "ecdsa:p521", "rsa:2048", "rsa:3072", "rsa:4096"] = "ecdsa:p256"
    ca_days: Days = 3650
    leaf_days: Days = 365
    renew_days: Days = 30
    subject: Annotated[
        dict[Annotated[str, Field(pattern=rf"^({'|'.join(SUBJECT_KEYS)})$")], CommonName],
        rule(f"1 to 64 characters on one line each for {', '.join(SUBJECT_KEYS)}; C: two capital letters"),
    ] = {"C": "CN", "ST": "BeiJing", "L": "BeiJing", "O": "etcd", "OU": "opsnull"}
    ca_cn: CommonName = "etcd-ca"
    cn: CommonName | None = None
    operator_cn: CommonName = "root"
    ca_file: Annotated[LocalPath | None, rule("a PEM file of CA certificates")] = None
    distribute_ca_key: bool = False
    plain_loopback: bool = False
    cfssl: Cfssl = Cfssl()
    exec: Exec = Exec()


class NodeTable(Section):
    name: Annotated[
        str,
        rule(
            "1 to 63 of a-z, 0-9 and -, no - at either end", pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63
        ),
    ]
    ip: Annotated[str, AfterValidator(_address), rule("an IPv4 or IPv6 address of that host")]
    client_port: Port = 2379
    peer_port: Port = 2380
    sans: Annotated[
        tuple[Annotated[str, AfterValidator(_san)], ...], ListField, rule("a list of IP addresses and DNS names")
    ] = ()
    ssh: NodeSsh = NodeSsh()
    flags: Flags = {}


SECTIONS: dict[str, type[Section]] = {
    "cluster": ClusterTable,
    "etcd": Etcd,
    "release": Release,
    "paths": Paths,
    "hosts": Hosts,
    "ssh": Ssh,
    "tls": Tls,
}
