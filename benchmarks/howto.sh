#!/usr/bin/env bash
# The how-to's way: loops over the nodes, scp, cfssl. Its commands and order, with the kit's files where it writes them
# by hand. howto.sh KIT WORK
set -euo pipefail
kit=$1 work=$2
mkdir -p "$work"
cd "$work"
# shellcheck source=/dev/null
. "$kit/environment.sh" # NODE_IPS, NODE_NAMES
ssh() { command ssh -F "$kit/ssh_config" "$@"; }
scp() { command scp -q -F "$kit/ssh_config" "$@"; }

# the CA and the certificate that all nodes share
cp "$kit/cfssl/"*.json .
cfssl gencert -initca ca-csr.json | cfssljson -bare ca
cfssl gencert -ca=ca.pem -ca-key=ca-key.pem -config=ca-config.json -profile=etcd-cluster etcd-csr.json |
    cfssljson -bare etcd

# the binaries
for node_ip in "${NODE_IPS[@]}"; do
    echo ">>> ${node_ip}"
    scp "$kit/bin/"etcd* "root@${node_ip}:/usr/local/bin"
    ssh "root@${node_ip}" "chmod +x /usr/local/bin/*"
done

# the certificates
for node_ip in "${NODE_IPS[@]}"; do
    echo ">>> ${node_ip}"
    ssh "root@${node_ip}" "useradd --system --shell /usr/sbin/nologin etcd; mkdir -p /etc/etcd/cert"
    scp ca.pem etcd.pem etcd-key.pem "root@${node_ip}:/etc/etcd/cert/"
    ssh "root@${node_ip}" "chown -R etcd /etc/etcd/cert"
done

# the units
for ((i = 0; i < ${#NODE_IPS[@]}; i++)); do
    sed -e "s/##NODE_NAME##/${NODE_NAMES[i]}/" -e "s/##NODE_IP##/${NODE_IPS[i]}/" "$kit/etcd.service.template" \
        >"etcd-${NODE_IPS[i]}.service"
done
for node_ip in "${NODE_IPS[@]}"; do
    echo ">>> ${node_ip}"
    scp "etcd-${node_ip}.service" "root@${node_ip}:/etc/systemd/system/etcd.service"
done

# start: the first one blocks until there is a quorum, so the loop does not wait
for node_ip in "${NODE_IPS[@]}"; do
    echo ">>> ${node_ip}"
    ssh "root@${node_ip}" "mkdir -p -m 700 /data/etcd/data /data/etcd/wal && chown -R etcd /data/etcd"
    ssh "root@${node_ip}" "systemctl daemon-reload && systemctl enable etcd && systemctl restart etcd" &
done
wait

# check
for node_ip in "${NODE_IPS[@]}"; do
    echo ">>> ${node_ip}"
    ssh "root@${node_ip}" "systemctl status etcd | grep Active"
done
for node_ip in "${NODE_IPS[@]}"; do
    echo ">>> ${node_ip}"
    # shellcheck disable=SC2029 # the text is this machine's
    ssh "root@${node_ip}" "$(cat "$kit/health")"
done
