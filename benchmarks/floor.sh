#!/usr/bin/env bash
# The floor: what no deployment over SSH can undercut. floor.sh KIT install|look|glance HOST…
#   install  a prepared tar per host, one ssh each, all at once; then health
#   look     one ssh per host that runs sha256sum and systemctl and asks for health
#   glance   the same without health: what a plan looks at
set -euo pipefail
kit=$1 what=$2
shift 2

everywhere() { # a command, on all hosts at once; each host's own stdin, if there is one
    local pids=() host input
    for host in "${hosts[@]}"; do
        input=$kit/tar/$host.tar.gz
        [ "$what" = install ] && [ "$1" != "$health" ] || input=/dev/null
        ssh -F "$kit/ssh_config" "$host" "$1" <"$input" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
}

hosts=("$@")
look='sha256sum /usr/local/bin/etcd* /etc/etcd/cert/*.pem /etc/systemd/system/etcd.service /etc/hosts &&
    stat -c "%a %U:%G" /data/etcd/data /data/etcd/wal && systemctl show etcd -p ActiveState,MainPID,UnitFileState'
health=$(cat "$kit/health")
install='useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin etcd &&
    tar -xzf - -C / && systemctl daemon-reload && systemctl --quiet enable etcd && systemctl restart etcd'
case $what in
    install) everywhere "$install" && everywhere "$health" ;;
    look) everywhere "$look && $health" ;;
    glance) everywhere "$look" ;;
esac
