"""etcd's binaries on the controller: sources' tools, verification and the cache."""
