"""What changes a cluster, member by member: starts, restarts, upgrades."""
