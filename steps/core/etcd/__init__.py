"""What etcd itself says and needs: questions, flags, the health gate, rolling restarts, snapshots."""
