"""etcd.toml, read and checked as a whole, becomes a Cluster."""
