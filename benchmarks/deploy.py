"""pyinfra's deploy of the kit, as one who knows pyinfra writes it."""

from __future__ import annotations

from pathlib import Path

from pyinfra import host
from pyinfra.operations import files, server, systemd
from pyinfra.operations.util import any_changed

kit = Path(host.data.kit)

server.user(  # noqa: S604 - the login shell
    name="The user that runs etcd", user="etcd", system=True, shell="/usr/sbin/nologin", create_home=False
)
files.block(
    name="Members in /etc/hosts", path="/etc/hosts", content=(kit / "hosts").read_text(encoding="utf-8").splitlines()
)
for path in ("/data/etcd", "/data/etcd/data", "/data/etcd/wal"):
    files.directory(name=path, path=path, user="etcd", group="etcd", mode="700")
files.directory(name="Certificates", path="/etc/etcd/cert", user="root", group="etcd", mode="750")
puts = [
    files.put(name=binary.name, src=str(binary), dest=f"/usr/local/bin/{binary.name}", mode="755")
    for binary in sorted((kit / "bin").iterdir())
]
puts += [
    files.put(name=file.name, src=str(file), dest=f"/etc/etcd/cert/{file.name}", user="etcd", group="etcd", mode="600")
    for file in sorted((kit / "cert" / host.name).iterdir())
]
unit = files.template(
    name="Unit",
    src=str(kit / "etcd.service.j2"),
    dest="/etc/systemd/system/etcd.service",
    mode="644",
    node=host.name,
    ip=host.data.ssh_hostname,
)
systemd.daemon_reload(name="Reload units", _if=unit.did_change)
systemd.service(name="Restart", service="etcd", running=True, restarted=True, _if=any_changed(*puts, unit))
systemd.service(name="Running and enabled", service="etcd", running=True, enabled=True)
server.shell(name="Health", commands=[(kit / "health").read_text(encoding="utf-8")])
