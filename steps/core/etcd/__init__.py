"""What etcd itself says and needs: questions and answers, flags, logs, living processes. Nothing here runs anything."""
